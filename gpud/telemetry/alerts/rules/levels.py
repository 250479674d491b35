"""Pure: fields that a rule may name, and what they are of each subject now.

All that history keeps, by the same names and units, and a few more.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeAlias

from gpud.devices.bands import used_percent
from gpud.devices.snapshot import Health, Sample
from gpud.errors import OptionInvalid
from gpud.ledger.charge import Charge
from gpud.telemetry.alerts.rules.rule import Level, Observation, Sight
from gpud.telemetry.alerts.rules.words import number
from gpud.telemetry.engines.reading import EngineReading
from gpud.telemetry.history.fields import BY_NAME, DEVICE, ENGINE, HOST, READ
from gpud.telemetry.history.rows import device_row, host_row, model_rows

DEVICES, NODE, INSTANCES, MODELS = "devices", "node", "instances", "models"
NOUNS: Final = (DEVICES, NODE, INSTANCES, MODELS)
LOW_USE, DROP = "serving_utilization_percent", "throughput_drop_percent"
_DAY: Final = 86400.0

# Subject, alias, value; None: unknown. A subject that is not told has no such value now.
Value: TypeAlias = tuple[str, str, float | None]


def _used(sample: Sample) -> float | None:
    return used_percent(sample.info, sample.readings)


# What history keeps nothing of: its unit, and what it is told of.
_MORE: Final[Mapping[str, tuple[str, str]]] = {
    "memory_used_percent": ("percent", DEVICES),
    LOW_USE: ("percent", DEVICES),
    DROP: ("percent", INSTANCES),
    "state_disk_free_percent": ("percent", NODE),
    "certificate_days": ("days", NODE),
}
_DEVICE_AT: Final = {field.name: at for at, field in enumerate(DEVICE)}
_READ: Final = frozenset(field.name for field in READ)
_CHARGED: Final = frozenset(
    {"granted_bytes", "charged_bytes", "foreign_bytes", "unattributed_bytes", "leaked_bytes"}
)
_HOST_AT: Final = {field.name: at for at, field in enumerate(HOST)}
_ENGINE_AT: Final = {field.name: at for at, field in enumerate(ENGINE)}
# Without a request there is nothing to be slow or wrong at.
_OF_REQUESTS: Final = frozenset(
    {
        "error_ratio",
        "cache_hit_ratio",
        *(name for name in _ENGINE_AT if name.endswith(("_p50_seconds", "_p99_seconds"))),
    }
)


def unit_of(field: str) -> str:
    """The unit of a field, "" for a bare number. Raises OptionInvalid: there is none such."""
    if field in _MORE:
        return _MORE[field][0]
    if field not in BY_NAME:
        names = [*_MORE, *BY_NAME]
        near = difflib.get_close_matches(field, names, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"as {', '.join(names[:6])}"
        raise OptionInvalid(field="field", problem=f"there is no field {field!r}; {hint}")
    return BY_NAME[field].unit


def place_of(field: str, subject: str) -> tuple[str, str]:
    """The noun that a rule's subject comes to, and the one subject of it; "": all.

    Raises OptionInvalid where the field is not told of that.
    """
    fits = _nouns_of(field)
    if not subject:
        return fits[0], ""
    noun = subject.partition("/")[0] if "/" in subject else subject
    if noun not in NOUNS:
        noun = DEVICES  # gpu0, host, or a UUID
    if noun not in fits:
        told = " or ".join(fits)
        raise OptionInvalid(field="subject", problem=f"{field} is of {told}, not of {subject!r}")
    return noun, "" if subject in NOUNS else subject


def _nouns_of(field: str) -> tuple[str, ...]:
    if field in _MORE:
        return (_MORE[field][1],)
    if field in _DEVICE_AT:
        return (DEVICES,)
    return (NODE,) if field in _HOST_AT else (INSTANCES, MODELS)


def observed(level: Level, sight: Sight, fires: Callable[[str], bool]) -> Iterator[Observation]:
    """What the level comes to, of each subject of which it matters; `fires` knows what does."""
    for subject, alias, value in values(level, sight):
        if level.only and level.only not in (subject, alias, subject.partition("/")[2]):
            continue
        is_firing = fires(subject)
        holds = None if value is None else level.holds(value, fires=is_firing)
        if holds is False and not is_firing:
            continue  # as nearly all of it: it is nobody's case
        yield Observation(
            subject=subject,
            alias=alias,
            holds=holds,
            words="" if value is None else _words(level, value, holds=bool(holds)),
            value=value,
            threshold=level.threshold,
            unit=level.unit,
        )


def _words(level: Level, value: float, *, holds: bool) -> str:
    """`memory in use is 93.4 %, above 90 %`; that a count is above 0 goes without saying."""
    said = f"{level.words} {number(value, level.unit)}"
    if not holds:
        return f"{said} again"
    if level.above == 0:
        return said
    side = "above" if level.above is not None else "below"
    return f"{said}, {side} {number(level.threshold, level.unit)}"


def values(level: Level, sight: Sight) -> Iterator[Value]:
    """The field of every subject that has it now."""
    if level.field in (LOW_USE, DROP):
        aliases = {f"devices/{s.info.uuid}": s.info.alias for s in sight.snapshot.samples}
        for subject, value in sight.trends.get(level.field, {}).items():
            yield subject, aliases.get(subject, ""), value
    elif level.noun == DEVICES:
        yield from _of_devices(level.field, sight)
    elif level.noun == NODE:
        yield from _of_node(level.field, sight)
    else:
        yield from _of_engines(level, sight)


def _of_devices(field: str, sight: Sight) -> Iterator[Value]:
    for sample in sight.snapshot.samples:
        uuid = sample.info.uuid
        value = _of_device(field, sample, sight.charges.get(uuid))
        yield f"devices/{uuid}", sample.info.alias, value


def is_beyond(level: Level, sample: Sample, charge: Charge | None) -> bool:
    """Whether a level of devices holds of this one; not for LOW_USE, which Trends tells."""
    value = _of_device(level.field, sample, charge)
    return value is not None and level.holds(value, fires=False)


def _of_device(field: str, sample: Sample, charge: Charge | None) -> float | None:
    """As in history's row; most of what is watched has a shorter way than the whole of it."""
    value: float | None
    if sample.health in (Health.LOST, Health.UNRESPONSIVE):
        value = None  # it shows an old reading
    elif field == "memory_used_percent":
        value = _used(sample)
    elif field in _CHARGED:
        value = getattr(charge, field, None)
    elif field in _READ:
        value = getattr(sample.readings, field)
    else:
        value = device_row(sample, charge)[_DEVICE_AT[field]]
    return value


