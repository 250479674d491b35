"""What a driver promises: one suite, on the fake, the host, simulated cards and NVML."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import fields

from gpud.clock import SystemClock
from gpud.devices.driver import Aliases, ComputeModeRefused, DeviceLost, Driver, ModeRefusal
from gpud.devices.host import HostDriver
from gpud.devices.processes import ProcessTable
from gpud.devices.simulated import Scenario, SimulatedDriver, simulated_slots
from tests.devices import standin
from tests.devices.proc_tree import hog
from tests.fakes.driver import FakeDriver

CLAIM = "r-contract"


@dataclass
class Case:
    """A driver on whose first device a process with CLAIM is at work.

    `lose` takes its last device away; None where no device can be lost. `has_modes`: its first
    device takes compute modes.
    """

    driver: Driver
    claimed_pid: int
    lose: Callable[[], None] | None
    has_modes: bool = False


def fake(folder: Path, factory: pytest.TempPathFactory, stack: ExitStack) -> Case:
    driver = FakeDriver("GPU-a", "GPU-b")
    driver.use("GPU-a", 7, CLAIM)
    return Case(driver, 7, lambda: driver.lost.add("GPU-b"), has_modes=True)


def host(folder: Path, factory: pytest.TempPathFactory, stack: ExitStack) -> Case:
    pid = stack.enter_context(hog(1024**2, GPUD_RESERVATION=CLAIM))
    return Case(HostDriver("HOST-0", scanned(), SystemClock()), pid, None)


def simulated(folder: Path, factory: pytest.TempPathFactory, stack: ExitStack) -> Case:
    pid = stack.enter_context(
        hog(1024**2, GPUD_RESERVATION=CLAIM, CUDA_VISIBLE_DEVICES="SIM-titan-x-0")
    )
    path = folder / "scenario.json"
    _write(path, "{}")
    driver = SimulatedDriver(
        simulated_slots((("titan-x", 2),), Aliases()),
        scanned(),
        Scenario(str(path), pytest.fail, ("gpu0", "gpu1")),
        SystemClock(),
    )
    return Case(driver, pid, lambda: _write(path, json.dumps({"gpu1": {"lost": True}})))


def nvml(folder: Path, factory: pytest.TempPathFactory, stack: ExitStack) -> Case:
    trigger = folder / "trigger"
    # The stand-in shows whoever asks as a process of its first card.
    child = standin.NvmlChild(
        standin.library_folder(factory),
        NVML_STANDIN_TRIGGER=str(trigger),
        NVML_STANDIN_MODES=str(folder / "modes"),
        GPUD_RESERVATION=CLAIM,
    )
    stack.callback(child.end)
    return Case(child, child.pid, lambda: _write(trigger, "lost 7"), has_modes=True)


def nvml_470(folder: Path, factory: pytest.TempPathFactory, stack: ExitStack) -> Case:
    child = standin.NvmlChild(
        standin.library_folder(factory, old_driver=True), "maxwell", GPUD_RESERVATION=CLAIM
    )
    stack.callback(child.end)
    return Case(child, child.pid, None)


@pytest.fixture(params=[fake, host, simulated, nvml, nvml_470], ids=lambda make: make.__name__)
def case(
    request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Case]:
    with ExitStack() as stack:
        yield request.param(tmp_path, tmp_path_factory, stack)


def scanned() -> ProcessTable:
    table = ProcessTable()
    table.scan(SystemClock().now().boottime)
    return table


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def test_devices_are_told_apart_and_stay(case: Case) -> None:
    infos = case.driver.devices()
    assert infos
    assert len({info.uuid for info in infos}) == len(infos)
    assert len({info.alias for info in infos}) == len(infos)
    assert case.driver.devices() == infos


def test_readings_are_in_range_or_unknown(case: Case) -> None:
    for info in case.driver.devices():
        readings = case.driver.readings(info.uuid)
        assert readings.memory_used_bytes is not None
        assert info.memory_total_bytes is not None
        assert 0 <= readings.memory_used_bytes <= info.memory_total_bytes
        for field in fields(readings):
            value = getattr(readings, field.name)
            if isinstance(value, int | float):
                assert value >= 0, field.name
                assert value <= 100 or not field.name.endswith("_percent"), field.name


def test_a_process_of_a_grant_is_known_by_its_environment(case: Case) -> None:
    first = case.driver.devices()[0]
    listed = case.driver.processes(first.uuid)
    assert listed is not None
    (ours,) = [use for use in listed if use.claim == CLAIM]
    assert ours.pid == case.claimed_pid
    assert ours.used_bytes is not None
    assert ours.used_bytes >= 1024**2
    assert ours.start_time is not None


def test_each_process_is_listed_once(case: Case) -> None:
    for info in case.driver.devices():
        listed = case.driver.processes(info.uuid) or ()
        assert len({use.pid for use in listed}) == len(listed)
        assert all(use.used_bytes is None or use.used_bytes >= 0 for use in listed)


def test_an_unknown_device_is_lost(case: Case) -> None:
    case.driver.devices()
    with pytest.raises(DeviceLost):
        case.driver.readings("GPU-nobody")
    with pytest.raises(DeviceLost):
        case.driver.processes("GPU-nobody")


def test_a_lost_device_raises_and_the_others_answer(case: Case) -> None:
    if case.lose is None:
        pytest.skip("it has one device, which cannot be lost")
    infos = case.driver.devices()
    case.lose()
    with pytest.raises(DeviceLost):
        case.driver.readings(infos[-1].uuid)
    with pytest.raises(DeviceLost):
        case.driver.processes(infos[-1].uuid)
    assert case.driver.readings(infos[0].uuid).memory_used_bytes is not None


def test_a_compute_mode_is_set_and_read_back_or_refused(case: Case) -> None:
    first = case.driver.devices()[0].uuid
    for mode in ("default", "exclusive_process", "default"):
        if case.has_modes:
            case.driver.set_compute_mode(first, mode)
            assert case.driver.readings(first).compute_mode == mode
        else:
            with pytest.raises(ComputeModeRefused) as refused:
                case.driver.set_compute_mode(first, mode)
            assert refused.value.why is ModeRefusal.NOT_SUPPORTED


def test_a_lost_device_takes_no_compute_mode(case: Case) -> None:
    if case.lose is None or not case.has_modes:
        pytest.skip("it has no device that can be lost, or none with modes")
    last = case.driver.devices()[-1].uuid
    case.lose()
    with pytest.raises(ComputeModeRefused) as refused:
        case.driver.set_compute_mode(last, "default")
    assert refused.value.why is ModeRefusal.LOST


def test_it_closes_twice(case: Case) -> None:
    case.driver.devices()
    case.driver.close()
    case.driver.close()
