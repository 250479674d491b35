"""Pure: what loads were measured to take, and what that says of the next one.

A load of the same files with the same options, by the same build of its engine, on the same kind
of device takes what it took before; so the figure of the last one replaces the law's. What a
process takes beside its buffers is known apart, for it is the same for every model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Final

import msgspec

from gpud.devices.snapshot import DeviceKind
from gpud.models.catalogue import Inspection
from gpud.models.footprint import DeviceTraits
from gpud.models.model import (
    Confidence,
    EngineKind,
    Footprint,
    FootprintItem,
    FootprintWhat,
    ModelOptions,
)
from gpud.units import MIB, format_size

# Above what was measured: the same load was never seen to differ by more than its pages.
MARGIN_SHARE: Final = 0.03
MARGIN_LEAST_BYTES: Final = 4 * MIB
# A load that differs by more from the one before it was changed by something that nobody told.
DRIFT_SHARE: Final = 0.05
# Of what processes took beside their buffers so many of the newest loads count, the most of them:
# one that was seen wrong once is forgotten in time.
SEEN_KEPT: Final = 16
# Kept of each sort; the one that was measured longest ago goes first.
MOST_KEPT: Final = 1024
_DIGITS: Final = 32

# Options that change how it computes, never what it holds.
_WEIGHTLESS: Final = frozenset(
    {"threads", "threads_batch", "cache_reuse", "continuous_batching", "sleep_idle_seconds"}
)
# What is no buffer of the engine's.
_BESIDE: Final = (FootprintWhat.CONTEXT, FootprintWhat.HOST_CACHE)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineBuild:
    """Which engine, down to its version; `arguments` are what an entry gives it beside options."""

    kind: EngineKind
    version: str
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What a load took on its device.

    `measured_bytes` are the engine's own buffers, of them those that it `covers` (all, where that
    is empty), or where `is_whole` everything of its processes there; `estimated_bytes` is what had
    been expected of the same, without the margin.

    An engine tells what it took from the start; processes are seen with what they touched until
    then, and may take the rest at any time. So a whole measurement only ever raises what is
    promised.
    """

    model: str  # its id then, for people
    measured_bytes: int
    estimated_bytes: int
    is_whole: bool
    wall: float
    count: int = 1
    covers: frozenset[FootprintWhat] = frozenset()

    @property
    def of(self) -> str:
        """In words what was measured, with its bytes."""
        size = format_size(self.measured_bytes)
        if self.is_whole:
            return f"{size} in use by all its processes at most"
        return f"{size} of the engine's own buffers{', as far as it tells' * bool(self.covers)}"

    @property
    def error(self) -> float | None:
        """Measured ÷ estimated − 1; None where nothing was expected."""
        return self.measured_bytes / self.estimated_bytes - 1 if self.estimated_bytes else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """What a process of an engine takes on a device beside its buffers.

    That is the most of what was `seen` at the last loads, the newest last.
    """

    measured_bytes: int
    wall: float
    count: int = 1
    seen: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A load took something else than the one before it, though nothing known had changed."""

    former_bytes: int
    measured_bytes: int

    @property
    def reason(self) -> str:
        """In words, with the numbers."""
        change = self.measured_bytes / self.former_bytes - 1 if self.former_bytes else 1.0
        return (
            f"it took {format_size(self.measured_bytes)}, {change:+.1%} against the "
            f"{format_size(self.former_bytes)} of the load before"
        )


def load_key(
    inspection: Inspection, options: ModelOptions, build: EngineBuild, device: DeviceTraits
) -> str:
    """Two loads with the same key take the same bytes, as far as is known beforehand."""
    files = tuple(
        (str(each.path), each.size_bytes, each.mtime_ns) for each in inspection.artifacts
    )
    said = tuple(
        (field.name, getattr(options, field.name))
        for field in fields(options)
        if field.name not in _WEIGHTLESS and getattr(options, field.name) is not None
    )
    kind = inspection.kind.value if inspection.kind is not None else ""
    # Of a command neither files nor options tell one from another, only what it runs.
    command = repr(inspection.command) if inspection.command is not None else ""
    return _digest((files, kind, said, _build(build), build.arguments, command, _place(device)))


def process_key(build: EngineBuild, device: DeviceTraits, devices: int = 1) -> str:
    """Processes with the same key take the same beside their buffers.

    `devices` is over how many of them a load is spread: then they speak with each other too.
    """
    spread = () if devices == 1 else (devices,)
    return _digest((_build(build), _place(device), *spread))


class Learned:
    """All measurements by their keys; changed by `record` and `observe` alone."""

    def __init__(self) -> None:
        self._loads: dict[str, Measurement] = {}
        self._processes: dict[str, Overhead] = {}

    def restore(self, loads: Mapping[str, Measurement], processes: Mapping[str, Overhead]) -> None:
        """Take what an earlier life had learned."""
        self._loads, self._processes = dict(loads), dict(processes)

    def load(self, key: str) -> Measurement | None:
        """The last measurement of such a load."""
        return self._loads.get(key)

    def process_bytes(self, key: str) -> int | None:
        """What such a process takes beside its buffers; None: none was measured."""
        found = self._processes.get(key)
        return None if found is None else found.measured_bytes

    def record(self, key: str, told: Measurement) -> Drift | None:
        """Keep a measurement in place of the one before; how far they lie apart, if too far.

        Of whole ones the most that was ever seen is kept, and less is no drift: it has not taken
        the rest yet.
        """
        former = self._loads.pop(key, None)  # so that the newest stand last
        count = told.count if former is None else former.count + 1
        is_same = former is not None and _scope(former) == _scope(told)
        kept = told
        if former is not None and is_same and told.is_whole:
            kept = max(former, told, key=lambda each: each.measured_bytes)
        self._loads[key] = replace(kept, count=count, wall=told.wall)
        if former is None or not is_same or kept is former:
            return None
        apart = abs(told.measured_bytes - former.measured_bytes)
        if apart <= DRIFT_SHARE * former.measured_bytes:
            return None
        return Drift(former_bytes=former.measured_bytes, measured_bytes=told.measured_bytes)

    def observe(
        self, key: str, seen_bytes: int, wall: float, before_bytes: int | None = None
    ) -> Overhead:
        """Keep what such a process was seen to take, with what those of the last loads were.

        `before_bytes` is what this very process had been seen to take before: now it is more.
        """
        former = self._processes.pop(key, None)
        before = () if former is None else former.seen or (former.measured_bytes,)
        count = 1 if former is None else former.count + 1
        if former is not None and before_bytes in before:
            at = before.index(before_bytes)
            before, count = (*before[:at], *before[at + 1 :]), former.count
        seen = (*before, seen_bytes)[-SEEN_KEPT:]
        found = Overhead(measured_bytes=max(seen), wall=wall, count=count, seen=seen)
        self._processes[key] = found
        return found

    def forget(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Drop what is too much, the oldest first; the keys of loads and of processes dropped."""
        return _dropped(self._loads), _dropped(self._processes)

    def footprint(self, key: str, law: Footprint) -> Footprint:
        """The footprint as measured; the law's own where nothing was."""
        told = self._loads.get(key)
        return law if told is None else corrected(law, told)


