"""Delivery of snapshots: the newest, in turn, within a budget; what is lost is counted exactly."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing
from itertools import pairwise

import pytest

from gpud.devices.snapshot import HostReadings, Snapshot
from gpud.feed import WOKEN_PER_TURN, Feed
from gpud.rpc.delivery import DELIVERIES_PER_SECOND, Delivery, Follower
from tests.fakes.clock import FakeClock

PATIENCE_SECONDS = 60.0


class Stage:
    """A feed whose snapshots come when a test says so."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.feed: Feed[Snapshot] = Feed()
        self.delivery = Delivery(self.feed, self.clock)
        self.got: dict[Follower, list[int]] = {}

    def publish(self, boottime: float) -> None:
        number = self.feed.sequence + 1
        self.feed.publish(
            Snapshot(
                sequence=number,
                wall=boottime,
                boottime=boottime,
                samples=(),
                host=HostReadings(),
                complete=True,
            )
        )

    async def follow(self, follower: Follower, *, then: asyncio.Event | None = None) -> None:
        """Take all that comes; after the first wait for `then`, as a reader that has stopped."""
        got = self.got[follower] = []
        async with aclosing(self.delivery.follow(follower)) as snapshots:
            async for snapshot in snapshots:
                got.append(snapshot.sequence)
                if then is not None:
                    await then.wait()

    async def turns(self, count: int = 400) -> None:
        """Let the loop go round."""
        for _ in range(count):
            await asyncio.sleep(0)


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_every_snapshot_comes_to_who_asks_for_each(stage: Stage) -> None:
    follower = Follower()
    task = asyncio.create_task(stage.follow(follower))
    for number in range(10):
        stage.publish(float(number))
        await stage.turns(5)
    task.cancel()
    assert stage.got[follower] == [*range(1, 11)]
    assert follower.dropped_count == 0


async def test_what_the_interval_skips_was_never_lost(stage: Stage) -> None:
    follower = Follower(interval_seconds=1.0)
    task = asyncio.create_task(stage.follow(follower))
    for number in range(100):
        stage.publish(number / 10)
        await stage.turns(5)
    task.cancel()
    got = stage.got[follower]
    gaps = {after - before for before, after in pairwise(got)}
    assert gaps == {10}
    assert follower.dropped_count == 0


async def test_who_stops_gets_the_newest_and_hears_what_it_lost(stage: Stage) -> None:
    goes_on = asyncio.Event()
    every, second = Follower(), Follower(interval_seconds=1.0)
    tasks = [asyncio.create_task(stage.follow(each, then=goes_on)) for each in (every, second)]
    stage.publish(0.0)
    await stage.turns(5)
    for number in range(1, 41):
        stage.publish(number / 10)
        await stage.turns(2)
    goes_on.set()
    await stage.turns(10)
    for task in tasks:
        task.cancel()
    assert stage.got[every] == [1, 41]
    assert every.dropped_count == 39  # all between
    assert stage.got[second] == [1, 41]
    # Due at 0.9, 1.8, 2.7 and 3.6 s; the last of these is what came, as of 4.0 s.
    assert second.dropped_count == 3


async def test_more_than_the_budget_is_shared_fairly(stage: Stage) -> None:
    """A thousand at 100 Hz: at each tick so many as the budget has, in turn, each the newest."""
    followers = [Follower() for _ in range(1000)]
    tasks = [asyncio.create_task(stage.follow(each)) for each in followers]
    stage.publish(0.0)
    await stage.turns()
    counts = Counter({each: len(stage.got[each]) for each in followers})
    ticks = 200
    for number in range(1, ticks + 1):
        stage.publish(number / 100)
        await stage.turns(60)
        for each in followers:
            if len(stage.got[each]) > counts[each]:
                counts[each] = len(stage.got[each])
                assert stage.got[each][-1] == number + 1  # never an old one
    for task in tasks:
        task.cancel()
    delivered = [len(stage.got[each]) for each in followers]
    assert max(delivered) - min(delivered) <= 1
    budget = int(DELIVERIES_PER_SECOND / 100)
    assert sum(delivered) == pytest.approx(1000 + ticks * budget, abs=1000)


async def test_a_turn_of_the_loop_wakes_a_few(stage: Stage) -> None:
    followers = [Follower() for _ in range(100)]
    tasks = [asyncio.create_task(stage.follow(each)) for each in followers]
    stage.publish(0.0)
    await stage.turns()
    stage.publish(1.0)
    seen = 0
    while seen < 200:
        await asyncio.sleep(0)
        now = sum(map(len, stage.got.values()))
        assert now - max(seen, 100) <= WOKEN_PER_TURN
        seen = now
    for task in tasks:
        task.cancel()


async def test_a_slow_machine_stops_at_its_share_of_the_time(stage: Stage) -> None:
    """Whose clock passes half of the interval while it delivers leaves the rest for the next."""
    followers = [Follower() for _ in range(100)]
    tasks = [asyncio.create_task(stage.follow(each)) for each in followers]
    for number in range(2):
        stage.publish(float(number))
        await stage.turns()
    before = sum(map(len, stage.got.values()))
    stage.publish(2.0)
    for _ in range(3):
        await asyncio.sleep(0)
    stage.clock.advance(0.6)
    await stage.turns()
    in_time = sum(map(len, stage.got.values())) - before
    assert 0 < in_time < 100
    stage.publish(3.0)
    await stage.turns()
    for task in tasks:
        task.cancel()
    counts = [len(stage.got[each]) for each in followers]
    assert max(counts) - min(counts) == 1
    assert {stage.got[each][-1] for each in followers} == {4}


async def test_who_leaves_is_forgotten(stage: Stage) -> None:
    tasks = [asyncio.create_task(stage.follow(Follower())) for _ in range(20)]
    stage.publish(0.0)
    await stage.turns()
    stage.publish(1.0)  # some are in the queue as they leave
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await stage.turns()
    assert not stage.delivery._followers
    assert not stage.delivery._queue


async def test_who_goes_on_is_not_sent_what_it_has(stage: Stage) -> None:
    stage.publish(0.0)
    stage.publish(1.0)
    new, old = Follower(after_sequence=2), Follower(after_sequence=1)
    tasks = [asyncio.create_task(stage.follow(each)) for each in (new, old)]
    await stage.turns()
    assert (stage.got[new], stage.got[old]) == ([], [2])
    stage.publish(2.0)
    await stage.turns()
    for task in tasks:
        task.cancel()
    assert (stage.got[new], stage.got[old]) == ([3], [2, 3])
