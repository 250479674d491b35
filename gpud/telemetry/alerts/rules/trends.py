"""Pure: what one moment does not tell: how a device works while it serves, and an engine's fall.

A device with models loaded and nobody asking is idle, not badly used, and an engine gives fewer
tokens when fewer are asked of it. So a device counts while an engine on it has requests, and an
engine is compared with itself at as many requests or fewer: more never give fewer tokens. Traffic
goes up and down within the minute that a rate is of. So what is usual is learned for the most
requests of its minute, and a minute is compared by the fewest that it had.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from gpud.devices.snapshot import DeviceKind, Health, Sample
from gpud.instances.instance import InstanceState
from gpud.telemetry.alerts.rules.levels import DROP, LOW_USE
from gpud.telemetry.alerts.rules.rule import Sight
from gpud.telemetry.engines.reading import EngineReading
from gpud.telemetry.engines.series import WINDOW_SECONDS

# Of the mean of a device's utilization, and how long it has to have served before that is told;
# an engine's rates are over its last minute themselves.
USE_SECONDS: Final = 60.0
# Of the mean that an engine is compared with, and how much of it has to be known.
USUAL_SECONDS: Final = 3600.0
KNOWN_SECONDS: Final = 300.0
# Longer than the pause between samples can be set to: so long nobody saw what it did.
_MOST_BETWEEN_SECONDS: Final = 15.0
# Where an engine is read less often than each minute, its rates are over some of the pauses.
_PAUSES: Final = 3.0


@dataclass(slots=True)
class _Use:
    """Of one device, since it began to serve."""

    since: float
    last: float
    mean: float


@dataclass(slots=True)
class _Usual:
    """The mean rate of the minutes that had at most one number of requests."""

    mean: float
    seconds: float = 0.0

    def learn(self, rate: float, passed: float) -> None:
        """It was this for so long."""
        self.seconds += passed
        self.mean += (rate - self.mean) * min(1.0, passed / min(USUAL_SECONDS, self.seconds))


@dataclass(slots=True)
class _Pace:
    """Of one engine: its requests in the last minute, and what was usual at how many."""

    read: float
    loads: deque[tuple[float, int]] = field(default_factory=deque)  # boottime, requests in work
    usual: dict[int, _Usual] = field(default_factory=dict)
    gives_tokens: bool = False
    drop: float | None = None
    is_told: bool = False


class Trends:
    """Means over time; handed every sight in its order."""

    def __init__(self) -> None:
        self._use: dict[str, _Use] = {}
        self._pace: dict[str, _Pace] = {}

    @property
    def goes_on(self) -> bool:
        """Whether anything is known that a sight without engines ends."""
        return bool(self._use or self._pace)

    def see(self, sight: Sight) -> Mapping[str, Mapping[str, float | None]]:
        """By field and subject, as of this sight."""
        return {LOW_USE: self._see_devices(sight), DROP: dict(self._see_engines(sight))}

    # Devices.

    def _see_devices(self, sight: Sight) -> dict[str, float | None]:
        serving, told = serving_devices(sight), {}
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
        if now - use.last > _MOST_BETWEEN_SECONDS:
            use.since, use.last = use.since + now - use.last, now
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
                pace.drop = None
                pace.loads.clear()
            elif reading.boottime > pace.read:
                self._keep_pace(pace, reading)
            if reading.problem and pace.is_told:
                yield f"instances/{id_}", None
            elif not reading.problem:
                pace.is_told = pace.drop is not None
                if pace.drop is not None:
                    yield f"instances/{id_}", pace.drop

    def _keep_pace(self, pace: _Pace, reading: EngineReading) -> None:
        now, passed, loads = reading.boottime, reading.boottime - pace.read, pace.loads
        pace.read, pace.drop = now, None
        loads.append((now, reading.running or 0))
        begin = now - max(WINDOW_SECONDS, _PAUSES * passed)
        while len(loads) > 1 and loads[1][0] <= begin:
            loads.popleft()
        rate = _rate(pace, reading)
        if not reading.running or rate is None or loads[0][0] > begin:
            return
        least, most = min(load for _, load in loads), max(load for _, load in loads)
        lighter = [usual for load, usual in pace.usual.items() if load <= least]
        known = [usual.mean for usual in lighter if usual.seconds >= KNOWN_SECONDS]
        # What is counted when requests end is right over an hour, and says little of a minute.
        if (expected := max(known, default=0.0)) > 0 and not reading.counts_late:
            pace.drop = max(0.0, (1 - rate / expected) * 100)
        own = pace.usual.setdefault(most, _Usual(mean=rate))
        own.learn(rate, passed)
        # Who gives no more with more requests gives no more with fewer either, by now.
        for usual in lighter:
            if usual is not own and usual.mean > rate:
                usual.learn(rate, passed)


def _rate(pace: _Pace, reading: EngineReading) -> float | None:
    """Tokens per second, 0 of one that stalls; requests of one that never gave tokens."""
    tokens, requests = reading.generated_tokens_per_second, reading.requests_per_second
    if tokens and not pace.gives_tokens:
        pace.gives_tokens = True
        pace.usual.clear()  # of requests
    return tokens if pace.gives_tokens or requests is None else requests


def serving_devices(sight: Sight) -> frozenset[str]:
    """Devices (UUIDs) on which an engine has requests, as far as engines tell."""
    if not sight.engines:
        return frozenset()
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
