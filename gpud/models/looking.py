"""Looks at files off the loop, a few at once; a disk that hangs holds up nobody but its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

from gpud import threads

# Parsing takes the interpreter's lock for up to half a second.
_AT_ONCE: Final = 4
T = TypeVar("T")


class LookOverdue(Exception):
    """The disk gave no answer in time; the text is the problem in words."""


class Looking:
    """The looks under way; used on the loop alone."""

    def __init__(self, limit_seconds: float) -> None:
        """`limit_seconds` is what a disk has for one, once it has begun."""
        self._limit_seconds = limit_seconds
        self._places = asyncio.Semaphore(_AT_ONCE)
        # Threads that took longer than anybody waits and may never end, by what they look at.
        self._overdue: Counter[str] = Counter()

    async def at(
        self, path: str, work: Callable[[], T], undo: Callable[[T], None] = lambda _: None
    ) -> T:
        """What the work in a thread gives; a result that comes too late is undone.

        Waits for its turn as long as it takes, which is bounded: a look that is overdue keeps its
        turn no longer. Raises LookOverdue, at once as long as an earlier look at that path hangs,
        ThreadRefused, and what the work raises.
        """
        self._refuse_overdue(path)
        await self._places.acquire()
        try:
            self._refuse_overdue(path)
            done = self._begin(path, work, undo)
        except BaseException:
            self._places.release()
            raise
        return await done

    def _refuse_overdue(self, path: str) -> None:
        if path in self._overdue:
            raise LookOverdue("does not answer: an earlier look at it hangs still")

    def _begin(
        self, path: str, work: Callable[[], T], undo: Callable[[T], None]
    ) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        look = _Look(loop.create_future(), undo)

        def expire() -> None:
            self._overdue[path] += 1
            self._places.release()
            look.is_late = True
            look.fail(
                LookOverdue(f"could not be read within {self._limit_seconds:g} s: its disk hangs")
            )

        def ended() -> None:
            timer.cancel()
            if look.is_late:
                self._overdue -= Counter([path])
            else:
                self._places.release()

        def run() -> None:
            settle = look.outcome(work)
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(ended)
                loop.call_soon_threadsafe(settle)

        threads.start(run, f"inspect {path[-40:]}", f"look at {path}")
        timer = loop.call_later(self._limit_seconds, expire)
        return look.done


@dataclass(slots=True)
class _Look(Generic[T]):
    """One of them; used on the loop but for `outcome`."""

    done: asyncio.Future[T]
    undo: Callable[[T], None]
    is_late: bool = False

    def outcome(self, work: Callable[[], T]) -> Callable[[], None]:
        """In the thread: do the work; what is to be called on the loop then."""
        try:
            found = work()
        except Exception as error:  # noqa: BLE001 — told to whoever waits
            return partial(self.fail, error)
        return partial(self.give, found)

    def fail(self, error: Exception) -> None:
        """It came to nothing."""
        if not self.done.done():
            self.done.set_exception(error)

    def give(self, found: T) -> None:
        """What it found; undone where it took too long, or nobody waits any more."""
        if self.done.done():
            self.undo(found)
        else:
            self.done.set_result(found)
