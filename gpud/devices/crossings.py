"""Pure: what happened to devices between two snapshots, as events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from gpud.devices.bands import used_percent
from gpud.devices.snapshot import (
    DeviceInfo,
    DeviceKind,
    Health,
    Pressure,
    Sample,
    Snapshot,
    Thermal,
    Trouble,
)
from gpud.devices.verdict.telling import verdict_events
from gpud.events import Event
from gpud.units import format_size

# By UUID: how many bytes each reservation (by id) has there.
Holders = Callable[[str], Mapping[str, int]]

# A card of thousands of small promises does not make an event of as many words.
MAX_LEASES_TOLD = 16
_UNKNOWN = "unknown"
_LEFT = {
    Health.LOST: "device.lost",
    Health.UNRESPONSIVE: "device.unresponsive",
    Health.UNKNOWN: "device.unknown",
}


def crossings(before: Snapshot | None, after: Snapshot, holders: Holders) -> tuple[Event, ...]:
    """What to tell of each device, in their order.

    Until every device was heard of once, nothing has appeared: it was there. What has no earlier
    sample tells its bands above NORMAL and its trouble alone.
    """
    earlier = {sample.info.uuid: sample for sample in before.samples} if before else {}
    is_started = before is not None and before.complete
    found: list[Event] = []
    for sample in after.samples:
        last = earlier.pop(sample.info.uuid, None)
        if last is sample or (last is not None and _is_quiet(last, sample)):
            continue
        if last is None and is_started:
            found.append(_appeared(sample, after.wall))
        found += _health(last, sample, after.wall, holders)
        found += _mode(last, sample, after.wall, holders)
        bands = _pressure(last, sample, after.wall), _thermal(last, sample, after.wall)
        found += [event for event in bands if event is not None]
        found += verdict_events(last, sample, after.wall)
    found += [_forgotten(sample, after.wall) for sample in earlier.values()]
    return tuple(found)


def driver_events(before: Snapshot | None, after: Snapshot) -> tuple[Event, ...]:
    """Which drivers, or cards of theirs, cannot be used since then, or can again."""
    was, now = before.troubles if before else (), after.troubles
    if was == now:
        return ()
    kept = {(each.driver, each.device) for each in now}
    over = (each for each in was if (each.driver, each.device) not in kept)
    return (
        *(_of_driver("failed", each, each.words, after.wall) for each in now if each not in was),
        *(
            _of_driver("recovered", each, f"over; it was: {each.words}", after.wall)
            for each in over
        ),
    )


def _of_driver(what: str, trouble: Trouble, reason: str, wall: float) -> Event:
    return Event(
        wall=wall,
        type=f"driver.{what}",
        subject=f"devices/{trouble.device}" if trouble.device else "node",
        reason=reason,
        details={"driver": trouble.driver},
    )


def _is_quiet(last: Sample, sample: Sample) -> bool:
    """Whether nothing that is told of differs, as of nearly every sample."""
    was, now = last.readings, sample.readings
    return (
        last.health is sample.health
        and last.pressure is sample.pressure
        and last.thermal is sample.thermal
        and last.verdict is sample.verdict
        and last.vanished_boottime == sample.vanished_boottime
        and was.mig_enabled is now.mig_enabled
        and (was.temperature_celsius is None) is (now.temperature_celsius is None)
        and (was.memory_used_bytes is None) is (now.memory_used_bytes is None)
        and was.ecc_uncorrected_count == now.ecc_uncorrected_count
        and last.xids == sample.xids
    )


def missing(snapshot: Snapshot, promised: Mapping[str, Mapping[str, int]]) -> tuple[Event, ...]:
    """What carries promises from an earlier life of gpud and is not there any more.

    For the first complete snapshot. `promised`: by UUID, as Holders have it.
    """
    shown = {sample.info.uuid for sample in snapshot.samples}
    return tuple(
        _missed(uuid, held, snapshot.wall)
        for uuid, held in promised.items()
        if held and uuid not in shown
    )


def _missed(uuid: str, held: Mapping[str, int], wall: float) -> Event:
    leases, details = _leases(held)
    return Event(
        wall=wall,
        type="device.vanished",
        subject=f"devices/{uuid}",
        reason=f"it was there before gpud was restarted, and no driver lists it now; {leases}",
        details=details,
    )


def _appeared(sample: Sample, wall: float) -> Event:
    info = sample.info
    total = info.memory_total_bytes
    size = format_size(total) if total is not None else "memory unknown"
    return Event(
        wall=wall,
        type="device.appeared",
        subject=_subject(info),
        reason=f"its driver lists it now as {info.alias}: {info.model_name}, {size}",
        details={"alias": info.alias, "kind": info.kind.value}
        | ({"memory_total_bytes": str(total)} if total is not None else {}),
    )


def _forgotten(sample: Sample, wall: float) -> Event:
    return Event(
        wall=wall,
        type="device.forgotten",
        subject=_subject(sample.info),
        reason=f"{sample.info.alias} is gone, nobody waits for it, and it carries no promise",
        details={"alias": sample.info.alias},
    )


def _health(last: Sample | None, sample: Sample, wall: float, holders: Holders) -> Iterator[Event]:
    was = last.health if last is not None else Health.HEALTHY
    has_vanished = sample.vanished_boottime is not None
    is_news = has_vanished and (last is None or last.vanished_boottime is None)
    if sample.health is was and not is_news:
        return
    reason, details = sample.health_reason, {"from": was.name, "to": sample.health.name}
    if sample.health is Health.HEALTHY:
        type_ = "device.recovered"
        why = f" ({last.health_reason})" if last is not None and last.health_reason else ""
        reason = f"it answers again; it was {was.name}{why}"
    else:
        type_ = "device.vanished" if has_vanished else _LEFT[sample.health]
        if sample.health is Health.LOST:
            leases, more = _leases(holders(sample.info.uuid))
            reason, details = f"{reason}; {leases}", details | more
    yield Event(
        wall=wall,
        type=type_,
        subject=_subject(sample.info),
        reason=reason,
        details={"alias": sample.info.alias} | details,
    )


def _mode(last: Sample | None, sample: Sample, wall: float, holders: Holders) -> Iterator[Event]:
    """MIG mode: whose the memory is to grant, the card's or its slices'."""
    was = last.readings.mig_enabled if last is not None else None
    now = sample.readings.mig_enabled
    if was is None or now is None or was is now:
        return
    leases, details = _leases(holders(sample.info.uuid))
    told = (
        "MIG was turned on: its memory is its slices' to grant now"
        if now
        else "MIG was turned off: its memory is its own to grant again"
    )
    yield Event(
        wall=wall,
        type="device.mig",
        subject=_subject(sample.info),
        reason=f"{told}; {leases}",
        details={"alias": sample.info.alias, "mig_enabled": str(now).lower()} | details,
    )


def _leases(held: Mapping[str, int]) -> tuple[str, dict[str, str]]:
    """The promises on a device, the largest first, in words and as details."""
    if not held:
        return "no promise lies on it", {}
    largest = sorted(held.items(), key=lambda item: (-item[1], item[0]))[:MAX_LEASES_TOLD]
    listed = ", ".join(f"reservations/{id_} ({format_size(size)})" for id_, size in largest)
    more = f" and {len(held) - len(largest)} more" if len(held) > len(largest) else ""
    plural = "promise lies" if len(held) == 1 else "promises lie"
    return f"{len(held)} {plural} on it: {listed}{more}", {
        "reservations": ",".join(f"reservations/{id_}" for id_, _ in largest),
        "reservation_count": str(len(held)),
        "granted_bytes": str(sum(held.values())),
    }


def _pressure(last: Sample | None, sample: Sample, wall: float) -> Event | None:
    return _crossing(
        _Reading(
            type="device.pressure",
            unit=" % used",
            normal=Pressure.NORMAL,
            was=last.pressure if last else None,
            now=sample.pressure,
            value_before=used_percent(last.info, last.readings) if last else None,
            value=used_percent(sample.info, sample.readings),
        ),
        sample,
        wall,
    )


def _thermal(last: Sample | None, sample: Sample, wall: float) -> Event | None:
    if sample.info.kind is DeviceKind.MIG:
        return None  # a slice is as hot as its card, of which it is told
    return _crossing(
        _Reading(
            type="device.thermal",
            unit=" °C",
            normal=Thermal.NORMAL,
            was=last.thermal if last else None,
            now=sample.thermal,
            value_before=last.readings.temperature_celsius if last else None,
            value=sample.readings.temperature_celsius,
        ),
        sample,
        wall,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """A reading and its band, before and now; `normal` is the highest band that is no news."""

    type: str
    unit: str
    normal: Pressure | Thermal
    was: Pressure | Thermal | None
    now: Pressure | Thermal | None
    value_before: float | None
    value: float | None

    @property
    def is_news(self) -> bool:
        """Whether it has crossed an edge, or is known no longer where it mattered."""
        if self.was is not None and self.now is not None:
            lost_sight = self.value is None and self.value_before is not None
            return self.was is not self.now or lost_sight
        one = self.now if self.was is None else self.was
        return one is not None and one > self.normal


def _crossing(reading: _Reading, sample: Sample, wall: float) -> Event | None:
    # One that does not answer is told as such; its reading is an old one.
    if sample.health in (Health.LOST, Health.UNRESPONSIVE) or not reading.is_news:
        return None
    was, now = _name(reading.was), _name(reading.now)
    value_before, value = _number(reading.value_before), _number(reading.value)
    if reading.was is reading.now:
        reason = f"{value_before}{reading.unit} -> {value}: stays {now} until it is read again"
    elif reading.was is None:
        reason = f"{value}{reading.unit}: {now}"
    elif reading.now is not None and reading.now < reading.was:
        # A band is left late: the reading before was as low already.
        reason = f"back to {value}{reading.unit}: {was} -> {now}"
    else:
        reason = f"{value_before} -> {value}{reading.unit}: {was} -> {now}"
    return Event(
        wall=wall,
        type=reading.type,
        subject=_subject(sample.info),
        reason=reason,
        details={"alias": sample.info.alias, "from": was, "to": now, "value": value},
    )


def _name(band: Pressure | Thermal | None) -> str:
    return band.name if band is not None else _UNKNOWN


def _number(value: float | None) -> str:
    return f"{value:.1f}".removesuffix(".0") if value is not None else _UNKNOWN


def _subject(info: DeviceInfo) -> str:
    return f"devices/{info.uuid}"
