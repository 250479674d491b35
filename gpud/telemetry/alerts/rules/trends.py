"""Pure: what one moment does not tell: how a device works while it serves, and an engine's fall.

A device with models loaded and nobody asking is idle, not badly used, and an engine gives fewer
tokens when fewer are asked of it. So a device counts while an engine on it has requests, and an
engine is compared with itself at the same number of requests, after a minute of nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from gpud.devices.snapshot import DeviceKind, Health, Sample
from gpud.instances.instance import InstanceState
from gpud.telemetry.alerts.rules.levels import DROP, LOW_USE
from gpud.telemetry.alerts.rules.rule import Sight
from gpud.telemetry.engines.reading import EngineReading

# Of the mean of a device's utilization, and how long it has to have served before that is told;
# an engine's rates are over its last minute themselves.
USE_SECONDS: Final = 60.0
# Of the mean that an engine is compared with, and how much of it has to be known.
USUAL_SECONDS: Final = 3600.0
KNOWN_SECONDS: Final = 300.0
BUSY_SECONDS: Final = 60.0


@dataclass(slots=True)
class _Use:
    """Of one device, since it began to serve."""

    since: float
    last: float
    mean: float


@dataclass(slots=True)
class _Usual:
    """The mean rate at one number of requests."""

    mean: float
    seconds: float = 0.0


@dataclass(slots=True)
class _Pace:
    """Of one engine: how many requests it has had without a break, and what was usual then."""

    read: float
    load: int = 0
    since: float = 0.0
    usual: dict[int, _Usual] = field(default_factory=dict)
    drop: float | None = None
    is_told: bool = False


class Trends:
    """Means over time; handed every sight in its order."""

    def __init__(self) -> None:
        self._use: dict[str, _Use] = {}
        self._pace: dict[str, _Pace] = {}

    def see(self, sight: Sight) -> Mapping[str, Mapping[str, float | None]]:
        """By field and subject, as of this sight."""
        return {LOW_USE: self._see_devices(sight), DROP: dict(self._see_engines(sight))}

    # Devices.

    def _see_devices(self, sight: Sight) -> dict[str, float | None]:
        serving, told = _serving(sight), {}
        for sample in sight.snapshot.samples:
            uuid = sample.info.uuid
            if uuid not in serving or sample.info.kind is DeviceKind.HOST:
                self._use.pop(uuid, None)
                continue
            value = self._used(sample)
            if value is not None or sample.health is not Health.HEALTHY:
                told[f"devices/{uuid}"] = value
        for uuid in self._use.keys() - serving:
            del self._use[uuid]
        return told

    def _used(self, sample: Sample) -> float | None:
        """Its mean utilization once it has served for long enough; None: not told."""
        utilization, now = sample.readings.utilization_percent, sample.boottime
        if utilization is None or sample.health is not Health.HEALTHY:
            return None
        use = self._use.setdefault(sample.info.uuid, _Use(now, now, utilization))
        weight = 1 - math.exp(-(now - use.last) / USE_SECONDS)
        use.mean += (utilization - use.mean) * weight
        use.last = now
        return use.mean if now - use.since >= USE_SECONDS else None

    # Engines.

    def _see_engines(self, sight: Sight) -> Iterator[tuple[str, float | None]]:
        for gone in self._pace.keys() - sight.engines.keys():
            del self._pace[gone]
        for id_, reading in sight.engines.items():
            pace = self._pace.get(id_)
            if pace is None:
                pace = self._pace[id_] = _Pace(read=reading.boottime)
            if reading.problem:
                pace.load, pace.drop = 0, None
            elif reading.boottime > pace.read:
                self._keep_pace(pace, reading)
            if reading.problem and pace.is_told:
                yield f"instances/{id_}", None
            elif not reading.problem:
                pace.is_told = pace.drop is not None
                if pace.drop is not None:
                    yield f"instances/{id_}", pace.drop

    def _keep_pace(self, pace: _Pace, reading: EngineReading) -> None:
        now, passed = reading.boottime, reading.boottime - pace.read
        pace.read = now
        # 1, 2, 3-4, 5-8, … requests at once: each has a usual rate of its own.
        load = math.ceil(math.log2(reading.running)) + 1 if reading.running else 0
        if load != pace.load:
            pace.load, pace.since, pace.drop = load, now, None
        rate = reading.generated_tokens_per_second or reading.requests_per_second
        if not load or rate is None or now - pace.since < BUSY_SECONDS:
            return
        usual = pace.usual.setdefault(load, _Usual(mean=rate))
        if usual.seconds >= KNOWN_SECONDS and usual.mean > 0:
            pace.drop = max(0.0, (1 - rate / usual.mean) * 100)
        usual.seconds += passed
        usual.mean += (rate - usual.mean) * min(1.0, passed / min(USUAL_SECONDS, usual.seconds))


def _serving(sight: Sight) -> frozenset[str]:
    """Devices (UUIDs) on which an engine has requests, as far as engines tell."""
    return frozenset(
        uuid
        for each in sight.instances
        if each.state is InstanceState.READY and each.sleep is None
        for uuid in each.devices
        if _works(sight.engines.get(each.id))
    )


def _works(reading: EngineReading | None) -> bool:
    if reading is None or reading.problem or reading.sleeping:
        return False
    signs = (reading.running, reading.requests_per_second, reading.generated_tokens_per_second)
    return any(sign is not None and sign > 0 for sign in signs)
