"""Pure: how full and how hot a device is, by one law: a band is entered at once and left late."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gpud.devices.snapshot import DeviceInfo, Pressure, Readings, Thermal

if TYPE_CHECKING:  # the sampling process has no use for all the settings
    from gpud.settings import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """Where bands begin, in the unit of the reading, and what it takes to leave one.

    `edges` rise; a reading on an edge is in the band above it. An edge is left once the reading
    has been below it by more than `hysteresis` in each sample of `hold_seconds`.
    """

    edges: tuple[float, ...]
    hysteresis: float
    hold_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bands:
    """The laws of a device; the defaults are those of settings.Policy."""

    pressure: Law = Law(edges=(50.0, 70.0, 85.0), hysteresis=5.0, hold_seconds=10.0)
    thermal: Law = Law(edges=(65.0, 80.0, 85.0), hysteresis=5.0, hold_seconds=10.0)

    @classmethod
    def of(cls, policy: Policy) -> Bands:
        """The laws of this policy."""
        return cls(
            pressure=Law(
                edges=policy.pressure_percent,
                hysteresis=policy.pressure_hysteresis_percent,
                hold_seconds=float(policy.band_hold),
            ),
            thermal=Law(
                edges=policy.thermal_celsius,
                hysteresis=policy.thermal_hysteresis_celsius,
                hold_seconds=float(policy.band_hold),
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Where a reading stands: how many edges it holds, and how far it is from letting go of them.

    `below_since` has, for each edge held and the lowest first, since when (boottime seconds) the
    reading has been far enough below it; None while it is not. `is_known`: it was read last time.
    `risen`: how often it came to hold all of them.
    """

    level: int
    below_since: tuple[float | None, ...] = ()
    is_known: bool = True
    risen: int = 0


def step(law: Law, before: Band | None, reading: float | None, boottime: float) -> Band | None:
    """The band after one more reading, taken at `boottime` seconds; None: it was never read.

    An unknown reading changes no level, but begins the wait for leaving anew: nobody knows how
    it went meanwhile.
    """
    if reading is None:
        unknown = (None,) * before.level if before else ()
        return replace(before, below_since=unknown, is_known=False) if before else None
    if before is not None and _stays(law, before, reading):
        return before
    reached = sum(reading >= edge for edge in law.edges)
    held = _still_held(law, before, reading, boottime) if before else ()
    more = (None,) * (reached - len(held))
    was, times = (before.level, before.risen) if before else (0, 0)
    rises = was < len(law.edges) == reached
    return Band(level=len(held + more), below_since=held + more, risen=times + rises)


def _stays(law: Law, before: Band, reading: float) -> bool:
    """Whether it is where it was, and far from every edge: as nearly always."""
    level, edges = before.level, law.edges
    return (
        before.is_known
        and (level == len(edges) or reading < edges[level])
        and (level == 0 or reading >= edges[level - 1] - law.hysteresis)
        and not any(since is not None for since in before.below_since)
    )


def _still_held(
    law: Law, before: Band, reading: float, boottime: float
) -> tuple[float | None, ...]:
    """Since when each edge is on its way out, up to the first that has had its time.

    A higher edge was fallen below no later than a lower one, so all above that one go with it.
    """
    held: list[float | None] = []
    for edge, earlier in zip(law.edges, before.below_since, strict=False):
        if reading >= edge - law.hysteresis:
            held.append(None)
            continue
        since = boottime if earlier is None else earlier
        if boottime - since >= law.hold_seconds:
            break
        held.append(since)
    return tuple(held)


def shown(law: Law, band: Band | None) -> int | None:
    """The level that may be acted on; None while it is unknown.

    The highest stays until a reading says otherwise: a device that was last seen too hot and has
    gone silent must not be taken for a cool one. The others forbid nothing, so they are not told
    from memory.
    """
    if band is None:
        return None
    return band.level if band.is_known or band.level == len(law.edges) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Both bands of one device."""

    pressure: Band | None = None
    thermal: Band | None = None

    def after(
        self, bands: Bands, info: DeviceInfo, readings: Readings, boottime: float
    ) -> Standing:
        """With one more sample; empty readings for a device that did not answer."""
        percent, celsius = used_percent(info, readings), readings.temperature_celsius
        pressure = step(bands.pressure, self.pressure, percent, boottime)
        thermal = step(bands.thermal, self.thermal, celsius, boottime)
        if pressure is self.pressure and thermal is self.thermal:
            return self
        return Standing(pressure=pressure, thermal=thermal)

    @property
    def pressure_events(self) -> int:
        """How often it came under CRITICAL memory pressure."""
        return self.pressure.risen if self.pressure else 0

    def told(self, bands: Bands) -> tuple[Pressure | None, Thermal | None]:
        """As samples have it."""
        pressure, thermal = (
            shown(bands.pressure, self.pressure),
            shown(bands.thermal, self.thermal),
        )
        return (
            None if pressure is None else Pressure(pressure + 1),
            None if thermal is None else Thermal(thermal + 1),
        )


def used_percent(info: DeviceInfo, readings: Readings) -> float | None:
    """How much of its memory is in use, 0..100 and more; None while one of both is unknown."""
    total, used = info.memory_total_bytes, readings.memory_used_bytes
    return 100.0 * used / total if total and used is not None else None