def corrected(law: Footprint, told: Measurement) -> Footprint:
    """A footprint that sums up to what was measured, its difference to the law told apart.

    The difference belongs to the compute buffers, which no law has exactly, if they can take it;
    what the measurement does not cover is as the law says. A whole measurement never lowers it.
    """
    if told.is_whole and told.measured_bytes <= expected_bytes(law, is_whole=True):
        past_of = f"{told.of}, which may still take the rest"
        return replace(law, past_error=told.error, past_of=past_of)
    buffers = _measured_items(law, is_whole=told.is_whole, covers=told.covers)
    beside = [
        item for item in law.items if item.what is not FootprintWhat.MARGIN and item not in buffers
    ]
    found = (*_fitted(buffers, told.measured_bytes), *beside)
    subtotal = sum(item.bytes for item in found)
    above = max(int(subtotal * MARGIN_SHARE), MARGIN_LEAST_BYTES)
    if told.is_whole:
        above = max(above, law.total_bytes - subtotal)
    margin = FootprintItem(
        what=FootprintWhat.MARGIN,
        bytes=above,
        source=f"{MARGIN_SHARE:.0%}, {format_size(MARGIN_LEAST_BYTES)} at least: "
        f"{told.count} {'load' if told.count == 1 else 'loads'} measured here",
    )
    return replace(
        law,
        items=(*found, margin),
        confidence=Confidence.MEASURED,
        past_error=told.error,
        past_of=told.of,
    )


def _fitted(items: list[FootprintItem], wanted: int) -> tuple[FootprintItem, ...]:
    """The items, so changed that they sum up to what is wanted."""
    total = sum(item.bytes for item in items)
    difference = wanted - total
    sign = "+" if difference > 0 else "−"
    differs = f", {sign}{format_size(abs(difference))} against that" if difference else ", as that"
    note = f"; measured here{differs}"
    for index, item in enumerate(items):
        if item.what is FootprintWhat.COMPUTE and item.bytes + difference >= 0:
            fitting = replace(item, bytes=item.bytes + difference, source=item.source + note)
            return (*items[:index], fitting, *items[index + 1 :])
    if not items or not total:
        what = FootprintWhat.COMPUTE
        return (FootprintItem(what=what, bytes=wanted, source="measured"),)
    parts = [item.bytes * wanted // total for item in items]
    parts[-1] += wanted - sum(parts)
    return tuple(
        replace(item, bytes=part, source=item.source + note)
        for item, part in zip(items, parts, strict=True)
    )


def expected_bytes(
    footprint: Footprint,
    *,
    is_whole: bool,
    covers: frozenset[FootprintWhat] = frozenset(),
) -> int:
    """What a footprint says of that which a measurement is of, without the margin."""
    found = _measured_items(footprint, is_whole=is_whole, covers=covers)
    return sum(item.bytes for item in found)


def _measured_items(
    footprint: Footprint, *, is_whole: bool, covers: frozenset[FootprintWhat]
) -> list[FootprintItem]:
    left_out = {FootprintWhat.MARGIN, *(() if is_whole else _BESIDE)}
    return [
        item
        for item in footprint.items
        if item.what not in left_out and (is_whole or not covers or item.what in covers)
    ]


def _scope(told: Measurement) -> tuple[bool, frozenset[FootprintWhat]]:
    return told.is_whole, told.covers


def _dropped(kept: dict[str, Measurement] | dict[str, Overhead]) -> tuple[str, ...]:
    oldest = tuple(kept)[: max(0, len(kept) - MOST_KEPT)]
    for key in oldest:
        del kept[key]
    return oldest


def _build(build: EngineBuild) -> tuple[str, str]:
    return build.kind.value, build.version


def _place(device: DeviceTraits) -> tuple[str, str]:
    """On the host it is of no account which one: the state directory does not move."""
    return device.kind.value, "" if device.kind is DeviceKind.HOST else device.model_name


def _digest(parts: Iterable[object]) -> str:
    return hashlib.sha256(msgspec.json.encode(tuple(parts))).hexdigest()[:_DIGITS]
