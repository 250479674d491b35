"""NVML through the real binding on a stand-in library, each time in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpud.clock import SystemClock
from gpud.devices.driver import DeviceLost, DriverUnavailable, ListRefused
from gpud.devices.nvidia.card import RETRY_REFUSED_AFTER_READS
from gpud.devices.sampling.frames import SamplerSettings
from gpud.devices.sampling.limits import Limits
from gpud.devices.sampling.sampler import Sampler
from gpud.devices.snapshot import DeviceKind, Health, ProcessKind, Readings, Snapshot
from tests.devices.standin import NvmlChild
from tests.devices.sysfs import slot, two_nodes
from tests.devices.watching import QUICK, UNHURRIED, Watcher, health, running, sample

GIB = 1024**3
Open = Callable[..., NvmlChild]


@pytest.fixture
def open_nvml(nvml_library: Path) -> Iterator[Open]:
    opened: list[NvmlChild] = []

    def open_(machine: str = "healthy", library: Path = nvml_library, **more: str) -> NvmlChild:
        opened.append(NvmlChild(library, machine, **more))
        return opened[-1]

    yield open_
    for child in opened:
        child.end()


def test_eight_healthy_cards(open_nvml: Open) -> None:
    driver = open_nvml()
    infos = driver.devices()
    assert [info.alias for info in infos] == [f"gpu{number}" for number in range(8)]
    assert [info.uuid for info in infos] == [f"GPU-standin-{number}" for number in range(8)]
    third = infos[2]
    assert third.kind is DeviceKind.GPU
    assert third.model_name == "Stand-in 24GB"
    assert third.memory_total_bytes == 24 * GIB
    assert third.pci_bus_id == "00000000:03:00.0"
    assert third.driver_version == "550.163.01"
    assert driver.readings(third.uuid) == Readings(
        memory_used_bytes=GIB,
        memory_driver_reserved_bytes=GIB // 2,
        utilization_percent=42.0,
        memory_utilization_percent=17.0,
        temperature_celsius=42.0,
        power_watts=61.5,
        power_limit_watts=350.0,
        fan_percent=30.0,
        sm_clock_mhz=1395,
        memory_clock_mhz=9751,
        compute_mode="exclusive_process",
        mig_enabled=False,
        memory_temperature_celsius=52.0,
        video_clock_mhz=1395,
        performance_state=8,
        encoder_percent=5.0,
        decoder_percent=5.0,
        energy_joules=7200.0,
        throttle_reasons=("idle",),
        ecc_enabled=True,
        ecc_corrected_count=0,
        ecc_uncorrected_count=0,
        remapped_corrected_count=0,
        remapped_uncorrected_count=0,
        remap_pending=False,
        remap_failed=False,
        retired_page_count=0,
        pcie_generation=4,
        pcie_width=16,
        pcie_replay_count=0,
        nvlink_active_count=3,
        nvlink_error_count=0,
        recovery_action="none",
    )
    assert driver.processes(third.uuid) == ()


def test_processes_of_all_kinds_are_listed_once(open_nvml: Open) -> None:
    driver = open_nvml(GPUD_RESERVATION="r-1")
    driver.devices()
    listed = driver.processes("GPU-standin-0")
    assert listed is not None
    by_pid = {use.pid: use for use in listed}
    assert len(by_pid) == len(listed) == 3
    # It computes and draws: one process, its memory counted once, known by its environment.
    both = by_pid[driver.pid]
    assert (both.kind, both.used_bytes, both.claim) == (ProcessKind.COMPUTE, GIB, "r-1")
    assert both.start_time is not None
    # The driver does not tell the memory of this one, and its pid is nobody's here.
    hidden = by_pid[4194303]
    assert (hidden.used_bytes, hidden.start_time, hidden.process_name) == (None, None, "")
    assert by_pid[1].kind is ProcessKind.GRAPHICS


def test_an_old_card_on_an_old_driver(
    open_nvml: Open, old_nvml_library: Path, tmp_path: Path
) -> None:
    refusals = tmp_path / "refusals"
    driver = open_nvml("maxwell", old_nvml_library, NVML_STANDIN_REFUSALS=str(refusals))
    (info,) = driver.devices()
    assert info.memory_total_bytes == 12 * GIB
    readings = driver.readings(info.uuid)
    # Memory v1 counts the driver's share as used; everything that is refused is unknown, not 0.
    assert readings == Readings(
        memory_used_bytes=3 * GIB // 2, temperature_celsius=40.0, throttle_reasons=("idle",)
    )
    # The list calls of that driver have another version; graphics it refuses, compute it knows.
    listed = driver.processes(info.uuid)
    assert listed is not None
    assert {use.kind for use in listed} == {ProcessKind.COMPUTE}

    def refused_by_more_reads(count: int) -> int:
        before = int(refusals.read_text())
        for _ in range(count):
            # Now and then it measures what its bus carries: it has no counters of that.
            again = driver.readings(info.uuid).changed(
                pcie_sent_bytes_per_second=None,
                pcie_received_bytes_per_second=None,
            )
            assert again == readings
            driver.processes(info.uuid)
        return int(refusals.read_text()) - before

    # What it refuses for good is never asked again; an unknown error may pass (the three clocks).
    assert refused_by_more_reads(RETRY_REFUSED_AFTER_READS - 1) == 0
    assert refused_by_more_reads(1) == 3


def test_a_list_that_fails_is_no_list_and_is_asked_for_at_the_next_read(
    open_nvml: Open, tmp_path: Path
) -> None:
    """One error said "it never lists" for sixty reads: what still ran counted as gone."""
    trigger = tmp_path / "trigger"
    driver = open_nvml(NVML_STANDIN_TRIGGER=str(trigger))
    first = driver.devices()[0].uuid

    def pids() -> set[int]:
        driver.readings(first)
        return {use.pid for use in driver.processes(first) or ()}

    everybody = pids()
    assert 1 in everybody
    # Its graphics processes alone are missed as well: a part would pass for the whole.
    for word in ("mute", "dim"):
        befall(trigger, f"{word} 0")
        for _ in range(2):
            with pytest.raises(ListRefused):
                pids()
        befall(trigger, "")
        assert pids() == everybody


def test_a_card_that_supports_no_lists_never_lists(open_nvml: Open, tmp_path: Path) -> None:
    trigger = tmp_path / "trigger"
    driver = open_nvml(NVML_STANDIN_TRIGGER=str(trigger))
    first = driver.devices()[0].uuid
    befall(trigger, "listless 0")
    driver.readings(first)
    assert driver.processes(first) is None


def test_mig_slices_are_devices_beside_their_card(open_nvml: Open) -> None:
    driver = open_nvml("mig")
    card, first, second = driver.devices()
    assert (card.kind, first.kind, second.kind) == (
        DeviceKind.GPU, DeviceKind.MIG, DeviceKind.MIG,
    )  # fmt: skip
    assert (first.alias, second.alias) == ("gpu1", "gpu2")
    assert first.uuid == "MIG-standin-0-1"
    assert first.parent_uuid == second.parent_uuid == card.uuid
    assert first.memory_total_bytes == 6 * GIB
    assert driver.readings(card.uuid).mig_enabled is True
    assert driver.readings(first.uuid) == Readings(
        memory_used_bytes=GIB, memory_driver_reserved_bytes=GIB // 2
    )


def test_a_card_lost_while_sampled_hides_no_other(open_nvml: Open, tmp_path: Path) -> None:
    trigger = tmp_path / "trigger"
    driver = open_nvml(NVML_STANDIN_TRIGGER=str(trigger))
    infos = driver.devices()
    trigger.write_text("lost 5")
    with pytest.raises(DeviceLost):
        driver.readings(infos[5].uuid)
    with pytest.raises(DeviceLost):
        driver.processes(infos[5].uuid)
    assert driver.readings(infos[4].uuid).memory_used_bytes == GIB
    assert driver.devices() == infos


@pytest.mark.parametrize(
    ("machine", "reason"), [("mismatch", "different versions"), ("absent", "not installed")]
)
def test_an_unusable_driver_says_why(
    open_nvml: Open, nvml_library: Path, tmp_path: Path, machine: str, reason: str
) -> None:
    if machine == "absent" and _has_real_library():
        pytest.skip("this host has the real library")
    with pytest.raises(DriverUnavailable, match=reason):
        open_nvml(machine, tmp_path if machine == "absent" else nvml_library)


def test_what_is_nearest_is_told_by_nvml(
    open_nvml: Open, nvml_library: Path, tmp_path: Path
) -> None:
    two_nodes(tmp_path, "0-15", "16-31")
    driver = open_nvml("healthy", nvml_library, NVML_STANDIN_SYSFS=str(tmp_path))
    told = [(info.numa_node, info.cpu_affinity) for info in driver.devices()]
    assert told == [(0, "0-15")] * 4 + [(1, "16-31")] * 4


def test_a_slice_is_where_its_card_is(open_nvml: Open, nvml_library: Path, tmp_path: Path) -> None:
    two_nodes(tmp_path, "0-15", "16-31")
    driver = open_nvml("mig", nvml_library, NVML_STANDIN_SYSFS=str(tmp_path))
    told = {(info.numa_node, info.cpu_affinity) for info in driver.devices()}
    assert (len(driver.devices()), told) == (3, {(0, "0-15")})


def test_what_is_nearest_is_sysfs_word_where_nvml_refuses(
    open_nvml: Open, nvml_library: Path, tmp_path: Path
) -> None:
    two_nodes(tmp_path, "0-3", "4-7")
    slot(tmp_path, "0000:01:00.0", node="1", cpus="4-7")
    (info,) = open_nvml("maxwell", nvml_library, NVML_STANDIN_SYSFS=str(tmp_path)).devices()
    assert (info.numa_node, info.cpu_affinity) == (1, "4-7")


# In the sampling process.


@pytest.fixture
def trigger(nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight healthy cards; what is written there befalls one of them."""
    path = tmp_path / "trigger"
    monkeypatch.setenv("LD_LIBRARY_PATH", str(nvml_library))
    monkeypatch.setenv("NVML_STANDIN", "healthy")
    monkeypatch.setenv("NVML_STANDIN_TRIGGER", str(path))
    return path


