"""Snapshots to whoever follows them: each the newest, in turn, and what it lost counted.

What is handed to gRPC counts as sent, and up to 64 KiB of it wait for a reader: with more handed
over than readers and the server can take, all of them fall seconds behind. So no more snapshots
are delivered than there is budget for; who was passed over is first at the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from gpud.clock import Clock
from gpud.devices.snapshot import Snapshot
from gpud.feed import WOKEN_PER_TURN, Feed

# Measured: 40 to 80 µs of CPU each, so that half a core is left (TARGETS' S7). A slower machine
# stops after its share of the time between two snapshots instead.
DELIVERIES_PER_SECOND = 6000.0
SHARE_OF_TIME = 0.5
LONGEST_BUDGET_SECONDS = 1.0
# Ticks come a little early and a little late, and who asks for their very interval gets each of
# them: so much of the time between two is forgiven, however long the asked interval is.
JITTER = 0.1


@dataclass(slots=True, eq=False)
class Follower:
    """One stream. `interval_seconds`: the least time between two snapshots; 0: every one."""

    interval_seconds: float = 0.0
    after_sequence: int = 0  # not to be sent again, nor what came before it
    dropped_count: int = 0  # was due, and replaced before it was sent
    is_due: bool = False  # a snapshot waits for it
    _due_boottime: float = 0.0  # from when on the next one is due
    _turn: asyncio.Future[None] | None = None  # while it waits

    def see(self, snapshot: Snapshot, jitter_seconds: float) -> bool:
        """Whether a newly published snapshot makes it wait for its turn now."""
        if snapshot.boottime < self._due_boottime - jitter_seconds:
            return False
        self._due_boottime = snapshot.boottime + self.interval_seconds
        if self.is_due:
            self.dropped_count += 1
            return False
        self.is_due = True
        return self._turn is not None

    def take(self, snapshot: Snapshot) -> Snapshot:
        """The newest is sent now."""
        self.is_due = False
        self._due_boottime = snapshot.boottime + self.interval_seconds
        return snapshot

    async def wait(self) -> None:
        """Wait to be woken."""
        self._turn = asyncio.get_running_loop().create_future()
        try:
            await self._turn
        finally:
            self._turn = None

    def wake(self) -> bool:
        """Whether it waited, and goes on now."""
        if self._turn is None or self._turn.done():
            return False
        self._turn.set_result(None)
        return True


class Delivery:
    """All followers of the snapshots; on one event loop."""

    def __init__(self, snapshots: Feed[Snapshot], clock: Clock) -> None:
        self._snapshots = snapshots
        self._clock = clock
        self._followers: dict[Follower, None] = {}
        self._queue: deque[Follower] = deque()
        self._is_scheduled = False
        self._interval_seconds = LONGEST_BUDGET_SECONDS
        self._before: Snapshot | None = None
        self._budget = 0
        self._until_boottime = 0.0  # of this round of turns, where it does not end before
        snapshots.heed(self._published)

    async def follow(self, follower: Follower) -> AsyncGenerator[Snapshot]:
        """The present snapshot at once, then the newest whenever one is due and its turn comes."""
        self._followers[follower] = None
        try:
            latest = self._snapshots.latest
            if latest is not None and latest.sequence > follower.after_sequence:
                yield follower.take(latest)
            while True:
                if follower.is_due:
                    self._queue.append(follower)
                    self._begin_round()
                await follower.wait()
                newest = self._snapshots.latest
                assert newest is not None, "woken for nothing"  # noqa: S101 — it was published
                # Who was served last is the last to be asked again.
                self._followers[follower] = self._followers.pop(follower)
                yield follower.take(newest)
        finally:
            del self._followers[follower]

    def _published(self, snapshot: Snapshot) -> None:
        before, self._before = self._before, snapshot
        if before is not None:
            passed = max(0.0, snapshot.boottime - before.boottime)
            self._interval_seconds = min(LONGEST_BUDGET_SECONDS, passed)
        self._budget = max(WOKEN_PER_TURN, int(DELIVERIES_PER_SECOND * self._interval_seconds))
        self._until_boottime = 0.0
        jitter = JITTER * self._interval_seconds
        self._queue.extend(each for each in self._followers if each.see(snapshot, jitter))
        self._begin_round()

    def _begin_round(self) -> None:
        if self._queue and not self._is_scheduled and self._budget:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._take_turns)

    def _take_turns(self) -> None:
        """Wake a few; the loop does all else before the next few."""
        self._is_scheduled = False
        now = self._clock.now().boottime
        if not self._until_boottime:
            self._until_boottime = now + SHARE_OF_TIME * self._interval_seconds
        if now > self._until_boottime:
            self._budget = 0  # the rest is first at the next snapshot
        left = min(WOKEN_PER_TURN, self._budget)
        while left and self._queue:
            if self._queue.popleft().wake():
                left -= 1
                self._budget -= 1
        if not self._queue:
            self._until_boottime = 0.0
        self._begin_round()
