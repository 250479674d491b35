"""Pure: what makes a benchmark void, from what was seen of its devices while it ran."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gpud.benchmarking.benchmark import DeviceRecord, Reading
from gpud.devices.snapshot import DeviceKind, Sample, Snapshot, Thermal
from gpud.devices.verdict.throttling import is_by_heat
from gpud.ledger.charge import Charge
from gpud.units import MIB, format_size

# Strangers' memory moves by a page or two all the time; one that starts to compute takes more.
FOREIGN_GROWTH_BYTES = 64 * MIB
# A card that nobody uses shows 0; a desktop that draws its clock, a few percent.
IDLE_UTILIZATION_PERCENT = 20.0


@dataclass(slots=True, kw_only=True)
class Scene:
    """The devices of one instance from the start of a run on; each kind of reason is told once."""

    uuids: tuple[str, ...]
    _reasons: dict[str, str] = field(default_factory=dict)
    _first: dict[str, Sample] = field(default_factory=dict)
    _last: dict[str, Sample] = field(default_factory=dict)
    _foreign: dict[str, int] = field(default_factory=dict)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the run is void; none: it is not."""
        return tuple(self._reasons.values())

    def add(self, kind: str, reason: str) -> None:
        """Something that makes it void; of a kind, the first that was seen."""
        self._reasons.setdefault(kind, reason)

    def see(self, snapshot: Snapshot | None, charges: Mapping[str, Charge]) -> None:
        """One moment of the run; the first is what the others are held against."""
        for sample in snapshot.samples if snapshot is not None else ():
            uuid = sample.info.uuid
            if uuid in self.uuids:
                self._first.setdefault(uuid, sample)
                self._last[uuid] = sample
                self._see_heat(sample)
                self._see_strangers(sample, charges.get(uuid))

    def records(self) -> tuple[DeviceRecord, ...]:
        """How its devices were as it began and as it ended."""
        return tuple(
            DeviceRecord(
                uuid=uuid,
                alias=first.info.alias,
                start=_reading(first),
                end=_reading(self._last[uuid]),
            )
            for uuid, first in self._first.items()
        )

    def _see_heat(self, sample: Sample) -> None:
        """The card's own word first: it slows down at heights that differ from card to card."""
        told = is_by_heat(sample.readings.throttle_reasons)
        if not told and (sample.thermal is None or sample.thermal < Thermal.THROTTLING):
            return
        alias, celsius = sample.info.alias, sample.readings.temperature_celsius
        at = f" at {celsius:g} °C" if celsius is not None else ""
        self.add(f"heat {alias}", f"{alias} is slowed down by heat{at}")

    def _see_strangers(self, sample: Sample, charge: Charge | None) -> None:
        """RAM that others take slows no engine on the CPU, so the host is passed over."""
        foreign = charge.foreign_bytes if charge is not None else None
        if foreign is None or sample.info.kind is DeviceKind.HOST:
            return
        uuid, alias = sample.info.uuid, sample.info.alias
        grown = foreign - self._foreign.setdefault(uuid, foreign)
        if grown > FOREIGN_GROWTH_BYTES:
            taken = f"processes that are not gpud's took {format_size(grown)} of {alias} meanwhile"
            self.add(f"strangers {alias}", taken)


def busy_before(snapshot: Snapshot | None, uuids: tuple[str, ...]) -> str:
    """Which of the devices computes for somebody, while the instance has nothing to do; or empty.

    Of the host nothing is said: its devices tell no utilization.
    """
    for sample in snapshot.samples if snapshot is not None else ():
        percent = sample.readings.utilization_percent or 0.0
        if sample.info.uuid in uuids and percent >= IDLE_UTILIZATION_PERCENT:
            alias = sample.info.alias
            return f"{alias} was {percent:g} % busy for others before the first request"
    return ""


def _reading(sample: Sample) -> Reading:
    readings = sample.readings
    return Reading(
        temperature_celsius=readings.temperature_celsius,
        utilization_percent=readings.utilization_percent,
        power_watts=readings.power_watts,
        sm_clock_mhz=readings.sm_clock_mhz,
        memory_clock_mhz=readings.memory_clock_mhz,
    )
