"""The clock: the one place that reads time. Everything else is handed moments."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

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


class SystemClock:
    """The kernel's clocks."""

    def __init__(self) -> None:
        self._boot_id = BOOT_ID_PATH.read_text().strip()

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
