"""The daemon's side of sampling: who is believed, left out and tried again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpud.clock import SystemClock
from gpud.devices.sampling.child import Child, Receive
from gpud.devices.sampling.frames import (
    Answer,
    Inventory,
    Orders,
    SamplerSettings,
    TickBegan,
    TickEnded,
    Unanswered,
)
from gpud.devices.sampling.limits import Limits
from gpud.devices.sampling.sampler import Sampler
from gpud.devices.snapshot import (
    DeviceInfo,
    DeviceKind,
    Health,
    HostReadings,
    Readings,
    Sample,
    Snapshot,
)
from tests.devices.proc_tree import hog
from tests.devices.watching import (
    PATIENCE_SECONDS,
    QUICK,
    UNHURRIED,
    Watcher,
    health,
    helpers,
    no_helper_lives,
    running,
    sample,
)
from tests.fakes.child import FakeChild, FakeSpawner
from tests.fakes.driver import GIB, FakeDriver


def settings(tmp_path: Path, **changes: Any) -> SamplerSettings:
    given: dict[str, Any] = {
        "nvml": "off",
        # Not the usual card: simulated cards show the processes of the whole host.
        "simulated": (("gtx-1080-ti", 8),),
        "scenario": str(tmp_path / "scenario.json"),
        "interval_seconds": 0.05,
        "processes_every": 1,
    }
    return SamplerSettings(**(given | changes))


def script(tmp_path: Path, **cards: dict[str, Any]) -> None:
    fresh = tmp_path / "scenario.new"
    fresh.write_text(json.dumps(cards))
    fresh.rename(tmp_path / "scenario.json")


async def test_the_first_snapshot_is_complete_and_in_order(tmp_path: Path) -> None:
    watcher, clock = Watcher(), SystemClock()
    sampler = Sampler(settings(tmp_path), clock, watcher.publish, UNHURRIED)
    start = clock.now()
    async with running(sampler):
        first = await watcher.until(lambda s: s.complete)
        await watcher.until(lambda _: True)
    assert [s.info.alias for s in first.samples] == [*(f"gpu{n}" for n in range(8)), "host"]
    assert {s.health for s in first.samples} == {Health.HEALTHY}
    numbers = [snapshot.sequence for snapshot in watcher.snapshots]
    assert numbers == list(range(1, len(numbers) + 1))
    for each in first.samples:
        assert each.processes is not None
        assert each.listed_boottime == each.boottime
        assert each.memory_used_at_list_bytes == each.readings.memory_used_bytes
        assert start.boottime <= each.boottime <= clock.now().boottime
    assert sampler.newest is watcher.snapshots[-1]
    assert sampler.last_tick_boottime is not None
    assert no_helper_lives()


async def test_a_hanging_card_is_left_out_and_returns(tmp_path: Path) -> None:
    watcher = Watcher()
    async with running(Sampler(settings(tmp_path), SystemClock(), watcher.publish, QUICK)):
        before = await watcher.until(lambda s: s.complete)
        (first_helper,) = helpers()
        script(tmp_path, gpu1={"hang": True})
        hung = await watcher.until(health("gpu1", Health.UNRESPONSIVE))
        # Its age shows, and the others go on, by another process.
        later = await watcher.until(
            lambda s: all(sample(s, f"gpu{n}").boottime > hung.boottime for n in (0, 7))
        )
        assert sample(later, "gpu1").health is Health.UNRESPONSIVE
        assert "no answer within 0.3 s" in sample(later, "gpu1").health_reason
        assert sample(later, "gpu1").boottime < sample(later, "gpu0").boottime
        assert sample(later, "gpu1").boottime >= sample(before, "gpu1").boottime
        assert first_helper not in helpers()
        script(tmp_path)
        back = await watcher.until(health("gpu1", Health.HEALTHY))
        fresh = await watcher.until(
            lambda s: sample(s, "gpu1").boottime > sample(back, "gpu1").boottime
        )
        assert sample(fresh, "gpu1").info == sample(before, "gpu1").info
        assert [s.sequence for s in watcher.snapshots] == list(
            range(1, len(watcher.snapshots) + 1)
        )


async def test_a_card_that_hangs_from_the_start_still_makes_a_complete_snapshot(
    tmp_path: Path,
) -> None:
    script(tmp_path, gpu0={"hang": True})
    watcher = Watcher()
    async with running(Sampler(settings(tmp_path), SystemClock(), watcher.publish, QUICK)):
        first = await watcher.until(lambda s: s.complete)
    assert sample(first, "gpu0").health is Health.UNRESPONSIVE
    assert sample(first, "gpu0").readings == Readings()
    assert len(first.samples) == 9


async def test_while_a_card_hangs_the_others_are_published_on(tmp_path: Path) -> None:
    watcher = Watcher()
    limits = Limits(device=60.0)  # nothing is decided in this test
    async with running(Sampler(settings(tmp_path), SystemClock(), watcher.publish, limits)):
        await watcher.until(lambda s: s.complete)
        (helper,) = helpers()
        script(tmp_path, gpu1={"hang": True}, gpu2={"hang": True})

        def others_go_on(snapshot: Snapshot) -> bool:
            ages = {s.info.alias: snapshot.boottime - s.boottime for s in snapshot.samples}
            hanging = [ages.pop(alias) for alias in ("gpu1", "gpu2")]
            return min(hanging) > 0.3 and max(ages.values()) <= 0

        stale = await watcher.until(others_go_on)
        # Without a verdict yet, and by the same process; the late answers are as good as any.
        assert sample(stale, "gpu1").health is Health.HEALTHY
        script(tmp_path)
        await watcher.until(lambda s: sample(s, "gpu1").boottime >= s.boottime)
        await watcher.until(lambda s: sample(s, "gpu2").boottime >= s.boottime)
        assert helpers() == [helper]


async def test_cards_that_hang_together_cost_one_deadline(tmp_path: Path) -> None:
    watcher = Watcher()
    script(tmp_path, **{f"gpu{n}": {"hang": True} for n in range(7)})
    limits = Limits(device=3.0, probe_first=3600.0)
    started: list[Orders] = []

    def spawn(orders: Orders, receive: Receive) -> Child:
        started.append(orders)
        return Child(orders, receive)

    sampler = Sampler(settings(tmp_path), SystemClock(), watcher.publish, limits, spawn)
    async with running(sampler):
        early = await watcher.until(lambda s: len(s.samples) == 2)
        assert [s.info.alias for s in early.samples] == ["gpu7", "host"]
        assert not early.complete
        whole = await watcher.until(lambda s: s.complete)
    silent = {s.info.alias for s in whole.samples if s.health is Health.UNRESPONSIVE}
    assert silent == {f"gpu{n}" for n in range(7)}
    # Two, unless that host stops for seconds between two of them.
    assert len(started) <= 3


async def test_a_killed_sampling_process_is_replaced(tmp_path: Path) -> None:
    watcher = Watcher()
    # One tick each: a process that dies as it asks a card would be said to have died of it.
    once = settings(tmp_path, interval_seconds=3600.0)
    async with running(Sampler(once, SystemClock(), watcher.publish, UNHURRIED)):
        before = await watcher.until(lambda s: s.complete)
        (first,) = helpers()
        os.kill(first, signal.SIGKILL)
        after = await watcher.until(
            lambda s: s.boottime > before.boottime and helpers() != [first]
        )
        assert [s.info for s in after.samples] == [s.info for s in before.samples]
        assert {s.health for s in after.samples} == {Health.HEALTHY}
    assert no_helper_lives()


async def test_a_stopped_sampling_process_is_replaced(tmp_path: Path) -> None:
    watcher = Watcher()
    async with running(Sampler(settings(tmp_path), SystemClock(), watcher.publish, QUICK)):
        await watcher.until(lambda _: True)
        (first,) = helpers()
        os.kill(first, signal.SIGSTOP)
        await watcher.until(lambda _: bool(helpers()) and first not in helpers())


async def test_a_lost_card_shows_and_comes_back(tmp_path: Path) -> None:
    watcher = Watcher()
    async with running(Sampler(settings(tmp_path), SystemClock(), watcher.publish, UNHURRIED)):
        await watcher.until(lambda s: s.complete)
        script(tmp_path, gpu2={"lost": True})
        lost = await watcher.until(health("gpu2", Health.LOST))
        assert "lost" in sample(lost, "gpu2").health_reason
        assert sample(lost, "gpu3").health is Health.HEALTHY
        script(tmp_path)
        await watcher.until(health("gpu2", Health.HEALTHY))


async def test_refused_memory_makes_the_health_unknown(tmp_path: Path) -> None:
    script(tmp_path, gpu0={"unsupported": ["memory_used_bytes"]})
    watcher = Watcher()
    async with running(Sampler(settings(tmp_path), SystemClock(), watcher.publish, UNHURRIED)):
        first = await watcher.until(lambda s: s.complete)
    assert sample(first, "gpu0").health is Health.UNKNOWN
    assert sample(first, "gpu0").health_reason


async def test_a_list_comes_soon_when_asked_for(tmp_path: Path) -> None:
    watcher = Watcher()
    rare = settings(tmp_path, processes_every=100_000)
    sampler = Sampler(rare, SystemClock(), watcher.publish, UNHURRIED)
    async with running(sampler):
        await watcher.until(lambda s: s.complete)
        with hog(CUDA_VISIBLE_DEVICES="SIM-gtx-1080-ti-3", GPUD_RESERVATION="r-list") as pid:
            before = await watcher.until(lambda _: True)
            assert sample(before, "gpu3").processes == ()
            sampler.list_soon()
            listed = await watcher.until(
                lambda s: all(_shows(s, alias, pid) for alias in ("gpu3", "host"))
            )
            card = sample(listed, "gpu3")
            assert card.processes is not None
            assert [(use.pid, use.claim) for use in card.processes] == [(pid, "r-list")]
            host = sample(listed, "host").processes
            assert host is not None
            assert [use.pid for use in host if use.claim == "r-list"] == [pid]
            # Between lists the newest one stays, with the moment that it is of.
            kept = await watcher.until(lambda s: sample(s, "gpu3").boottime > card.boottime)
            assert sample(kept, "gpu3").processes == card.processes
            assert sample(kept, "gpu3").listed_boottime == card.listed_boottime


async def test_a_sample_comes_at_once_when_asked_for(tmp_path: Path) -> None:
    watcher, clock = Watcher(), SystemClock()
    settings = SamplerSettings(nvml="off", host=True, interval_seconds=3600.0, processes_every=100)
    sampler = Sampler(settings, clock, watcher.publish, UNHURRIED)

    async def host_asked_now() -> Sample:
        """A busy host may be late for the tick that was asked for; then another one is."""
        asked = clock.now().boottime
        while True:
            sampler.sample_now()
            snapshot = await watcher.until(lambda _: True)
            host = snapshot.find("host")
            if host is not None and host.boottime >= asked:
                return host

    async with running(sampler):
        await watcher.until(lambda _: True)
        for _ in range(3):
            host = await host_asked_now()
            assert host.listed_boottime == host.boottime


async def test_squeezes_are_counted_and_told_once() -> None:
    told = [HostReadings(memory_some_percent=percent) for percent in (0.0, 20.0, 30.0, 1.0, 11.0)]
    watcher = Watcher()
    sampler = Sampler(SamplerSettings(nvml="off"), SystemClock(), watcher.publish, QUICK)
    for readings in told:
        sampler._take_host(readings)
    sampler._publish(SystemClock().now())  # as when a device misses its deadline
    counted = [snapshot.host.memory_pressure_events for snapshot in watcher.snapshots]
    assert counted == [0, 1, 1, 1, 2, 2]
    assert [len(snapshot.squeezes) for snapshot in watcher.snapshots] == [0, 1, 0, 0, 1, 0]


async def test_it_samples_every_ten_milliseconds_at_most(tmp_path: Path) -> None:
    watcher = Watcher()
    fast = settings(tmp_path, interval_seconds=0.001, processes_every=1000)
    async with running(Sampler(fast, SystemClock(), watcher.publish, UNHURRIED)):
        await watcher.until(lambda s: s.sequence == 30)
    first, *_, last = watcher.snapshots
    # Late ticks happen on a busy machine, early ones never; that lateness does not add up is
    # the schedule's own test.
    assert last.boottime - first.boottime >= 0.01 * 28
    assert [snapshot.sequence for snapshot in watcher.snapshots[:30]] == list(range(1, 31))


def _shows(snapshot: Snapshot, alias: str, pid: int) -> bool:
    return pid in [use.pid for use in sample(snapshot, alias).processes or ()]


# With processes that the test speaks for.

CARDS = FakeDriver("GPU-a", "GPU-b")
SIMULATED = DeviceInfo(
    uuid="SIM-0",
    alias="gpu2",
    index=2,
    kind=DeviceKind.SIMULATED,
    model_name="simulated",
    memory_total_bytes=GIB,
)


def answer(uuid: str, then: str = "") -> Answer:
    readings = Readings(memory_used_bytes=0)
    return Answer(uuid=uuid, boottime=1.0, wall=1.0, readings=readings, then=then)


def begin(child: FakeChild, first: str, opening: tuple[str, ...] = ()) -> None:
    devices = () if opening else (*CARDS.infos.values(), SIMULATED)
    child.say(TickBegan(boottime=1.0, wall=1.0, then="nvml"))
    child.say(Inventory(devices=devices, opening=opening, then=first))


def full_tick(child: FakeChild) -> None:
    begin(child, "SIM-0")
    for uuid, then in (("SIM-0", "GPU-a"), ("GPU-a", "GPU-b"), ("GPU-b", "")):
        if uuid not in child.orders.skipped:
            child.say(answer(uuid, then))
    child.say(TickEnded(host=HostReadings()))


def fake_sampler(watcher: Watcher, limits: Limits = QUICK) -> tuple[Sampler, FakeSpawner]:
    spawner = FakeSpawner()
    sampler = Sampler(
        SamplerSettings(interval_seconds=30), SystemClock(), watcher.publish, limits, spawner
    )
    return sampler, spawner


async def test_at_most_one_process_is_stuck_and_one_at_work() -> None:
    watcher = Watcher()
    sampler, spawner = fake_sampler(watcher)
    async with running(sampler):
        first = await spawner.next(1)
        full_tick(first)
        begin(first, "GPU-a")
        first.is_killable = False
        second = await spawner.next(2)
        assert first.is_abandoned
        assert second.orders.skipped == ("GPU-a",)
        assert health("gpu0", Health.UNRESPONSIVE)(watcher.snapshots[-1])
        assert health("gpu1", Health.HEALTHY)(watcher.snapshots[-1])
        # The second gets stuck as well: no third one goes near that driver.
        second.is_killable = False
        begin(second, "GPU-b")
        third = await spawner.next(3)
        assert set(third.orders.skipped) == {"GPU-a", "GPU-b", "nvml"}
        assert health("gpu2", Health.HEALTHY)(watcher.snapshots[-1])
        # And no probe starts, however often one is due, until both are gone.
        full_tick(third)
        with pytest.raises(TimeoutError):
            await spawner.next(4, within_seconds=3 * QUICK.probe_longest)
        first.is_killable = second.is_killable = True
        for number in (4, 5, 6):
            probe = await spawner.next(number)
            if probe.orders.only == "nvml":
                begin(probe, "")
            else:
                probe.say(answer(probe.orders.only))
            probe.end()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await third.heard(3)
        assert set(third.commands) == {"take GPU-a", "take GPU-b", "take nvml"}


async def test_a_probe_that_hangs_leaves_the_live_process_alone() -> None:
    watcher = Watcher()
    sampler, spawner = fake_sampler(watcher)
    async with running(sampler):
        first = await spawner.next(1)
        begin(first, "GPU-a")
        live = await spawner.next(2)
        full_tick(live)
        probe = await spawner.next(3)
        probe.say(TickBegan(boottime=1.0, wall=1.0, then="GPU-a"))
        again = await spawner.next(4)
        assert probe.is_abandoned
        assert again.orders.only == "GPU-a"
        assert not live.is_abandoned
        assert live.commands == []


async def test_a_device_that_kills_the_process_is_left_out() -> None:
    watcher = Watcher()
    sampler, spawner = fake_sampler(watcher)
    async with running(sampler):
        first = await spawner.next(1)
        begin(first, "GPU-b")
        first.end()
        second = await spawner.next(2)
        assert second.orders.skipped == ("GPU-b",)
        assert "died of reading it" in sample(watcher.snapshots[-1], "gpu1").health_reason


async def test_a_process_that_dies_without_a_word_has_left_a_mark() -> None:
    watcher = Watcher()
    sampler, spawner = fake_sampler(watcher)
    async with running(sampler):
        first = await spawner.next(1)
        full_tick(first)
        first.asked_last = "GPU-b"
        first.end()
        second = await spawner.next(2)
        assert second.orders.skipped == ("GPU-b",)


async def test_an_unanswered_device_has_its_own_deadline_and_may_answer_late() -> None:
    watcher = Watcher()
    sampler, spawner = fake_sampler(watcher)
    async with running(sampler):
        first = await spawner.next(1)
        full_tick(first)
        for uuid in ("GPU-a", "GPU-b"):
            first.say(Unanswered(uuid=uuid))
        assert first.busy_with == ""
        first.say(answer("GPU-b"))
        # The process itself goes on, but for this one.
        second = await spawner.next(2)
        assert second.orders.skipped == ("GPU-a",)
        assert health("gpu0", Health.UNRESPONSIVE)(watcher.snapshots[-1])
        assert health("gpu1", Health.HEALTHY)(watcher.snapshots[-1])


async def test_a_daemon_that_stood_still_blames_nobody() -> None:
    sampler, spawner = fake_sampler(Watcher(), replace(QUICK, device=1.0))
    async with running(sampler):
        first = await spawner.next(1)
        full_tick(first)
        begin(first, "GPU-a")
        await asyncio.sleep(0)
        time.sleep(2.0)  # noqa: ASYNC251 — the loop itself is what stands still
        for _ in range(5):  # its timers are due before anything is read
            await asyncio.sleep(0)
        assert not first.is_abandoned
        first.say(answer("GPU-a"))
        full_tick(first)


async def test_a_driver_that_kills_the_process_as_it_opens_is_left_out() -> None:
    watcher = Watcher()
    sampler, spawner = fake_sampler(watcher)
    async with running(sampler):
        for life in range(1, QUICK.crashes_tolerated + 1):
            (await spawner.next(life)).end()
        last = await spawner.next(QUICK.crashes_tolerated + 1)
        assert last.orders.skipped == ("nvml",)


async def test_discovery_that_hangs_leaves_the_driver_out() -> None:
    watcher = Watcher()
    sampler, spawner = fake_sampler(watcher)
    async with running(sampler):
        first = await spawner.next(1)
        full_tick(first)
        first.say(TickBegan(boottime=2.0, wall=2.0, then="nvml"))
        second = await spawner.next(2)
        assert second.orders.skipped == ("nvml",)
        hung = watcher.snapshots[-1]
        assert [s.info.uuid for s in hung.samples if s.health is Health.UNRESPONSIVE] == [
            "GPU-a", "GPU-b",
        ]  # fmt: skip


async def test_a_driver_that_does_not_open_is_not_awaited_for_ever() -> None:
    watcher = Watcher()
    limits = Limits(opening=0.0)
    sampler, spawner = fake_sampler(watcher, limits)
    async with running(sampler):
        child = await spawner.next(1)
        # The device of an open driver, while another driver is being opened.
        child.say(Inventory(devices=(SIMULATED,), opening=("nvml",), then="SIM-0"))
        child.say(answer("SIM-0"))
        child.say(TickEnded(host=HostReadings()))
    assert [snapshot.complete for snapshot in watcher.snapshots] == [True]


async def test_a_snapshot_is_not_complete_while_a_driver_opens() -> None:
    watcher = Watcher()
    sampler, spawner = fake_sampler(watcher)
    async with running(sampler):
        child = await spawner.next(1)
        child.say(Inventory(devices=(SIMULATED,), opening=("nvml",), then="SIM-0"))
        child.say(answer("SIM-0"))
        child.say(TickEnded(host=HostReadings()))
        full_tick(child)
        child.say(Inventory(devices=(SIMULATED,), opening=("nvml",)))
        child.say(TickEnded(host=HostReadings()))
    # Once each device was heard of, the daemon has started: a later opening changes no more.
    assert [snapshot.complete for snapshot in watcher.snapshots] == [False, True, True]


async def test_a_device_that_is_listed_no_more_stays_as_lost() -> None:
    watcher = Watcher()
    sampler, spawner = fake_sampler(watcher)
    async with running(sampler):
        child = await spawner.next(1)
        full_tick(child)
        child.say(Inventory(devices=(CARDS.infos["GPU-b"], SIMULATED)))
        child.say(TickEnded(host=HostReadings()))
        gone = watcher.snapshots[-1]
        assert sample(gone, "gpu0").health is Health.LOST
        assert sample(gone, "gpu1").health is Health.HEALTHY
        child.say(Inventory(devices=(SIMULATED,), unavailable={"nvml": "the module is gone"}))
        child.say(TickEnded(host=HostReadings()))
        assert sample(watcher.snapshots[-1], "gpu1").health_reason == "the module is gone"
