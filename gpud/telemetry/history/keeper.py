"""The thread that writes the history down and reads it: the loop never waits for its disk.

A disk that is full, slow or gone costs nothing but what would have been written: so much waits as
the ring holds, and it is written once the disk takes it. That it is so is told once.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import structlog

from gpud.telemetry.history.blocks import MIDDLE, start_of
from gpud.telemetry.history.file import HistoryFile, HistoryUnwritable
from gpud.telemetry.history.ring import Packed

log = structlog.get_logger()
T = TypeVar("T")

# For a disk that has not answered by then, the ring has to do.
PATIENCE_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 5.0
# Old blocks go once the clock has been steady for so long, and then as often: one that is wrong
# for a while must not make all that there is look old.
STEADY_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What is to be written together; `wall` is when it ended."""

    wall: float
    blocks: Sequence[Packed]
    aliases: Mapping[str, str]


class Keeper:
    """Owns a file from `start` to `close`.

    `tell` is called on the loop with each change of state: why nothing can be written (empty: it
    can again), and where a file was moved that could not be read (empty: none was).
    """

    def __init__(
        self, file: HistoryFile, most_batches: int, tell: Callable[[str, str], None]
    ) -> None:
        self.patience_seconds = PATIENCE_SECONDS
        self._file = file
        self._tell = tell
        self._wake = threading.Condition()
        self._batches: deque[Batch] = deque(maxlen=most_batches)
        self._asks: deque[Callable[[], None]] = deque()
        # It moves whenever the thread gets on. Where it stood still for a whole ask in vain, the
        # disk hangs for as long as it stands there.
        self._pulse, self._hung_at = 0, -1
        self._fresh = self._closing = False  # a batch came since the last try
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        # Of the thread alone.
        self._cause = ""
        self._rolled = 0
        self._steady_since = self._newest = 0.0

    def start(self) -> None:
        """Begin, telling the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def keep(self, batch: Batch) -> None:
        """Write this down when the disk takes it; never blocks. The oldest that waits may go."""
        with self._wake:
            self._batches.append(batch)
            self._fresh = True
            self._wake.notify()

    async def ask(self, work: Callable[[HistoryFile], T]) -> T:
        """What `work` finds in the file, after all that was kept before.

        Raises HistoryUnwritable; TimeoutError when the disk does not answer: at once while it
        still hangs, once somebody waited in vain since the thread last got on. So of many who
        ask one after the other two wait at most: from rest the thread still woke for the first.
        """
        pulse = self._pulse
        if pulse == self._hung_at:
            raise TimeoutError
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def settle(outcome: Callable[[Any], None], value: object) -> None:
            if not done.done():
                outcome(value)

        def run() -> None:
            if done.done():  # nobody waits any more
                return
            try:
                found = work(self._file)
            except Exception as error:  # noqa: BLE001 (whoever asked gets it)
                _call(loop, settle, done.set_exception, error)
            else:
                _call(loop, settle, done.set_result, found)

        with self._wake:
            self._asks.append(run)
            self._wake.notify()
        try:
            async with asyncio.timeout(self.patience_seconds):
                return await done
        except TimeoutError:
            self._hung_at = pulse
            raise
        finally:
            with self._wake, suppress(ValueError):  # it is no longer in line
                self._asks.remove(run)

    def close(self) -> None:
        """Write what waits and end; a disk that does not answer is waited for 5 s."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_SECONDS)

    # The thread.

    def _run(self) -> None:
        self._look()
        while True:
            with self._wake:
                while not (self._closing or self._asks or self._fresh):
                    self._wake.wait()
                    self._pulse += 1
                # After a failure the next batch brings the next try.
                batches = tuple(self._batches) if self._fresh or self._closing else ()
                asks, closing = tuple(self._asks), self._closing
                self._asks.clear()
                self._fresh = False
            if batches:
                self._write(batches)
                self._pulse += 1
            for ask in asks:
                ask()
                self._pulse += 1
            if closing:
                self._file.close()
                return

    def _look(self) -> None:
        """Whether there is a file that can be used, before anything waits for it."""
        try:
            self._file.contents()
        except HistoryUnwritable as error:
            self._change(str(error))
        else:
            self._change("")

    def _write(self, batches: tuple[Batch, ...]) -> None:
        aliases = {name: alias for batch in batches for name, alias in batch.aliases.items()}
        try:
            self._file.write([block for batch in batches for block in batch.blocks], aliases)
            written = set(map(id, batches))
            with self._wake:
                while self._batches and id(self._batches[0]) in written:
                    self._batches.popleft()
            self._look_after(batches[-1].wall)
        except HistoryUnwritable as error:
            self._change(str(error))
        except Exception as error:
            # Whatever it was: the thread lives on, and the next batch may succeed.
            log.exception("history.bug")
            self._change(str(error))
        else:
            self._change("")

    def _look_after(self, now: float) -> None:
        period = start_of(MIDDLE, now)
        if period != self._rolled:
            self._file.roll_up(now)
            self._rolled = period
        if not self._newest <= now <= self._newest + STEADY_SECONDS:
            self._steady_since = now
        self._newest = now
        if now - self._steady_since >= STEADY_SECONDS:
            self._file.age(now)
            self._steady_since = now

    def _change(self, cause: str) -> None:
        aside = self._file.aside
        if (bool(cause) == bool(self._cause) and not aside) or self._loop is None:
            return
        self._cause, self._file.aside = cause, None
        _call(self._loop, self._tell, cause, str(aside or ""))


def _call(loop: asyncio.AbstractEventLoop, *call: Any) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(*call)