def _of_node(field: str, sight: Sight) -> Iterator[Value]:
    if field == "certificate_days":
        state = sight.certificate
        if state is not None:
            ends = [state.not_after_wall, state.client_ca_not_after_wall]
            soonest = min(end for end in ends if end is not None)
            yield NODE, "", (soonest - sight.now.wall) / _DAY
        return
    host = sight.snapshot.host
    if field == "state_disk_free_percent":
        disks = [disk for disk in host.disks if disk.what == "state"]
        free = [disk.free_bytes / max(1, disk.total_bytes) * 100 for disk in disks]
        yield NODE, "", min(free, default=None)
    elif hasattr(host, field):
        yield NODE, "", getattr(host, field)
    else:
        yield NODE, "", host_row(host)[_HOST_AT[field]]


def _of_engines(level: Level, sight: Sight) -> Iterator[Value]:
    readings = [each for each in sight.engines.values() if not each.sleeping]
    at, rows = _ENGINE_AT[level.field], sight.engine_rows
    if level.noun == MODELS:
        heard = [each for each in readings if not each.problem]
        for model, row in model_rows(heard).items():
            asked = [each for each in heard if each.model == model]
            if _is_told(level.field, row[at], asked):
                yield f"models/{model}", "", row[at]
        return
    for each in readings:
        value = None if each.problem else rows[each.instance][at]
        if _is_told(level.field, value, (each,)):
            yield f"instances/{each.instance}", "", value


def _is_told(field: str, value: float | None, readings: Iterable[EngineReading]) -> bool:
    """Whether the engine's silence on it matters: an idle one has no latency to tell."""
    if value is not None or field not in _OF_REQUESTS:
        return True
    return any(each.problem for each in readings)
