"""Devices that vanish from their driver and appear in it while the daemon runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gpud.clock import SystemClock
from gpud.devices.crossings import crossings
from gpud.devices.driver import NO_LONGER_LISTED, DriverOutdated
from gpud.devices.sampling.frames import (
    Answer,
    Inventory,
    Remark,
    SamplerSettings,
    TickBegan,
    TickEnded,
)
from gpud.devices.sampling.limits import Limits
from gpud.devices.sampling.sampler import Sampler
from gpud.devices.snapshot import DeviceKind, Health, HostReadings, Readings, Snapshot
from tests.devices.standin import NvmlChild
from tests.devices.sysfs import bind, unbind
from tests.devices.watching import (
    PATIENCE_SECONDS,
    QUICK,
    UNHURRIED,
    Watcher,
    health,
    no_helper_lives,
    running,
    sample,
)
from tests.fakes.child import FakeChild, FakeSpawner
from tests.fakes.driver import FakeDriver


def types(watcher: Watcher, since: int) -> list[tuple[str, str]]:
    """(type, subject) of all that is told of the snapshots after that many."""
    snapshots = watcher.snapshots[since - 1 :]
    return [
        (event.type, event.subject.removeprefix("devices/"))
        for before, after in pairwise(snapshots)
        for event in crossings(before, after, lambda _: {})
        if event.type not in ("device.pressure", "device.thermal")
    ]


# Simulated cards.


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., None]:
    def write(**cards: dict[str, Any]) -> None:
        fresh = tmp_path / "scenario.new"
        fresh.write_text(json.dumps(cards))
        fresh.rename(tmp_path / "scenario.json")

    return write


def simulated(watcher: Watcher, tmp_path: Path) -> Sampler:
    settings = SamplerSettings(
        nvml="off",
        simulated=(("gtx-1080-ti", 3),),
        scenario=str(tmp_path / "scenario.json"),
        interval_seconds=0.05,
        processes_every=2,
    )
    return Sampler(settings, SystemClock(), watcher.publish, UNHURRIED)


def has_vanished(alias: str) -> Callable[[Snapshot], bool]:
    return lambda snapshot: sample(snapshot, alias).vanished_boottime is not None


async def test_a_card_is_taken_out_and_put_back(
    tmp_path: Path, script: Callable[..., None]
) -> None:
    script()
    watcher = Watcher()
    async with running(simulated(watcher, tmp_path)):
        before = await watcher.until(lambda s: s.complete)
        seen = len(watcher.snapshots)
        script(gpu1={"absent": True})
        gone = await watcher.until(has_vanished("gpu1"))
        tombstone = sample(gone, "gpu1")
        assert tombstone.health is Health.LOST
        assert tombstone.health_reason == NO_LONGER_LISTED
        assert tombstone.info == sample(before, "gpu1").info
        assert sample(gone, "gpu2").health is Health.HEALTHY
        script()
        back = await watcher.until(health("gpu1", Health.HEALTHY))
        assert not has_vanished("gpu1")(back)
        told = types(watcher, seen)
    # Its readings may fail before its driver is asked what there is.
    assert [each for each in told if each[0] != "device.lost"] == [
        ("device.vanished", "SIM-gtx-1080-ti-1"),
        ("device.recovered", "SIM-gtx-1080-ti-1"),
    ]


async def test_a_card_that_is_absent_at_first_appears_under_its_name(
    tmp_path: Path, script: Callable[..., None]
) -> None:
    script(gpu1={"absent": True})
    watcher = Watcher()
    async with running(simulated(watcher, tmp_path)):
        first = await watcher.until(lambda s: s.complete)
        assert [s.info.alias for s in first.samples] == ["gpu0", "gpu2", "host"]
        seen = len(watcher.snapshots)
        script()
        later = await watcher.until(lambda s: s.find("gpu1") is not None)
        assert [s.info.alias for s in later.samples] == ["gpu0", "gpu1", "gpu2", "host"]
        assert sample(later, "gpu1").health is Health.HEALTHY
        told = types(watcher, seen)
    assert told == [("device.appeared", "SIM-gtx-1080-ti-1")]


# NVML, on the stand-in library.


@pytest.fixture
def befall(
    nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """What is to happen to one of eight healthy cards; "" ends it."""
    trigger = tmp_path / "trigger"
    monkeypatch.setenv("LD_LIBRARY_PATH", str(nvml_library))
    monkeypatch.setenv("NVML_STANDIN", "healthy")
    monkeypatch.setenv("NVML_STANDIN_TRIGGER", str(trigger))

    def write(what: str) -> None:
        fresh = trigger.with_suffix(".new")
        fresh.write_text(what)
        fresh.rename(trigger)

    return write


def nvml(watcher: Watcher) -> Sampler:
    settings = SamplerSettings(nvml="on", host=False, interval_seconds=0.05, processes_every=2)
    return Sampler(settings, SystemClock(), watcher.publish, UNHURRIED)


async def test_a_card_that_nvml_lists_no_more_is_gone_and_comes_back(
    befall: Callable[[str], None],
) -> None:
    watcher = Watcher()
    async with running(nvml(watcher)):
        before = await watcher.until(lambda s: s.complete)
        befall("gone 3")
        gone = await watcher.until(has_vanished("gpu3"))
        # The others' indices moved up in the driver; their names did not.
        assert {s.info for s in gone.samples} == {s.info for s in before.samples}
        later = await watcher.until(lambda s: sample(s, "gpu7").boottime > gone.boottime)
        healthy = [s.info.alias for s in later.samples if s.health is Health.HEALTHY]
        assert healthy == [f"gpu{n}" for n in (0, 1, 2, 4, 5, 6, 7)]
        befall("")
        back = await watcher.until(health("gpu3", Health.HEALTHY))
        assert sample(back, "gpu3").info.uuid == "GPU-standin-3"


async def test_slices_come_and_go_with_the_mode_of_their_card(
    befall: Callable[[str], None],
) -> None:
    watcher = Watcher()
    async with running(nvml(watcher)):
        await watcher.until(lambda s: s.complete)
        seen = len(watcher.snapshots)
        befall("mig 2")
        sliced = await watcher.until(lambda s: len(s.samples) == 10)
        slices = [s for s in sliced.samples if s.info.kind is DeviceKind.MIG]
        # After all that is there already, and as hot as their card, which tells it.
        assert [s.info.alias for s in slices] == ["gpu8", "gpu9"]
        assert {s.info.parent_uuid for s in slices} == {"GPU-standin-2"}
        card = await watcher.until(lambda s: sample(s, "gpu2").readings.mig_enabled is True)
        assert sample(card, "gpu8").thermal is sample(card, "gpu2").thermal is not None
        silent = await watcher.until(
            lambda s: sample(s, "gpu2").readings.utilization_percent is None
        )
        assert sample(silent, "gpu2").health is Health.HEALTHY
        befall("")
        gone = await watcher.until(lambda s: has_vanished("gpu8")(s) and has_vanished("gpu9")(s))
        assert sample(gone, "gpu8").health is Health.LOST
        # What the card refused for good in the other mode, it is asked again.
        await watcher.until(lambda s: sample(s, "gpu2").readings.utilization_percent == 42)
        told = types(watcher, seen)
    assert sorted(told) == sorted([
        ("device.mig", "GPU-standin-2"),
        ("device.appeared", "MIG-standin-2-1"),
        ("device.appeared", "MIG-standin-2-2"),
        ("device.vanished", "MIG-standin-2-1"),
        ("device.vanished", "MIG-standin-2-2"),
        ("device.mig", "GPU-standin-2"),
    ])  # fmt: skip


def test_a_card_that_the_kernel_driver_took_later_wants_nvml_opened_anew(
    befall: Callable[[str], None], nvml_library: Path, tmp_path: Path
) -> None:
    first, second = "0000:01:00.0", "0000:04:00.0"
    bind(tmp_path, first)
    befall("gone 3")

    def open_nvml() -> NvmlChild:
        return NvmlChild(nvml_library, NVML_STANDIN_SYSFS=str(tmp_path))

    driver = open_nvml()
    try:
        assert len(driver.devices()) == 7
        bind(tmp_path, second)
        befall("")
        with pytest.raises(DriverOutdated) as caught:
            driver.devices()
        assert caught.value.added == (second,)
    finally:
        driver.end()
    driver = open_nvml()
    try:
        assert len(driver.devices()) == 8
        unbind(tmp_path, second)  # a virtual machine has it now: nothing to see anew
        assert driver.devices()
        bind(tmp_path, second)
        with pytest.raises(DriverOutdated):
            driver.devices()
    finally:
        driver.end()


# With processes that the test speaks for.

CARDS = FakeDriver("GPU-a", "GPU-b")


def tick(child: FakeChild, *uuids: str) -> None:
    """A tick in which the driver lists these, and all that are not skipped answer."""
    child.say(TickBegan(boottime=1.0, wall=1.0, then="nvml"))
    child.say(Inventory(devices=tuple(CARDS.infos[uuid] for uuid in uuids)))
    for uuid in uuids:
        if uuid not in child.orders.skipped:
            readings = Readings(memory_used_bytes=0)
            child.say(Answer(uuid=uuid, boottime=1.0, wall=1.0, readings=readings))
    child.say(TickEnded(host=HostReadings()))


async def test_a_device_that_hung_and_vanished_is_not_probed_any_more() -> None:
    watcher, spawner = Watcher(), FakeSpawner()
    limits = Limits(device=0.3, probe_first=0.2, probe_longest=0.2, restart_first=0.01)
    sampler = Sampler(
        SamplerSettings(interval_seconds=30), SystemClock(), watcher.publish, limits, spawner
    )
    async with running(sampler):
        first = await spawner.next(1)
        tick(first, "GPU-a", "GPU-b")
        first.say(TickBegan(boottime=1.0, wall=1.0, then="GPU-a"))
        live = await spawner.next(2)
        assert live.orders.skipped == ("GPU-a",)
        tick(live, "GPU-b")
        assert has_vanished("gpu0")(watcher.snapshots[-1])
        # No probe, however long one waits; and the process at work may read it once it is back.
        with pytest.raises(TimeoutError):
            await spawner.next(3, within_seconds=3 * limits.probe_longest)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await live.heard(1)
        assert live.commands == ["take GPU-a"]


async def test_a_process_that_ends_to_open_nvml_anew_costs_no_device_its_health() -> None:
    watcher, spawner = Watcher(), FakeSpawner()
    sampler = Sampler(
        SamplerSettings(interval_seconds=30), SystemClock(), watcher.publish, QUICK, spawner
    )
    async with running(sampler):
        first = await spawner.next(1)
        tick(first, "GPU-a")
        first.say(TickBegan(boottime=1.0, wall=1.0, then="nvml"))
        first.say(Remark(level="info", event="driver.outdated", detail="a card was added"))
        first.end()
        second = await spawner.next(2)
        assert second.orders.skipped == ()
        tick(second, "GPU-a", "GPU-b")
    assert {s.health for snapshot in watcher.snapshots for s in snapshot.samples} == {
        Health.HEALTHY
    }
    assert [s.info.alias for s in watcher.snapshots[-1].samples] == ["gpu0", "gpu1"]


async def test_numbers_outlive_the_sampling_process() -> None:
    watcher, spawner = Watcher(), FakeSpawner()
    sampler = Sampler(
        SamplerSettings(interval_seconds=30), SystemClock(), watcher.publish, QUICK, spawner
    )
    async with running(sampler):
        first = await spawner.next(1)
        tick(first, "GPU-a", "GPU-b")
        tick(first, "GPU-a")
        first.end()
        second = await spawner.next(2)
    assert second.orders.numbers == {"GPU-a": 0, "GPU-b": 1}
    assert no_helper_lives()
