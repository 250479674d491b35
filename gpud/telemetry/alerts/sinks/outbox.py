"""Notices on their way: a bounded queue and a worker for each sink; nobody waits for one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from gpud.clock import Clock
from gpud.telemetry.alerts.alert import Delivery
from gpud.telemetry.alerts.notices import Notice, body
from gpud.telemetry.alerts.sinks.sink import Sink, SinkFailed, pause_seconds

log = structlog.get_logger()

MOST_WAITING: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """A sink, and how often a notice is tried again."""

    sink: Sink
    retries: int


@dataclass(slots=True)
class _Queue:
    """Notices for one sink, the oldest first."""

    waiting: deque[Notice] = field(default_factory=deque)
    filled: asyncio.Event = field(default_factory=asyncio.Event)

    async def first(self) -> Notice:
        """The oldest; it stays until it is settled."""
        while not self.waiting:
            self.filled.clear()
            await self.filled.wait()
        return self.waiting[0]


class Outbox:
    """Delivers in each sink's order, at least once; what cannot be delivered is told.

    `report` is called on the loop with each outcome, and with each try that failed.
    """

    def __init__(
        self,
        clock: Clock,
        node: str,
        luck: Callable[[], float],
        report: Callable[[Notice, Delivery], None],
    ) -> None:
        self._clock = clock
        self._node = node
        self._luck = luck
        self._report = report
        self._terms: dict[str, Terms] = {}
        self._queues: dict[str, _Queue] = {}
        self._changed = asyncio.Event()

    def configure(self, terms: Sequence[Terms]) -> None:
        """Deliver to these from now on; what waits for one that is gone is dropped, and told."""
        self._terms = {each.sink.name: each for each in terms}
        for name in self._queues.keys() - self._terms.keys():
            for notice in self._queues.pop(name).waiting:
                self._settle(notice, 0, "the sink has left the configuration")
        for name in self._terms:
            self._queues.setdefault(name, _Queue())
        self._changed.set()

    def put(self, notice: Notice) -> None:
        """Have it delivered; where too many wait, the oldest is dropped, and told."""
        queue = self._queues.get(notice.sink)
        if queue is None:
            return
        if len(queue.waiting) >= MOST_WAITING:
            # The first is being tried just now.
            dropped = queue.waiting[1]
            del queue.waiting[1]
            self._settle(dropped, 0, f"more than {MOST_WAITING} waited for this sink")
        queue.waiting.append(notice)
        queue.filled.set()

    async def run(self) -> None:
        """Deliver until cancelled. A new configuration begins the try under way anew."""
        while True:
            self._changed.clear()
            async with asyncio.TaskGroup() as tasks:
                workers = [
                    tasks.create_task(self._work(each), name=f"alerts to {name}")
                    for name, each in self._terms.items()
                ]
                await self._changed.wait()
                for worker in workers:
                    worker.cancel()

    async def _work(self, terms: Terms) -> None:
        queue = self._queues[terms.sink.name]
        while True:
            notice = await queue.first()
            try:
                await self._deliver(terms, notice)
            except Exception:
                # A mistake of ours costs a notice, never the others, or the daemon.
                log.exception("alerts.bug", sink=terms.sink.name)
                self._settle(notice, 0, "an internal error; the daemon's log has it")
            queue.waiting.popleft()

    async def _deliver(self, terms: Terms, notice: Notice) -> None:
        attempts = 0
        while True:
            attempts += 1
            try:
                await terms.sink.send(body(notice, self._node))
            except SinkFailed as failure:
                if failure.is_final or attempts > terms.retries:
                    self._settle(notice, attempts, failure.problem)
                    return
                self._report(
                    notice, self._delivery(notice, attempts=attempts, problem=failure.problem)
                )
                await self._clock.sleep(pause_seconds(attempts, self._luck()))
            else:
                self._settle(notice, attempts, "")
                return

    def _settle(self, notice: Notice, attempts: int, problem: str) -> None:
        found = self._delivery(notice, attempts=attempts, problem=problem, is_settled=True)
        self._report(notice, found)

    def _delivery(
        self, notice: Notice, *, attempts: int, problem: str, is_settled: bool = False
    ) -> Delivery:
        return Delivery(
            sink=notice.sink,
            wall=notice.wall,
            told=notice.told,
            delivered=is_settled and not problem,
            is_waiting=not is_settled,
            attempts=attempts,
            problem=problem,
        )
