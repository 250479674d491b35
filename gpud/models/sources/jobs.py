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

from gpud import threads
from gpud.clock import Clock
from gpud.units import format_size

T = TypeVar("T")
# People read it: more often than that tells nobody anything.
TELL_SECONDS: Final = 0.25
# The others may be at files of many gigabytes; what hangs gives its turn back long before.
WAIT_SECONDS: Final = 3600.0


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


class JobStalled(TimeoutError):
    """It tells nothing any more: what it is blocked in may hang for ever."""


class NoTurn(TimeoutError):
    """The others before it did not end in time."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How work is done.

    What is of another `kind` under the same key has to end first. It has to tell of itself every
    `stall_seconds`; None: whenever. `in_turn`: it waits for its turn, as what moves many bytes.
    """

    kind: str = ""
    stall_seconds: float | None = None
    in_turn: bool = True


class _Turn:
    """One of the places that jobs have; given back once, by whichever thread is the first."""

    def __init__(self, turns: threading.BoundedSemaphore) -> None:
        self._turns = turns
        self._lock = threading.Lock()
        self._is_held = False

    def take(self, control: Control, wait_seconds: float) -> None:
        """Blocks until there is one. Raises JobStopped, NoTurn."""
        if not self._turns.acquire(blocking=False):
            began = control.clock.now().boottime
            while not self._turns.acquire(timeout=TELL_SECONDS):
                control.check()
                control.tell(Step(words="waits for others to end"), always=True)
                if control.clock.now().boottime - began > wait_seconds:
                    raise NoTurn
        with self._lock:
            self._is_held = True

    def give_back(self) -> None:
        """Nothing where it was given back, or never taken."""
        with self._lock:
            if self._is_held:
                self._is_held = False
                self._turns.release()


@dataclass(slots=True)
class _Job:
    """Used on the loop."""

    control: Control
    done: asyncio.Future[Any]
    turn: _Turn
    manner: Manner
    tells: list[Tell] = field(default_factory=list)
    newest: Step | None = None
    is_overdue: bool = False
    _watch: asyncio.TimerHandle | None = None

    def told(self, step: Step) -> None:
        """The thread is alive. A step of waiting comes before `begun`, and counts for nothing."""
        self.newest = step
        if self._watch is not None:
            self.begun()
        for tell in self.tells:
            tell(step)

    def begun(self) -> None:
        """It has its turn: from now on it has to tell of itself in time, again and again."""
        limit = self.manner.stall_seconds
        if limit is not None and not self.is_overdue:
            self.unwatch()
            self._watch = asyncio.get_running_loop().call_later(limit, self._stall)

    def unwatch(self) -> None:
        """It has ended, or hangs."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _stall(self) -> None:
        """Others have its turn from now on, and nobody waits for it; its thread may never end."""
        self._watch = None
        self.is_overdue = True
        self.turn.give_back()
        self.control.cancel()
        self.done.set_exception(JobStalled())


class Jobs:
    """The work under way, by key; so many at once, the others wait for their turn."""

    def __init__(self, clock: Clock, at_once: int, wait_seconds: float = WAIT_SECONDS) -> None:
        self._clock = clock
        self._turns = threading.BoundedSemaphore(at_once)
        self._wait_seconds = wait_seconds
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
        manner: Manner = Manner(),
    ) -> T:
        """What the work gives; joined where it is under way already.

        Cancelled, it goes on as long as somebody else waits. Raises what the work raises;
        JobStalled where it tells nothing for too long since it has its turn (a disk may hang for
        ever), and at once as long as that thread has not ended; NoTurn; ThreadRefused.
        """
        while True:
            job = self._jobs.get(key) or self._begin(key, work, manner)
            if job.is_overdue:
                raise JobStalled
            if job.manner.kind != manner.kind:
                await asyncio.wait([job.done])
                continue
            try:
                result: T = await self._joined(job, tell)
            except JobStopped:
                continue  # it was being ended when we came to it
            return result

    async def _joined(self, job: _Job, tell: Tell) -> Any:
        job.tells.append(tell)
        try:
            if job.newest is not None:
                tell(job.newest)
            return await asyncio.shield(job.done)
        finally:
            job.tells.remove(tell)
            if not job.tells:
                job.control.cancel()

    def _begin(self, key: str, work: Callable[[Control], T], manner: Manner) -> _Job:
        loop = asyncio.get_running_loop()

        def tell(step: Step) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(job.told, step)

        control, turn = Control(self._clock, tell), _Turn(self._turns)
        job = _Job(control, loop.create_future(), turn, manner)
        job.done.add_done_callback(lambda done: done.cancelled() or done.exception())

        def settle(result: list[T], error: BaseException | None) -> None:
            del self._jobs[key]
            job.unwatch()
            if job.done.done():
                return  # it came too late
            if error is not None:
                job.done.set_exception(error)
            else:
                job.done.set_result(result[0])

        def run() -> None:
            result: list[T] = []
            failure: BaseException | None = None
            try:
                if manner.in_turn:
                    turn.take(control, self._wait_seconds)
                loop.call_soon_threadsafe(job.begun)
                result.append(work(control))
            except Exception as error:  # noqa: BLE001 — told to whoever waits
                failure = error
            finally:
                turn.give_back()
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, result, failure)

        threads.start(run, f"job {key[-40:]}", f"work on {key.partition(':')[2] or key}")
        self._jobs[key] = job
        return job
