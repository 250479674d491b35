"""Pure: memory that grows on a device without a promise, told as it grows.

A process list names whose bytes are whose. Between two lists they are unattributed, and may turn
out to be of a promise: so growth counts at once where a list shows it, else at the second sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpud.devices.snapshot import DeviceKind, Sample, Snapshot
from gpud.events import Event
from gpud.ledger.charge import Charge
from gpud.units import MIB, format_size

# What a promise may be exceeded by before that is told, is no news from others either.
STEP_BYTES = 64 * MIB
# The host's memory is everybody's: there only what could matter to a load is news.
HOST_SHARE = 1 / 16
# Of what goes on growing the first is told at once, the rest seldomer and seldomer, or once it is
# a large share of the device, or suddenly faster by a step from one sample to the next, which may
# be another's; what was freed only for a moment is no news when it comes again.
LARGE_SHARE = 1 / 16
PAUSE_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 600.0
SETTLED_SECONDS = 60.0
MAX_PROCESSES_TOLD = 4


@dataclass(slots=True)
class _Level:
    """What is known of a device: the bytes told last, how long to wait, how it stands since."""

    told_bytes: int
    newest_bytes: int
    sure_bytes: int  # of those, what is no promise's
    growth_bytes: int = 0  # of what is sure, from the sample before
    has_leapt: bool = False  # since it was told last
    told_boottime: float = float("-inf")
    pause_seconds: float = PAUSE_SECONDS
    low_since: float | None = None
    low_bytes: int = 0  # the most since then


class Outsiders:
    """How many bytes of each device others hold, and which growth of them was told."""

    def __init__(self) -> None:
        self._levels: dict[str, _Level] = {}

    def see(self, snapshot: Snapshot, charges: Mapping[str, Charge]) -> tuple[Event, ...]:
        """What to tell of a snapshot; `charges` by UUID, made from it."""
        told = (
            self._look(sample, charge, snapshot)
            for sample in snapshot.samples
            if (charge := charges.get(sample.info.uuid)) is not None
        )
        return tuple(event for event in told if event is not None)

    def _look(self, sample: Sample, charge: Charge, at: Snapshot) -> Event | None:
        listed, loose = charge.foreign_bytes, charge.unattributed_bytes
        if listed is None or loose is None:
            return None
        now = listed + loose
        level = self._levels.get(charge.uuid)
        if level is None:
            self._levels[charge.uuid] = _Level(told_bytes=now, newest_bytes=now, sure_bytes=now)
            return None
        sure = max(listed, min(level.newest_bytes, now))
        least = level.told_bytes + _step(sample)
        _grow(level, sure, _step(sample))
        level.newest_bytes = now
        if now < least:
            _settle(level, now, least, at.boottime)
            return None
        level.low_since = None
        grown = sure - level.told_bytes
        is_news = level.has_leapt or grown >= _large(sample) or _is_rested(level, at.boottime)
        if sure < least or not is_news:
            return None
        _tell(level, sure, at.boottime)
        return _event(sample, charge, grown, at.wall)


def _step(sample: Sample) -> int:
    total = sample.info.memory_total_bytes or 0
    return int(total * HOST_SHARE) if sample.info.kind is DeviceKind.HOST else STEP_BYTES


def _large(sample: Sample) -> float:
    return max(_step(sample), (sample.info.memory_total_bytes or 0) * LARGE_SHARE)


def _grow(level: _Level, sure: int, step: int) -> None:
    """What comes back of what was told is no growth."""
    growth = max(0, sure - max(level.sure_bytes, level.told_bytes))
    if growth >= level.growth_bytes + step:
        level.has_leapt = True
    level.sure_bytes, level.growth_bytes = sure, growth


def _is_rested(level: _Level, boottime: float) -> bool:
    return boottime >= level.told_boottime + level.pause_seconds


def _tell(level: _Level, sure: int, boottime: float) -> None:
    """From now on this is known; what goes on waits twice as long as before."""
    goes_on = boottime < level.told_boottime + 2 * level.pause_seconds
    longer = min(2 * level.pause_seconds, LONGEST_PAUSE_SECONDS)
    level.pause_seconds = longer if goes_on else PAUSE_SECONDS
    level.told_bytes, level.told_boottime = sure, boottime
    level.has_leapt = False


def _settle(level: _Level, now: int, least: int, boottime: float) -> None:
    """Go down with what was freed, once it has stayed so."""
    level.has_leapt = False
    step = least - level.told_bytes
    if now > level.told_bytes - step:
        level.low_since = None
    elif level.low_since is None:
        level.low_since, level.low_bytes = boottime, now
    else:
        level.low_bytes = max(level.low_bytes, now)
        if boottime - level.low_since >= SETTLED_SECONDS:
            level.told_bytes, level.low_since = level.low_bytes, None


def _event(sample: Sample, charge: Charge, grown: int, wall: float) -> Event:
    others = [each for each in sample.processes or () if each.claim not in charge.observed_bytes]
    others.sort(key=lambda each: -(each.used_bytes or 0))
    names = [
        f"{each.process_name} ({each.pid}) with {format_size(each.used_bytes or 0)}"
        for each in others[:MAX_PROCESSES_TOLD]
    ]
    held = (charge.foreign_bytes or 0) + (charge.unattributed_bytes or 0)
    who = f": {', '.join(names)}" if names else ""
    return Event(
        wall=wall,
        type="device.foreign",
        subject=f"devices/{charge.uuid}",
        reason=(
            f"memory that no promise has grew by {format_size(grown)} to {format_size(held)}{who}"
        ),
        details={
            "alias": charge.alias,
            "bytes": str(held),
            "grown_bytes": str(grown),
            "pids": ",".join(str(each.pid) for each in others[:MAX_PROCESSES_TOLD]),
        },
    )
