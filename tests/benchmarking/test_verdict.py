"""When a benchmark is void, by what its devices showed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpud.benchmarking.benchmark import Reading
from gpud.benchmarking.verdict import FOREIGN_GROWTH_BYTES, Scene, busy_before
from gpud.devices.snapshot import DeviceKind, Readings, Sample, Thermal
from gpud.ledger.charge import Charge
from tests.fakes.cards import sample, snapshot

MIB = 1024**2


def scene() -> Scene:
    return Scene(uuids=("U-gpu0", "U-host"))


def hot(card: Sample, thermal: Thermal | None, celsius: float | None = None) -> Sample:
    return replace(card, thermal=thermal, readings=Readings(temperature_celsius=celsius))


def charge(foreign: int | None, uuid: str = "U-gpu0") -> dict[str, Charge]:
    told = Charge(
        uuid=uuid,
        alias=uuid.removeprefix("U-"),
        total_bytes=2**34,
        reserve_bytes=0,
        granted_bytes=0,
        observed_bytes={},
        charged_bytes=0,
        foreign_bytes=foreign,
        unattributed_bytes=0,
        leaked_bytes=0,
        grantable_bytes=0,
        residue_bytes=None,
        unexplained_growth_bytes=0,
    )
    return {uuid: told}


@pytest.mark.parametrize("thermal", [None, Thermal.NORMAL, Thermal.WARNING])
def test_a_cool_or_unknown_card_is_no_reason(thermal: Thermal | None) -> None:
    seen = scene()
    seen.see(snapshot(hot(sample(), thermal, 60.0)), {})
    assert seen.reasons == ()


@pytest.mark.parametrize("thermal", [Thermal.THROTTLING, Thermal.CRITICAL])
def test_one_hot_sample_is_a_reason_that_is_told_once(thermal: Thermal) -> None:
    seen = scene()
    for celsius in (60.0, 83.0, 84.0):
        band = Thermal.NORMAL if celsius < 80 else thermal
        seen.see(snapshot(hot(sample(), band, celsius)), {})
    seen.see(snapshot(hot(sample(), Thermal.NORMAL, 70.0)), {})
    assert seen.reasons == ("gpu0 is slowed down by heat at 83 °C",)


@pytest.mark.parametrize(
    ("reasons", "void"),
    [
        (("thermal",), True),
        (("idle", "hardware_thermal"), True),
        (("power_cap",), False),
        (("hardware_slowdown", "power_brake"), False),
        ((), False),
        (None, False),
    ],
)
def test_a_card_that_slows_itself_down_by_heat_is_believed_at_any_height(
    reasons: tuple[str, ...] | None, void: bool
) -> None:
    seen = scene()
    shown = Readings(temperature_celsius=76.0, throttle_reasons=reasons)
    seen.see(snapshot(replace(sample(), thermal=Thermal.WARNING, readings=shown)), {})
    assert seen.reasons == (("gpu0 is slowed down by heat at 76 °C",) if void else ())


def test_another_cards_heat_is_its_own() -> None:
    seen = scene()
    seen.see(snapshot(sample(), hot(sample(1), Thermal.CRITICAL)), {})
    assert seen.reasons == ()
    assert [record.alias for record in seen.records()] == ["gpu0"]


def test_strangers_count_when_they_grow() -> None:
    seen = scene()
    for foreign in (512 * MIB, 512 * MIB + FOREIGN_GROWTH_BYTES, None):
        seen.see(snapshot(sample()), charge(foreign))
    assert seen.reasons == ()
    seen.see(snapshot(sample()), charge(576 * MIB + 1024))
    (reason,) = seen.reasons
    assert reason.startswith("processes that are not gpud's took 64")


def test_what_others_take_of_the_hosts_memory_is_no_reason() -> None:
    seen, host = scene(), sample(kind=DeviceKind.HOST)
    for foreign in (0, 2**33):
        seen.see(snapshot(host), charge(foreign, "U-host"))
    assert seen.reasons == ()


def test_the_first_and_the_last_readings_are_kept() -> None:
    seen = scene()
    for mhz in (300, 1900, 1800):
        card = replace(sample(), readings=Readings(sm_clock_mhz=mhz, power_watts=mhz / 10))
        seen.see(snapshot(card), {})
    (record,) = seen.records()
    assert record.start == Reading(sm_clock_mhz=300, power_watts=30.0)
    assert record.end == Reading(sm_clock_mhz=1800, power_watts=180.0)


@pytest.mark.parametrize(("percent", "busy"), [(None, False), (19.9, False), (20.0, True)])
def test_a_card_that_works_before_the_first_request_works_for_others(
    percent: float | None, busy: bool
) -> None:
    card = replace(sample(), readings=Readings(utilization_percent=percent))
    assert bool(busy_before(snapshot(card), ("U-gpu0",))) is busy
    assert busy_before(snapshot(card), ("U-gpu1",)) == ""
    assert busy_before(None, ("U-gpu0",)) == ""
