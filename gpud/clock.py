"""The clock: the one place that reads time. Everything else is handed moments."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from asyncio import Future

# By how much `about` is sooner or later.
SLACK_SECONDS = 0.5
BOOT_ID_PATH = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One instant on the clocks that leases need.

    `boottime` (CLOCK_BOOTTIME, seconds) rules within one boot: it counts suspend and no one can
    set it. `wall` (seconds since the epoch) is for people and for the step over a reboot.
    """

    boot_id: str
    boottime: float
    wall: float


class Clock(Protocol):
    """Reads and waits for time."""

    def now(self) -> Moment:
        """The present instant; never blocks."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; cancellable."""
        ...

    async def about(self, seconds: float) -> None:
        """Wait until the `beat` next to that, half a second sooner or later at most; cancellable.

        For what is done over and over: each moment at which a process that rests is woken costs
        it more than most of what is done then, so all of that is done at one.
        """
        ...

    def beat(self) -> None:
        """What comes regularly has come, and this process is awake for it."""
        ...


class SystemClock:
    """The kernel's clocks."""

    def __init__(self) -> None:
        self._boot_id = BOOT_ID_PATH.read_text().strip()
        self._waiting: dict[Future[None], float] = {}  # for a beat; from when on (loop time)

    def now(self) -> Moment:
        """The present instant."""
        return Moment(
            boot_id=self._boot_id,
            boottime=time.clock_gettime(time.CLOCK_BOOTTIME),
            wall=time.time(),
        )

    async def sleep(self, seconds: float) -> None:
        """Wait on the event loop."""
        # Imported here because the sampling process reads this clock too, and has no event loop.
        import asyncio

        await asyncio.sleep(seconds)

    async def about(self, seconds: float) -> None:
        """Wait on the event loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        slack = min(SLACK_SECONDS, seconds / 2)
        turn = loop.create_future()
        latest = loop.call_later(seconds + slack, _begin, turn)
        self._waiting[turn] = loop.time() + seconds - slack
        try:
            await turn
        finally:
            latest.cancel()
            del self._waiting[turn]

    def beat(self) -> None:
        """Go on with whoever has waited long enough."""
        for turn, earliest in self._waiting.items():
            if turn.get_loop().time() >= earliest:
                _begin(turn)


def _begin(turn: Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