def befall(trigger: Path, what: str) -> None:
    """From now on, "lost 5", "hang 3" or "crash 2"; "" ends it."""
    fresh = trigger.with_suffix(".new")
    fresh.write_text(what)
    fresh.rename(trigger)


def sampler(watcher: Watcher, limits: Limits = UNHURRIED) -> Sampler:
    settings = SamplerSettings(
        nvml="on", simulated=(("t4", 1),), interval_seconds=0.05, processes_every=2
    )
    return Sampler(settings, SystemClock(), watcher.publish, limits)


async def test_cards_slices_and_host_make_one_snapshot(trigger: Path) -> None:
    watcher = Watcher()
    async with running(sampler(watcher)):
        first = await watcher.until(lambda s: s.complete)
    assert [s.info.alias for s in first.samples] == [*(f"gpu{n}" for n in range(9)), "host"]
    assert [s.info.kind for s in first.samples[7:]] == [
        DeviceKind.GPU, DeviceKind.SIMULATED, DeviceKind.HOST,
    ]  # fmt: skip
    assert {s.health for s in first.samples} == {Health.HEALTHY}


async def test_one_hanging_card_hides_no_other(trigger: Path) -> None:
    watcher = Watcher()
    async with running(sampler(watcher, QUICK)):
        await watcher.until(lambda s: s.complete)
        befall(trigger, "hang 3")
        hung = await watcher.until(health("gpu3", Health.UNRESPONSIVE))

        def others_go_on(snapshot: Snapshot) -> bool:
            others = [s for s in snapshot.samples if s.info.alias != "gpu3"]
            return all(s.boottime > hung.boottime and s.health is Health.HEALTHY for s in others)

        later = await watcher.until(others_go_on)
        assert sample(later, "gpu3").health is Health.UNRESPONSIVE
        befall(trigger, "")
        await watcher.until(health("gpu3", Health.HEALTHY))


