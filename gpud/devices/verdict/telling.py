"""Pure: what the journal tells of errors that drivers report, and of what they come to."""

from __future__ import annotations

from collections.abc import Iterator

from gpud.devices.snapshot import DeviceKind, Health, Sample, Verdict
from gpud.devices.verdict.verdict import CLEAN
from gpud.devices.verdict.xids import meaning
from gpud.events import Event

_WORDS = {
    "NONE": "nothing is to be done",
    "RESTART_APP": "restart what ran on it",
    "RESET": "reset it once nothing runs on it",
    "REBOOT": "reboot the host",
    "INSPECT": "have it looked at",
}


def advice(verdict: Verdict) -> str:
    """What to do, in words."""
    return _WORDS[verdict.action.name]


def verdict_events(last: Sample | None, sample: Sample, wall: float) -> Iterator[Event]:
    """Errors that came since the last sample, and a verdict that changed.

    A slice has its card's verdict, of which the card is told.
    """
    if sample.info.kind is DeviceKind.MIG:
        return
    yield from _xids(last, sample, wall)
    yield from _ecc(last, sample, wall)
    was = last.verdict if last is not None else CLEAN
    now = sample.verdict
    if (was.action, was.reason, was.is_fatal) == (now.action, now.reason, now.is_fatal):
        return
    is_gone = Health.LOST in (sample.health, last.health if last is not None else None)
    if is_gone and not (was.is_fatal or now.is_fatal):
        return  # device.lost and device.recovered have told as much
    reason = f"{now.reason}; {advice(now)}" if now.reason else f"it was: {was.reason}"
    is_fatal = str(now.is_fatal).lower()
    details = {"from": was.action.name, "to": now.action.name, "fatal": is_fatal}
    yield _event(sample, wall, "device.verdict", reason, details)


def _ecc(last: Sample | None, sample: Sample, wall: float) -> Iterator[Event]:
    """Of a card that replaces its bad rows its verdict may say nothing of them, nor an Xid."""
    count = sample.readings.ecc_uncorrected_count or 0
    before = last.readings.ecc_uncorrected_count if last is not None else None
    if before is None or count <= before:
        return
    new = count - before
    errors = "1 error" if new == 1 else f"{new} errors"
    reason = f"{errors} of its memory could not be corrected"
    yield _event(sample, wall, "device.ecc", reason, {"new": str(new), "count": str(count)})


def _xids(last: Sample | None, sample: Sample, wall: float) -> Iterator[Event]:
    before = (last.xids if last is not None else sample.xids_before) or {}
    for number, count in (sample.xids or {}).items():
        new = count - before.get(number, 0)
        if new <= 0:
            continue
        times = "" if new == 1 else f", {new} times"
        counted = {"xid": str(number), "new": str(new), "count": str(count)}
        reason = f"Xid {number}{times}: {meaning(number)}"
        details = counted | {"meaning": meaning(number)}
        yield _event(sample, wall, "device.xid", reason, details)


def _event(sample: Sample, wall: float, type_: str, reason: str, details: dict[str, str]) -> Event:
    return Event(
        wall=wall,
        type=type_,
        subject=f"devices/{sample.info.uuid}",
        reason=reason,
        details={"alias": sample.info.alias} | details,
    )
