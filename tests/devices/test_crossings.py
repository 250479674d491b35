"""What is told of devices between two snapshots."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpud.devices.crossings import MAX_LEASES_TOLD, crossings, driver_events, missing
from gpud.devices.snapshot import (
    DeviceInfo,
    DeviceKind,
    Health,
    Pressure,
    Readings,
    Sample,
    Snapshot,
    Thermal,
    Trouble,
)
from gpud.events import Event
from tests.fakes.driver import GIB

INFO = DeviceInfo(
    uuid="GPU-a",
    alias="gpu0",
    index=0,
    kind=DeviceKind.GPU,
    model_name="fake",
    memory_total_bytes=100 * GIB,
)


def sample(*, used: int | None = 10, celsius: float | None = 40, **changes: Any) -> Sample:
    """A card of 100 GiB, `used` of them, in its lowest bands unless told otherwise."""
    readings = Readings(
        memory_used_bytes=None if used is None else used * GIB, temperature_celsius=celsius
    )
    made = Sample(
        info=INFO,
        boottime=1.0,
        wall=1.0,
        readings=readings,
        pressure=Pressure.LOW,
        thermal=Thermal.NORMAL,
    )
    return replace(made, **changes)


def snapshot(*samples: Sample, complete: bool = True) -> Snapshot:
    return Snapshot(sequence=1, boottime=1.0, wall=77.0, samples=samples, complete=complete)


def told(before: Sample | None, after: Sample, held: dict[str, int] | None = None) -> list[Event]:
    first = None if before is None else snapshot(before)
    return list(crossings(first, snapshot(after), lambda _: held or {}))


def lines(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.type, event.reason) for event in events]


def pressed(used: int | None, band: Pressure | None, **more: Any) -> Sample:
    return sample(used=used, pressure=band, **more)


def warmed(celsius: float | None, band: Thermal | None, **more: Any) -> Sample:
    return sample(celsius=celsius, thermal=band, **more)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (pressed(84, Pressure.HIGH), pressed(91, Pressure.CRITICAL),
         "84 -> 91 % used: HIGH -> CRITICAL"),
        (pressed(91, Pressure.CRITICAL), pressed(10, Pressure.LOW),
         "back to 10 % used: CRITICAL -> LOW"),
        (pressed(10, Pressure.CRITICAL), pressed(10, Pressure.LOW),
         "back to 10 % used: CRITICAL -> LOW"),
        (pressed(40, Pressure.LOW), pressed(60, Pressure.NORMAL),
         "40 -> 60 % used: LOW -> NORMAL"),
        (None, pressed(75, Pressure.HIGH), "75 % used: HIGH"),
        (pressed(75, Pressure.HIGH), pressed(None, None),
         "75 -> unknown % used: HIGH -> unknown"),
        (pressed(91, Pressure.CRITICAL), pressed(None, Pressure.CRITICAL),
         "91 % used -> unknown: stays CRITICAL until it is read again"),
    ],
)  # fmt: skip
def test_a_crossing_of_pressure_is_told_with_its_numbers(
    before: Sample | None, after: Sample, reason: str
) -> None:
    assert lines(told(before, after)) == [("device.pressure", reason)]


def test_a_crossing_of_heat_is_told_with_its_numbers() -> None:
    (event,) = told(warmed(79.5, Thermal.WARNING), warmed(86, Thermal.CRITICAL))
    assert event == Event(
        wall=77.0,
        type="device.thermal",
        subject="devices/GPU-a",
        reason="79.5 -> 86 °C: WARNING -> CRITICAL",
        details={"alias": "gpu0", "from": "WARNING", "to": "CRITICAL", "value": "86"},
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, pressed(60, Pressure.NORMAL)),  # no news at the start
        (None, sample(pressure=None, thermal=None)),
        (pressed(71, Pressure.HIGH), pressed(84, Pressure.HIGH)),
        (pressed(60, Pressure.NORMAL), pressed(None, None)),
        (pressed(None, None), pressed(60, Pressure.NORMAL)),
        (pressed(None, Pressure.CRITICAL), pressed(None, Pressure.CRITICAL)),
        (pressed(None, Pressure.CRITICAL), pressed(91, Pressure.CRITICAL)),
    ],
)
def test_what_is_no_news_is_not_told(before: Sample | None, after: Sample) -> None:
    assert told(before, after) == []


def test_a_device_that_does_not_answer_is_told_as_that_alone() -> None:
    after = warmed(81, None, health=Health.UNRESPONSIVE, health_reason="no answer within 2 s")
    assert lines(told(warmed(81, Thermal.THROTTLING), after)) == [
        ("device.unresponsive", "no answer within 2 s")
    ]


def test_a_slice_does_not_repeat_the_heat_of_its_card() -> None:
    info = replace(INFO, uuid="MIG-a", kind=DeviceKind.MIG, parent_uuid="GPU-a")
    before = warmed(60, Thermal.NORMAL, info=info)
    assert told(before, warmed(90, Thermal.CRITICAL, info=info)) == []
    assert len(told(warmed(60, Thermal.NORMAL), warmed(90, Thermal.CRITICAL))) == 1


LOST = sample(health=Health.LOST, health_reason="it fell off the bus")
VANISHED = replace(LOST, health_reason="the driver no longer lists it", vanished_boottime=1.0)


def test_a_lost_device_names_what_was_promised_on_it() -> None:
    (event,) = told(sample(), LOST, {"r-1": 4 * GIB, "r-2": 6 * GIB})
    assert event.type == "device.lost"
    assert event.reason == (
        "it fell off the bus; 2 promises lie on it: reservations/r-2 (6 GiB), "
        "reservations/r-1 (4 GiB)"
    )
    assert event.details == {
        "alias": "gpu0",
        "from": "HEALTHY",
        "to": "LOST",
        "reservations": "reservations/r-2,reservations/r-1",
        "reservation_count": "2",
        "granted_bytes": str(10 * GIB),
    }


def test_a_thousand_promises_are_counted_and_not_all_named() -> None:
    (event,) = told(sample(), VANISHED, {f"r-{n:04}": GIB for n in range(1000)})
    assert event.type == "device.vanished"
    assert "1000 promises lie on it: reservations/r-0000 (1 GiB), " in event.reason
    assert event.reason.endswith(f" and {1000 - MAX_LEASES_TOLD} more")
    assert event.details["reservation_count"] == "1000"
    assert event.details["reservations"].count(",") == MAX_LEASES_TOLD - 1


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (sample(), VANISHED,
         [("device.vanished", "the driver no longer lists it; no promise lies on it")]),
        (LOST, VANISHED,
         [("device.vanished", "the driver no longer lists it; no promise lies on it")]),
        (VANISHED, VANISHED, []),
        (VANISHED, sample(),
         [("device.recovered",
           "it answers again; it was LOST (the driver no longer lists it)")]),
        (None, LOST, [("device.lost", "it fell off the bus; no promise lies on it")]),
        (sample(), sample(health=Health.UNKNOWN, health_reason="refused"),
         [("device.unknown", "refused")]),
    ],
)  # fmt: skip
def test_health_is_told_as_it_changes(
    before: Sample | None, after: Sample, expected: list[tuple[str, str]]
) -> None:
    assert lines(told(before, after)) == expected


def test_what_was_there_from_the_start_has_not_appeared() -> None:
    later = replace(INFO, uuid="GPU-b", alias="gpu1", index=1)
    both = snapshot(sample(), sample(info=later))

    def appeared(before: Snapshot | None) -> list[tuple[str, str]]:
        return lines(list(crossings(before, both, lambda _: {})))

    assert appeared(None) == []
    assert appeared(snapshot(sample(), complete=False)) == []
    assert appeared(snapshot(sample())) == [
        ("device.appeared", "its driver lists it now as gpu1: fake, 100 GiB")
    ]


def test_what_becomes_of_drivers_is_told_as_it_changes() -> None:
    driver = Trouble(driver="nvml", reason="not loaded")
    other = replace(driver, reason="of another version")
    card = Trouble(driver="nvml", device="GPU-b", reason="no answer")

    def told(before: tuple[Trouble, ...] | None, *after: Trouble) -> list[tuple[str, str, str]]:
        first = None if before is None else replace(snapshot(), troubles=before)
        events = driver_events(first, replace(snapshot(), troubles=after))
        return [(each.type, each.subject, each.reason) for each in events]

    failed = ("driver.failed", "node", "cannot use the nvml driver: not loaded")
    assert told(None, driver) == told((), driver) == [failed]
    assert told((driver,), driver) == told(None) == []
    changed = ("driver.failed", "node", "cannot use the nvml driver: of another version")
    assert told((driver,), other) == [changed]
    assert told((driver, card), driver) == [
        ("driver.recovered", "devices/GPU-b", "over; it was: cannot use GPU-b: no answer")
    ]


def test_a_dropped_tombstone_is_told() -> None:
    (event,) = crossings(snapshot(VANISHED), snapshot(), lambda _: {})
    assert (event.type, event.subject) == ("device.forgotten", "devices/GPU-a")


@pytest.mark.parametrize(("enabled", "words"), [(True, "its slices'"), (False, "its own")])
def test_a_change_of_mig_mode_says_whose_the_memory_is(enabled: bool, words: str) -> None:
    def card(mode: bool | None) -> Sample:
        return sample(celsius=None, thermal=None, readings=Readings(mig_enabled=mode))

    (event,) = told(card(not enabled), card(enabled), {"r-1": GIB})
    assert event.type == "device.mig"
    assert words in event.reason
    assert "reservations/r-1 (1 GiB)" in event.reason
    assert told(card(None), card(enabled)) == told(card(enabled), card(None)) == []


def test_a_card_that_was_taken_out_while_gpud_was_down_tells_its_promises() -> None:
    promised = {"GPU-a": {"r-1": GIB}, "GPU-gone": {"r-2": 2 * GIB}, "GPU-free": {}}
    (event,) = missing(snapshot(sample()), promised)
    assert (event.type, event.subject) == ("device.vanished", "devices/GPU-gone")
    assert event.reason.endswith("1 promise lies on it: reservations/r-2 (2 GiB)")
