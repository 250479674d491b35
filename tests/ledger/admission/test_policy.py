"""The rules that refuse a device whatever its bytes, each by its words and its code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from gpud.devices.snapshot import (
    DeviceKind,
    Health,
    Pressure,
    ProcessKind,
    Sample,
    Thermal,
)
from gpud.errors import DeviceUnavailable, GpudError, SamplesStale, VramInsufficient
from gpud.ledger.books import Cordon
from gpud.ledger.reservation import Enforcement, Priority, ReservationState, Sharing
from gpud.rpc.errors import status_of
from tests.fakes.cards import GIB, process, sample
from tests.ledger.desk import HOST, Desk, settled

EXCLUSIVE = {"sharing": Sharing.EXCLUSIVE}
DRIVER = {"sharing": Sharing.EXCLUSIVE, "require_enforcement": Enforcement.DRIVER}
CORDON = Cordon(reason="fan broken", actor="anna", wall=1.0)


def cordoned(desk: Desk, uuid: str, cordon: Cordon | None = CORDON) -> Desk:
    desk.keep(desk.ledger.cordon(uuid, cordon, "anna", desk.clock.now()))
    return desk


def read(card: Sample, **readings: Any) -> Sample:
    return replace(card, readings=card.readings.changed(**readings))


def simulated(index: int = 0) -> Sample:
    card = sample(index)
    return replace(card, info=replace(card.info, kind=DeviceKind.SIMULATED))


def held_alone() -> Desk:
    desk = Desk(sample(0))
    desk.reserve("h", 4, **EXCLUSIVE)
    return desk


def hot(degrees: float | None) -> Sample:
    card = replace(sample(0), thermal=Thermal.CRITICAL)
    return read(card, temperature_celsius=degrees)


@pytest.mark.parametrize(
    ("desk", "asked", "words"),
    [
        (
            lambda: cordoned(Desk(sample(0)), "U-gpu0"),
            {},
            "cordoned (fan broken); `gpuctl uncordon gpu0` ends that",
        ),
        (
            lambda: cordoned(Desk(sample(0)), "U-gpu0", replace(CORDON, reason="")),
            {},
            "gpu0: cordoned; `gpuctl uncordon gpu0` ends that",
        ),
        (
            lambda: cordoned(Desk(sample(0)), ""),
            {},
            "the node is draining (fan broken); `gpuctl resume` ends that",
        ),
        (lambda: Desk(read(sample(0), mig_enabled=True)), {}, "MIG is on: its slices are"),
        (lambda: Desk(sample(0, health=Health.LOST)), {}, "gpu0: lost"),
        (
            lambda: Desk(
                replace(sample(0, health=Health.UNRESPONSIVE), health_reason="no answer in 2 s")
            ),
            {},
            "gpu0: unresponsive (no answer in 2 s)",
        ),
        (lambda: Desk(hot(91.4)), {}, "critically hot (91 °C): nothing new starts on it until"),
        (lambda: Desk(hot(None)), {}, "gpu0: critically hot: nothing"),
        (held_alone, {}, "reservations/h has it exclusively"),
        (lambda: Desk(simulated()), DRIVER, "no driver keeps other processes off it"),
        (lambda: Desk(HOST), {**DRIVER, "devices": ("U-host",)}, "only whole GPUs have such"),
        (
            lambda: Desk(sample(0), settings=settled(exclusive_process_mode=False)),
            DRIVER,
            "policy.exclusive_process_mode is off",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_rule_refuses_in_its_own_words(
    desk: Callable[[], Desk], asked: dict[str, Any], words: str
) -> None:
    made = desk()
    with pytest.raises(DeviceUnavailable) as refusal:
        made.reserve("a", 1, **asked)
    assert words in str(refusal.value)
    assert code_of(refusal.value) is grpc.StatusCode.FAILED_PRECONDITION
    assert "a" not in made.ledger.books.reservations


def code_of(error: GpudError) -> grpc.StatusCode:
    number = status_of(error).code
    return next(code for code in grpc.StatusCode if code.value[0] == number)


def test_a_device_whose_memory_is_not_told_grants_nothing() -> None:
    desk = Desk(read(sample(0), memory_used_bytes=None))
    with pytest.raises(DeviceUnavailable, match="its driver does not tell its memory"):
        desk.reserve("a", 1)


def test_a_stale_sample_is_told_as_one_and_names_its_age() -> None:
    desk = Desk(sample(0), sample(1))
    desk.clock.advance(12.5)
    with pytest.raises(SamplesStale, match=r"gpu0: its newest sample is 12\.5 s old") as refusal:
        desk.reserve("a", 1, max_wait_seconds=60.0)
    assert code_of(refusal.value) is grpc.StatusCode.UNAVAILABLE


def test_a_card_that_is_gone_is_lost_however_old_its_last_sample() -> None:
    desk = Desk(sample(0, health=Health.LOST))
    desk.clock.advance(3600)
    with pytest.raises(DeviceUnavailable, match="gpu0: lost"):
        desk.reserve("a", 1)


def test_where_another_device_merely_lacks_bytes_waiting_helps() -> None:
    desk = cordoned(Desk(sample(0), sample(1)), "U-gpu0")
    desk.reserve("h", 20)
    with pytest.raises(VramInsufficient) as refusal:
        desk.reserve("a", 8)
    assert code_of(refusal.value) is grpc.StatusCode.RESOURCE_EXHAUSTED
    metadata = dict(refusal_metadata(refusal.value))
    assert "cordoned" in metadata["gpu0.rule"]
    assert metadata["gpu1.granted_bytes"] == str(20 * GIB)


def refusal_metadata(error: GpudError) -> dict[str, str]:
    info = error_details_pb2.ErrorInfo()
    for detail in status_of(error).details:
        if detail.Unpack(info):
            return dict(info.metadata)
    raise AssertionError("no ErrorInfo")


def test_mig_slices_and_not_their_card_grant() -> None:
    card = read(sample(0), mig_enabled=True)
    piece = replace(
        sample(1, total=10 * GIB),
        info=replace(sample(1, total=10 * GIB).info, kind=DeviceKind.MIG, parent_uuid="U-gpu0"),
    )
    desk = Desk(card, read(piece, mig_enabled=True))
    desk.reserve("a", 8)
    assert desk.places("a") == ["gpu1"]


def test_a_driver_keeps_others_off_a_gpu_where_it_is_required() -> None:
    desk = Desk(simulated(0), sample(1))
    desk.reserve("a", 1, **DRIVER)
    assert desk.places("a") == ["gpu1"]


def test_nobody_waits_for_a_driver_that_will_never_do_it() -> None:
    desk = Desk(simulated(0), simulated(1))
    with pytest.raises(DeviceUnavailable) as refusal:
        desk.reserve("a", 1, max_wait_seconds=60.0, **DRIVER)
    assert refusal.value.never_fits
    cordoned(Desk(simulated(0), sample(1)), "U-gpu1").wait("b", 1, **DRIVER)


def test_the_ram_beside_needs_no_driver() -> None:
    desk = Desk(sample(0), HOST)
    desk.reserve("a", 1, host_bytes=GIB, **DRIVER)
    assert desk.places("a") == ["gpu0", "host"]


# EXCLUSIVE.


def test_exclusive_takes_all_that_is_grantable_and_nothing_is_left() -> None:
    graphics = replace(process(7, GIB), kind=ProcessKind.GRAPHICS)
    desk = Desk(sample(0, used=GIB, processes=(graphics,)))
    made = desk.reserve("a", 4, **EXCLUSIVE)
    assert made.grants[0].bytes == 23 * GIB
    assert desk.grantable() == 0
    desk.show(sample(0))  # the display lets go of its bytes: they are nobody else's all the same
    assert desk.grantable() == 1
    with pytest.raises(DeviceUnavailable, match="reservations/a has it exclusively"):
        desk.reserve("b", 1)
    with pytest.raises(DeviceUnavailable):
        desk.reserve("c", 1, **EXCLUSIVE)
    desk.release("a")
    desk.reserve("d", 24, **EXCLUSIVE)


@pytest.mark.parametrize(
    ("processes", "words"),
    [
        ((process(7, GIB),), "pid 7 (p7) uses 1 GiB there without a promise"),
        ((process(7, GIB), process(8, None)), "pid 7 (p7) and 1 more uses 1 GiB there"),
        ((process(7, GIB, "elsewhere"),), "pid 7 (p7) uses 1 GiB"),
        ((replace(process(7, GIB), kind=ProcessKind.MPS),), "pid 7 (p7) uses 1 GiB"),
    ],
)
def test_exclusive_waits_for_strangers(processes: tuple[Any, ...], words: str) -> None:
    desk = Desk(sample(0, used=2 * GIB, processes=processes))
    with pytest.raises(VramInsufficient) as refusal:
        desk.reserve("a", 1, **EXCLUSIVE)
    assert words in str(refusal.value)
    assert not refusal.value.never_fits
    desk.wait("b", 1, **EXCLUSIVE)
    desk.show(sample(0))
    assert desk.state("b") is ReservationState.GRANTED


def test_exclusive_waits_for_promises_and_names_one() -> None:
    desk = Desk(sample(0))
    desk.reserve("h1", 1)
    desk.reserve("h2", 1)
    with pytest.raises(VramInsufficient, match="reservations/h1 and 1 more is on it"):
        desk.reserve("a", 1, **EXCLUSIVE)
    desk.wait("b", 1, **EXCLUSIVE)
    desk.release("h2")
    assert desk.state("b") is ReservationState.QUEUED
    desk.release("h1")
    assert desk.held("b").grants[0].bytes == 24 * GIB


def test_exclusive_waits_for_bytes_that_are_on_their_way_back() -> None:
    desk = Desk(sample(0))
    desk.reserve("h", 8)
    desk.show(sample(0, used=GIB, processes=(process(1, GIB, "h"),)))
    desk.wait("a", 1, **EXCLUSIVE)
    desk.release("h")
    assert desk.state("h") is ReservationState.RELEASING
    assert desk.state("a") is ReservationState.QUEUED
    desk.clock.advance(1)
    desk.show(sample(0))
    assert desk.state("a") is ReservationState.GRANTED


def test_exclusive_on_several_devices_has_each_of_them() -> None:
    desk = Desk(sample(0), sample(1, total=12 * GIB), sample(2))
    desk.reserve("h", 1, devices=("U-gpu0",))
    made = desk.reserve("a", 4, device_count=2, **EXCLUSIVE)
    assert [(g.device, g.bytes // GIB) for g in made.grants] == [("U-gpu1", 12), ("U-gpu2", 24)]
    with pytest.raises(VramInsufficient):
        desk.reserve("b", 4, device_count=2)


def test_the_ram_beside_an_exclusive_device_is_shared() -> None:
    desk = Desk(sample(0), HOST)
    desk.reserve("h", 1, devices=("U-host",))
    desk.reserve("a", 4, host_bytes=10 * GIB, **EXCLUSIVE)
    assert desk.grantable("host") == 53
    desk.reserve("b", 1, devices=("U-host",))
    assert desk.ledger.books.device("U-host").exclusive is None
    with pytest.raises(VramInsufficient, match="EXCLUSIVE needs it empty"):
        desk.reserve("c", 1, devices=("U-host",), **EXCLUSIVE)


# Pressure.


@pytest.mark.parametrize(
    ("used_gib", "pressure", "asked_gib", "instance", "starts"),
    [
        (21, Pressure.CRITICAL, 1, "i", True),  # 92 % full afterwards
        (21, Pressure.CRITICAL, 2, "i", False),  # 96 %
        (21, Pressure.CRITICAL, 2, None, True),  # a reservation goes by the formula alone
        (21, Pressure.HIGH, 2, "i", True),
        (21, None, 2, "i", True),
    ],
)
def test_only_loads_wait_for_pressure_and_only_on_a_critical_device(
    used_gib: int, pressure: Pressure | None, asked_gib: int, instance: str | None, starts: bool
) -> None:
    used = used_gib * GIB
    full = replace(sample(0, used=used, processes=(process(1, used),)), pressure=pressure)
    desk = Desk(full)
    asked = {"instance": instance, "ttl_seconds": None if instance else 60.0}
    if starts:
        desk.reserve("a", asked_gib, **asked)
        return
    with pytest.raises(VramInsufficient) as refusal:
        desk.reserve("a", asked_gib, **asked)
    text = str(refusal.value)
    assert "CRITICAL (88 % used), and this load would leave it 96 % full" in text
    assert "only one that leaves less than 95 % starts" in text
    desk.wait("b", asked_gib, **asked)
    desk.show(sample(0))
    assert desk.state("b") is ReservationState.GRANTED


# Compute modes that somebody set.

ONE_CONTEXT = ["exclusive_process", "exclusive_thread"]


@pytest.mark.parametrize("mode", ONE_CONTEXT)
def test_a_device_that_takes_one_process_is_shared_by_nobody(mode: str) -> None:
    """Two were promised room there, and the driver refused the second."""
    desk = Desk(read(sample(0), compute_mode=mode))
    with pytest.raises(DeviceUnavailable) as refusal:
        desk.reserve("a", 4)
    assert f"its compute mode {mode.upper()} takes one process" in str(refusal.value)
    assert "`nvidia-smi -i U-gpu0 -c DEFAULT` ends that" in str(refusal.value)
    assert code_of(refusal.value) == grpc.StatusCode.FAILED_PRECONDITION
    # Nobody is kept a device for one that cannot come in; who is to be alone is what it is for.
    desk.wait("b", 4)
    desk.reserve("c", 4, **EXCLUSIVE)
    desk.release("c")
    desk.show(read(sample(0), compute_mode="default"))
    assert desk.state("b") is ReservationState.GRANTED


def test_a_device_that_is_to_take_no_process_grants_nothing() -> None:
    desk = Desk(read(sample(0), compute_mode="prohibited"))
    for asked in ({}, EXCLUSIVE):
        with pytest.raises(DeviceUnavailable, match="compute mode PROHIBITED takes no process"):
            desk.reserve("a", 4, **asked)


def test_the_mode_that_keeps_a_promise_alone_keeps_nobody_from_ending_it() -> None:
    """The mode goes with the promise: until it has, a shared one waits."""
    policy = settled(preemption={"grace_seconds": 30.0, "min_tenure_seconds": 0.0})
    desk = Desk(sample(0), settings=policy)
    desk.reserve("h", 4, preemptible=True, ttl_seconds=600.0, priority=Priority.BATCH, **EXCLUSIVE)
    desk.show(read(sample(0), compute_mode="exclusive_process"))
    desk.wait("a", 16, priority=Priority.CRITICAL)
    assert set(desk.ledger.books.noticed) == {"h"}
    desk.pass_seconds(31)
    assert desk.state("h") is ReservationState.REVOKED
    assert desk.state("a") is ReservationState.QUEUED
    assert "EXCLUSIVE_PROCESS" in desk.why("a")
    desk.show(read(sample(0), compute_mode="default"))
    assert desk.state("a") is ReservationState.GRANTED


def test_nobody_is_ended_on_a_device_that_somebody_made_take_one_process() -> None:
    policy = settled(preemption={"grace_seconds": 30.0, "min_tenure_seconds": 0.0})
    desk = Desk(sample(0), settings=policy)
    desk.reserve("h", 24, preemptible=True, ttl_seconds=600.0, priority=Priority.BATCH)
    desk.show(read(sample(0), compute_mode="exclusive_process"))
    desk.wait("a", 8, priority=Priority.CRITICAL)
    assert not desk.ledger.books.noticed
