"""Long work on files in threads: joined by all who need it, ended when the last of them goes.

A thread can only be asked to end: it looks whenever it has moved some bytes, and what it is
blocked in is closed under it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from gpud.clock import Clock
from gpud.units import format_size

T = TypeVar("T")
# People read it: more often than that tells nobody anything.
TELL_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How far it is; None: nobody knows. `words` say what is done."""

    words: str
    done_bytes: int = 0
    total_bytes: int | None = None
    bytes_per_second: float | None = None

    def __str__(self) -> str:
        if not self.done_bytes:
            return self.words
        done = f"{self.words} {format_size(self.done_bytes)}"
        total = f" of {format_size(self.total_bytes)}" if self.total_bytes is not None else ""
        rate = self.bytes_per_second
        return f"{done}{total}{f', {format_size(int(rate))}/s' if rate is not None else ''}"

    @property
    def fraction(self) -> float | None:
        """0..1."""
        return min(1.0, self.done_bytes / self.total_bytes) if self.total_bytes else None


Tell = Callable[[Step], None]


class JobStopped(Exception):
    """Nobody waits for it any more."""


class Control:
    """What a job's thread has in its hands. Its methods but `cancel` are the thread's."""

    def __init__(self, clock: Clock, tell: Tell) -> None:
        self.clock = clock
        self._tell = tell
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._closer: Callable[[], None] | None = None
        self._told = float("-inf")

    def cancel(self) -> None:
        """Ask the thread to end; from any other."""
        with self._lock:
            self._stopped.set()
            closer = self._closer
            if closer is not None:
                with suppress(OSError):
                    closer()

    def check(self) -> None:
        """Raise JobStopped once nobody waits."""
        if self._stopped.is_set():
            raise JobStopped

    def pause(self, seconds: float) -> None:
        """Wait; raises JobStopped as soon as nobody waits."""
        self._stopped.wait(seconds)
        self.check()

    @contextmanager
    def closing(self, closer: Callable[[], None]) -> Iterator[None]:
        """While in here, `closer` is called by cancel, to end what the thread is blocked in."""
        with self._lock:
            self._closer = closer
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._closer = None

    def tell(self, step: Step, *, always: bool = False) -> None:
        """Say how far it is, now and then."""
        now = self.clock.now().boottime
        if always or now - self._told >= TELL_SECONDS:
            self._told = now
            self._tell(step)


@dataclass(slots=True)
class _Job:
    control: Control
    done: asyncio.Future[Any]
    tells: list[Tell] = field(default_factory=list)
    newest: Step | None = None

    def told(self, step: Step) -> None:
        self.newest = step
        for tell in self.tells:
            tell(step)


class Jobs:
    """The work under way, by key; so many at once, the others wait for their turn."""

    def __init__(self, clock: Clock, at_once: int) -> None:
        self._clock = clock
        self._turns = threading.BoundedSemaphore(at_once)
        self._jobs: dict[str, _Job] = {}

    def running(self, key: str) -> Step | None:
        """How far it is, where it is under way."""
        job = self._jobs.get(key)
        return job.newest if job is not None else None

    async def run(
        self,
        key: str,
        work: Callable[[Control], T],
        tell: Tell,
        *,
        stall_seconds: float | None = None,
    ) -> T:
        """What the work gives; joined where it is under way already.

        Cancelled, it goes on as long as somebody else waits. Raises what the work raises, and
        TimeoutError where it tells nothing for `stall_seconds`: a disk may hang for ever.
        """
        while True:
            job = self._jobs.get(key) or self._begin(key, work)
            try:
                async with asyncio.timeout(stall_seconds) as limit:
                    result: T = await self._joined(job, tell, limit, stall_seconds)
                    return result
            except JobStopped:
                continue  # it was being ended when we came to it

    async def _joined(
        self, job: _Job, tell: Tell, limit: asyncio.Timeout, stall_seconds: float | None
    ) -> Any:
        def told(step: Step) -> None:
            if stall_seconds is not None:
                limit.reschedule(asyncio.get_running_loop().time() + stall_seconds)
            tell(step)

        job.tells.append(told)
        try:
            if job.newest is not None:
                tell(job.newest)
            return await asyncio.shield(job.done)
        finally:
            job.tells.remove(told)
            if not job.tells:
                job.control.cancel()

    def _begin(self, key: str, work: Callable[[Control], T]) -> _Job:
        loop = asyncio.get_running_loop()

        def tell(step: Step) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(job.told, step)

        control = Control(self._clock, tell)
        job = _Job(control, loop.create_future())
        job.done.add_done_callback(lambda done: done.cancelled() or done.exception())

        def settle(result: list[T], error: BaseException | None) -> None:
            del self._jobs[key]
            if error is not None:
                job.done.set_exception(error)
            else:
                job.done.set_result(result[0])

        def run() -> None:
            result: list[T] = []
            failure: BaseException | None = None
            try:
                with self._turn(control):
                    result.append(work(control))
            except Exception as error:  # noqa: BLE001 — told to whoever waits
                failure = error
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, result, failure)

        self._jobs[key] = job
        threading.Thread(target=run, name=f"job {key[-40:]}", daemon=True).start()
        return job

    @contextmanager
    def _turn(self, control: Control) -> Iterator[None]:
        if not self._turns.acquire(blocking=False):
            waits = Step(words="waits for others to end")
            control.tell(waits, always=True)
            while not self._turns.acquire(timeout=TELL_SECONDS):
                control.check()
                control.tell(waits, always=True)
        try:
            yield
        finally:
            self._turns.release()
