"""Notices on their way: a bounded queue and a worker for each sink; nobody waits for one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from gpud.clock import Clock
from gpud.telemetry.alerts.alert import Delivery, Severity
from gpud.telemetry.alerts.notices import Notice, body
from gpud.telemetry.alerts.sinks.sink import Sink, SinkFailed, pause_seconds

log = structlog.get_logger()

MOST_WAITING: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """A sink, and how often a notice is tried again."""

    sink: Sink
    retries: int


@dataclass(slots=True, eq=False)
class _Waiting:
    """A notice, and how often it was tried."""

    notice: Notice
    tries: int = 0

    @property
    def severity(self) -> Severity:
        return self.notice.alert.severity


@dataclass(slots=True)
class _Queue:
    """Notices for one sink, the oldest first; `tried` is on its way just now."""

    waiting: list[_Waiting] = field(default_factory=list)
    tried: _Waiting | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)  # who goes first has just come

    def first(self) -> _Waiting | None:
        """Who is to be told next: the gravest, then who was tried least, then the oldest.

        Of one alert's notices each goes as the gravest of them, and none before an older one.
        """
        oldest: dict[str, _Waiting] = {}
        gravest: dict[str, Severity] = {}
        for each in self.waiting:
            id_ = each.notice.alert.id
            oldest.setdefault(id_, each)
            gravest[id_] = max(each.severity, gravest.get(id_, each.severity))
        order = sorted(oldest, key=lambda id_: (-gravest[id_], oldest[id_].tries))
        return oldest[order[0]] if order else None

    def put(self, notice: Notice) -> _Waiting | None:
        """Add one; where too many wait, who matters least is dropped, and returned."""
        fresh = _Waiting(notice=notice)
        self.waiting.append(fresh)
        if self.first() is fresh:
            self.news.set()
        if len(self.waiting) <= MOST_WAITING:
            return None
        dropped = min(
            (each for each in self.waiting if each is not self.tried), key=lambda e: e.severity
        )
        self.waiting.remove(dropped)
        return dropped


class Outbox:
    """Delivers to each sink, the gravest first, at least once; what cannot be delivered is told.

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
            for each in self._queues.pop(name).waiting:
                self._settle(each, "the sink has left the configuration")
        for name in self._terms:
            self._queues.setdefault(name, _Queue())
        self._changed.set()

    def put(self, notice: Notice) -> None:
        """Have it delivered; where too many wait, the least grave is dropped, and told."""
        queue = self._queues.get(notice.sink)
        dropped = queue.put(notice) if queue is not None else None
        if dropped is not None:
            self._settle(dropped, f"more than {MOST_WAITING} waited for this sink")

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
            queue.news.clear()
            queue.tried = queue.first()
            if queue.tried is None:
                await queue.news.wait()
            elif await self._is_settled(terms, queue.tried):
                queue.waiting.remove(queue.tried)
            else:
                await self._rest(queue, pause_seconds(queue.tried.tries, self._luck()))

    async def _is_settled(self, terms: Terms, waiting: _Waiting) -> bool:
        """After one try."""
        try:
            return await self._is_done(terms, waiting)
        except Exception:
            # A mistake of ours costs a notice, never the others, or the daemon.
            log.exception("alerts.bug", sink=terms.sink.name)
            self._settle(waiting, "an internal error; the daemon's log has it")
            return True

    async def _is_done(self, terms: Terms, waiting: _Waiting) -> bool:
        problem, is_final = "", False
        try:
            await terms.sink.send(body(waiting.notice, self._node))
        except SinkFailed as failure:
            problem, is_final = failure.problem, failure.is_final
        waiting.tries += 1
        if problem and not is_final and waiting.tries <= terms.retries:
            self._report(waiting.notice, self._delivery(waiting, problem))
            return False
        self._settle(waiting, problem)
        return True

    async def _rest(self, queue: _Queue, seconds: float) -> None:
        """Leave the sink alone for so long, unless somebody comes who goes first."""
        async with asyncio.TaskGroup() as tasks:
            resting = tasks.create_task(self._clock.sleep(seconds))
            resting.add_done_callback(lambda _: queue.news.set())
            await queue.news.wait()
            resting.cancel()

    def _settle(self, waiting: _Waiting, problem: str) -> None:
        found = self._delivery(waiting, problem, is_settled=True)
        self._report(waiting.notice, found)

    def _delivery(self, waiting: _Waiting, problem: str, *, is_settled: bool = False) -> Delivery:
        notice = waiting.notice
        return Delivery(
            sink=notice.sink,
            wall=notice.wall,
            told=notice.told,
            delivered=is_settled and not problem,
            is_waiting=not is_settled,
            attempts=waiting.tries,
            problem=problem,
        )
