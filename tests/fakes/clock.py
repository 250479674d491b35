"""A clock that tests move: sleepers wake when the moment they wait for is reached."""

from __future__ import annotations

import asyncio
import heapq
import itertools

from gpud.clock import Moment


class FakeClock:
    def __init__(self, boot_id: str = "boot-1", boottime: float = 1000.0, wall: float = 1.7e9):
        self.boot_id, self.boottime, self.wall = boot_id, boottime, wall
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._order = itertools.count()

    def now(self) -> Moment:
        return Moment(boot_id=self.boot_id, boottime=self.boottime, wall=self.wall)

    async def sleep(self, seconds: float) -> None:
        due = asyncio.Event()
        heapq.heappush(self._sleepers, (self.boottime + seconds, next(self._order), due))
        await due.wait()

    async def about(self, seconds: float) -> None:
        await self.sleep(seconds)

    def beat(self) -> None:
        pass

    def advance(self, seconds: float) -> None:
        self.boottime += seconds
        self.wall += seconds
        while self._sleepers and self._sleepers[0][0] <= self.boottime:
            heapq.heappop(self._sleepers)[2].set()

    def step_wall(self, seconds: float) -> None:
        """Somebody sets the date: only the wall clock moves."""
        self.wall += seconds

    def reboot(self, down_seconds: float = 60.0) -> None:
        self.boot_id += "'"
        self.boottime = 5.0
        self.wall += down_seconds