async def test_a_card_that_takes_the_process_down_hides_no_other(trigger: Path) -> None:
    watcher = Watcher()
    async with running(sampler(watcher, QUICK)):
        await watcher.until(lambda s: s.complete)
        befall(trigger, "crash 2")
        crashed = await watcher.until(health("gpu2", Health.UNRESPONSIVE))
        later = await watcher.until(lambda s: sample(s, "gpu7").boottime > crashed.boottime)
        assert sample(later, "gpu2").health is Health.UNRESPONSIVE
        befall(trigger, "")
        await watcher.until(health("gpu2", Health.HEALTHY))


async def test_a_lost_card_is_told(trigger: Path) -> None:
    watcher = Watcher()
    async with running(sampler(watcher)):
        await watcher.until(lambda s: s.complete)
        befall(trigger, "lost 5")
        lost = await watcher.until(health("gpu5", Health.LOST))
        assert "lost" in sample(lost, "gpu5").health_reason.lower()


async def test_a_version_mismatch_leaves_the_rest_working(
    trigger: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NVML_STANDIN", "mismatch")
    watcher = Watcher()
    async with running(sampler(watcher)):
        first = await watcher.until(lambda s: s.complete)
        await watcher.until(lambda _: True)
    assert [s.info.alias for s in first.samples] == ["gpu0", "host"]
    told = capsys.readouterr().out
    assert told.count("driver.unavailable") == 1
    assert "reboot" in told


def _has_real_library() -> bool:
    import ctypes

    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return os.environ.get("LD_LIBRARY_PATH", "") == ""
