"""Pure: what gpud knows to be wrong by itself: of devices, instances and the node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from gpud.devices.snapshot import Action, DeviceKind, Health, Pressure, Sample, Thermal
from gpud.devices.verdict.telling import advice
from gpud.devices.verdict.throttling import is_by_heat
from gpud.instances.instance import Instance, InstanceState
from gpud.ledger.charge import STALE_SECONDS, Charge, is_stale
from gpud.telemetry.alerts.alert import Severity
from gpud.telemetry.alerts.rules.rule import Observation, Sight
from gpud.telemetry.alerts.rules.words import number, span
from gpud.units import MIB, format_size

# What drivers round and cache is nobody's taking.
SLACK_BYTES: Final = 64 * MIB
# One failure may be bad luck; so many without a healthy spell between them are none.
LOOP_FAILURES: Final = 3
_HEAT: Final = {
    Thermal.WARNING: Severity.INFO,
    Thermal.THROTTLING: Severity.WARNING,
    Thermal.CRITICAL: Severity.CRITICAL,
}
_NO_ANSWER: Final = (Health.LOST, Health.UNRESPONSIVE)


def thermal(sight: Sight) -> Iterator[Observation]:
    """Heat beyond the first edge of policy.thermal_celsius; a slice is as hot as its card."""
    for sample in sight.snapshot.samples:
        if sample.info.kind is DeviceKind.MIG:
            continue
        value, band = sample.readings.temperature_celsius, sample.thermal
        if sample.health in _NO_ANSWER or value is None:
            yield _of(sample, None)
        elif band in _HEAT:
            # The edges are those below WARNING, THROTTLING and CRITICAL.
            edge = sight.policy.thermal_celsius[band - Thermal.WARNING]
            words = _band(value, edge, "celsius", band.name)
            yield _of(sample, True, words, _HEAT[band], (value, edge, "celsius"))
        else:
            words = f"{number(value, 'celsius')} again"
            yield _of(sample, False, words, None, (value, None, "celsius"))


def pressure(sight: Sight) -> Iterator[Observation]:
    """Memory used beyond the last edge of policy.pressure_percent."""
    for sample in sight.snapshot.samples:
        used, total = sample.readings.memory_used_bytes, sample.info.memory_total_bytes
        if sample.health in _NO_ANSWER or sample.pressure is None or used is None or not total:
            yield _of(sample, None)
            continue
        percent, edge = used / total * 100, sight.policy.pressure_percent[-1]
        if sample.pressure is not Pressure.CRITICAL:
            words = f"memory in use: {number(percent, 'percent')} again"
            yield _of(sample, False, words, None, (percent, None, "percent"))
        else:
            words = f"memory in use: {_band(percent, edge, 'percent', 'CRITICAL')}"
            yield _of(sample, True, words, Severity.INFO, (percent, edge, "percent"))


def throttled(sight: Sight) -> Iterator[Observation]:
    """Its clocks are held down by heat; by its power limit they are under any full load."""
    for sample in sight.snapshot.samples:
        reasons = sample.readings.throttle_reasons
        if sample.health in _NO_ANSWER or reasons is None:
            yield _of(sample, None)
        elif is_by_heat(reasons):
            clock = sample.readings.sm_clock_mhz
            at = f" at {clock} MHz" if clock is not None else ""
            yield _of(sample, True, f"heat holds its clocks down{at}: {', '.join(reasons)}")


def lost(sight: Sight) -> Iterator[Observation]:
    """Its driver says that it is gone, or lists it no more.

    Not a slice that went with how its card was cut; of a card that is lost that one is told.
    """
    for sample in sight.snapshot.samples:
        if sample.health is Health.LOST and not sample.is_gone_slice:
            yield _of(sample, True, f"it is lost: {sample.health_reason}")


def stale(sight: Sight) -> Iterator[Observation]:
    """It does not answer, so that nothing is granted on it; one that is lost is told as such.

    Where gpud itself stood still, each has as long again to answer once it goes on.
    """
    now = sight.now.boottime
    for sample in sight.snapshot.samples:
        is_old, age = is_stale(sample, now), now - sample.boottime
        if sample.health is Health.LOST or not (is_old or sample.health is Health.UNRESPONSIVE):
            continue
        if not is_old or now - sight.watched_since <= STALE_SECONDS:
            yield _of(sample, None)
        else:
            newest = f"its newest reading is {span(age)} old"
            told = newest if sample.was_read else "no reading since gpud started"
            words = f"{told}; nothing is granted on it"
            yield _of(sample, True, words, None, (age, STALE_SECONDS, "seconds"))


def unknown(sight: Sight) -> Iterator[Observation]:
    """It answers, and refuses what grants need."""
    for sample in sight.snapshot.samples:
        if sample.health is Health.UNKNOWN:
            yield _of(sample, True, f"nothing is granted on it: {sample.health_reason}")


def verdict(sight: Sight) -> Iterator[Observation]:
    """What its errors, and its driver, say is to be done about it."""
    for sample in sight.snapshot.samples:
        found = sample.verdict
        is_told = sample.health in _NO_ANSWER and not found.is_fatal  # as lost, or stale
        # What a slice shows is its card's.
        if found.action is Action.NONE or sample.info.kind is DeviceKind.MIG or is_told:
            continue
        severity = Severity.CRITICAL if found.is_fatal else Severity.WARNING
        told = _of(sample, True, f"{advice(found)}: {found.reason}", severity)
        yield told if found.is_fatal else replace(told, remedy=_remedy(found.action))


def overcommit(sight: Sight) -> Iterator[Observation]:
    """Outsiders have taken bytes that are promised: who holds the promise may find none left."""
    for sample in sight.snapshot.samples:
        charge = sight.charges.get(sample.info.uuid)
        foreign = charge.foreign_bytes if charge is not None else None
        if charge is None or sample.health in _NO_ANSWER or foreign is None:
            yield _of(sample, None)
            continue
        short = _short_bytes(charge)
        if short > SLACK_BYTES and charge.total_bytes is not None:
            others = foreign + (charge.unattributed_bytes or 0)
            words = (
                f"{format_size(short)} of the {format_size(charge.granted_bytes)} that are "
                f"promised are not there: others use {format_size(others)}"
            )
            yield _of(sample, True, words, None, (float(short), float(SLACK_BYTES), "bytes"))


# Those of devices: none of them holds of one that is calm.
OF_DEVICES: Final = (thermal, pressure, throttled, lost, stale, unknown, verdict, overcommit)


def is_calm(sample: Sample, charge: Charge | None, now_boottime: float) -> bool:
    """What is to be seen at a glance of nearly every device: that no sign holds of it."""
    return (
        sample.health is Health.HEALTHY
        and sample.verdict.action is Action.NONE
        and (sample.thermal is None or sample.thermal is Thermal.NORMAL)
        and sample.pressure is not Pressure.CRITICAL
        and not is_by_heat(sample.readings.throttle_reasons)
        and not is_stale(sample, now_boottime)
        and (charge is None or _short_bytes(charge) <= SLACK_BYTES)
    )


def restart_loop(sight: Sight) -> Iterator[Observation]:
    """Its engine fails again and again, or was given up."""
    for each in sight.instances:
        healing = each.healing
        if each.state is InstanceState.STOPPED:
            continue
        failures = max(healing.in_a_row, len(healing.failures))
        cause = healing.cause.removeprefix(f"cannot keep {each.name}: ")
        if healing.given_up is not None:
            words = f"its engine was given up ({healing.given_up.value}): {cause}"
            yield _of_instance(each, words, failures)
        elif healing.in_a_row >= LOOP_FAILURES:
            words = f"its engine failed {healing.in_a_row} times in a row: {cause}"
            yield _of_instance(each, words, healing.in_a_row)


def driver(sight: Sight) -> Iterator[Observation]:
    """A driver, or a card of it, is here, or wanted, and cannot be used."""
    for trouble in sight.snapshot.troubles:
        device = trouble.device  # the alert's subject names it
        yield Observation(
            subject=f"devices/{device}" if device else "node",
            holds=True,
            words=f"cannot be used: {trouble.reason}" if device else trouble.words,
            severity=Severity.CRITICAL if trouble.is_wanted else Severity.WARNING,
        )


def store(sight: Sight) -> Iterator[Observation]:
    """Nothing new is promised, for nothing can be written down."""
    if sight.store_problem:
        words = f"nothing new is promised: the store is read-only ({sight.store_problem})"
        yield Observation(subject="node", holds=True, words=words)


def _short_bytes(charge: Charge) -> int:
    """What is promised and not there."""
    return charge.granted_bytes - charge.room_bytes


def _remedy(action: Action) -> str:
    """What helps with a device that is given out as before."""
    if action is Action.RESTART_APP:
        return "`gpuctl show DEVICE` names what runs on it; unload that, and load it again"
    return "until it is done, `gpuctl cordon DEVICE` keeps new work off it"


def _band(value: float, edge: float, unit: str, name: str) -> str:
    """A reading and its band, which is left late."""
    still = "still " if value < edge else ""
    return f"{number(value, unit)}, {still}{name} (from {number(edge, unit)} on)"


def _of(
    sample: Sample,
    holds: bool | None,
    words: str = "",
    severity: Severity | None = None,
    measured: tuple[float | None, float | None, str] = (None, None, ""),
) -> Observation:
    """`measured`: value, threshold, unit."""
    value, threshold, unit = measured
    return Observation(
        subject=f"devices/{sample.info.uuid}",
        alias=sample.info.alias,
        holds=holds,
        words=words,
        severity=severity,
        value=value,
        threshold=threshold,
        unit=unit,
    )


def _of_instance(instance: Instance, words: str, failures: int) -> Observation:
    return Observation(
        subject=instance.name,
        holds=True,
        words=words,
        value=float(failures),
        threshold=float(LOOP_FAILURES),
        unit="count",
    )
