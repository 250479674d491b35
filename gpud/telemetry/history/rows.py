"""Pure: what a device, the host or an engine showed at one moment, as a row of values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from operator import attrgetter
from typing import Any, Final

from gpud.devices.snapshot import HostReadings, Sample
from gpud.devices.verdict.throttling import is_throttled
from gpud.ledger.charge import Charge
from gpud.telemetry.engines.reading import EngineReading, Latency
from gpud.telemetry.history.blocks import Row, Value
from gpud.telemetry.history.fields import DEVICE, ENGINE, HOST, READ, Field

DEVICE_NUMBERS: Final = tuple(field.number for field in DEVICE)
HOST_NUMBERS: Final = tuple(field.number for field in HOST)
ENGINE_NUMBERS: Final = tuple(field.number for field in ENGINE)
_DISKS: Final = ("state", "models")
_OF_ONE_REQUEST: Final = {"request_tokens_per_second", "prefill_tokens_per_second"}

_read: Callable[[Any], Row] = attrgetter(*(field.name for field in READ))
_host: Callable[[Any], Row] = attrgetter(*(field.name for field in HOST[: -len(_DISKS)]))
_charged: Callable[[Any], Row] = attrgetter(
    "foreign_bytes", "unattributed_bytes", "leaked_bytes", "grantable_bytes"
)
_NO_CHARGE: Final = (None,) * 7


def device_row(sample: Sample, charge: Charge | None) -> Row:
    """A device; `charge` is what its bytes are promised and taken for."""
    xids = sample.xids
    judged = (
        sample.pressure,
        sample.thermal,
        is_throttled(sample.readings.throttle_reasons),
        None if xids is None else sum(xids.values()),
    )
    if charge is None:
        return (*_read(sample.readings), *judged, *_NO_CHARGE)
    observed = sum(charge.observed_bytes.values()) if sample.processes is not None else None
    promised = (charge.granted_bytes, charge.charged_bytes, observed)
    return (*_read(sample.readings), *judged, *promised, *_charged(charge))


def rests(before: Sample, sample: Sample) -> bool:
    """Whether a sample shows what the one before did, as far as that is told at a glance.

    What is made of either alone, but for its age, is then the same; so is the row.
    """
    return (
        sample.readings is before.readings
        and sample.health is before.health
        and sample.verdict is before.verdict
        and sample.pressure is before.pressure
        and sample.thermal is before.thermal
        and sample.xids is before.xids
        and (sample.processes is None) is (before.processes is None)
        and sample.info is before.info
    )


def host_row(host: HostReadings) -> Row:
    """The host beside its devices; of several folders of models the disk with the least room."""
    free = (
        min((disk.free_bytes for disk in host.disks if disk.what == what), default=None)
        for what in _DISKS
    )
    return (*_host(host), *free)


def engine_row(seen: EngineReading) -> Row:
    """An engine. Latencies are its own: what our benchmark once measured is no reading."""
    ratio = seen.kv_used_ratio
    told = (
        seen.running,
        seen.waiting,
        seen.slots,
        seen.slots_full,
        None if ratio is None else ratio * 100,
        seen.generated_tokens_per_second,
        seen.prompt_tokens_per_second,
        seen.requests_per_second,
        seen.error_ratio,
        seen.cache_hit_ratio,
        seen.generated_tokens_total,
        seen.prompt_tokens_total,
        seen.requests_total,
        seen.failed_total,
        *_quantiles(seen.time_to_first_token),
        *_quantiles(seen.inter_token),
        *_quantiles(seen.request),
        seen.load_seconds,
        seen.restarts,
        seen.slots_busy,
        seen.request_tokens_per_second,
        seen.prefill_tokens_per_second,
        seen.cached_tokens_total,
        seen.preemptions_total,
        *_quantiles(seen.queue),
        *_quantiles(seen.prefill),
        *_quantiles(seen.decode),
    )
    return tuple(None if value is None or not isfinite(value) else value for value in told)


def model_rows(seen: Iterable[EngineReading]) -> Mapping[str, Row]:
    """By model: what its instances come to together.

    What counts or flows is summed; of shares, and of what one request is given, it is the mean, of
    spans and flags the worst.
    """
    by_model: dict[str, list[Row]] = {}
    for each in seen:
        by_model.setdefault(each.model, []).append(engine_row(each))
    return {
        model: rows[0] if len(rows) == 1 else _together(rows) for model, rows in by_model.items()
    }


def _quantiles(latency: Latency | None) -> tuple[Value, Value]:
    if latency is None or latency.source != "engine":
        return None, None
    return latency.p50_seconds, latency.p99_seconds


def _together(rows: list[Row]) -> Row:
    columns = zip(ENGINE, zip(*rows, strict=True), strict=True)
    return tuple(_combined(field, values) for field, values in columns)


def _combined(field: Field, values: tuple[Value, ...]) -> Value:
    known = [value for value in values if value is not None]
    if not known:
        return None
    if field.unit in {"percent", "ratio"} or field.name in _OF_ONE_REQUEST:
        return sum(known) / len(known)
    return max(known) if field.unit in {"seconds", ""} else sum(known)
