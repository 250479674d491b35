"""Pure: instances, and what their engines' counters come to, on the native page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from operator import attrgetter
from typing import Any

from gpud.instances.instance import Instance, InstanceState
from gpud.telemetry.engines.reading import EngineReading, Latency
from gpud.telemetry.page.table import Column, Family, Number, Row, Table, counter, gauge, labelled

_STATES = tuple(InstanceState)
_LATENCIES = (
    ("time_to_first_token", "time to the first token"),
    ("inter_token", "time between tokens"),
    ("request", "time of whole requests"),
    ("queue", "time that requests wait in the engine's queue"),
    ("prefill", "time in which prompts are taken in"),
    ("decode", "time in which answers are generated"),
)
# Of a reading, told as it is: (field, column).
_PLAIN = (
    ("running", gauge("gpud_model_requests_running", "Requests in work.")),
    ("waiting", gauge("gpud_model_requests_waiting", "Requests that wait in the engine's queue.")),
    ("slots", gauge("gpud_model_slots", "Requests that can be in work at once.")),
    (
        "slots_full",
        gauge("gpud_model_slots_full", "Whether no slot is left for one more.", form="%d"),
    ),
    ("slots_busy", gauge("gpud_model_slots_busy", "Mean of the steps of the last minute.")),
    ("kv_used_ratio", gauge("gpud_model_kv_cache_used_ratio", "Share of the KV cache in use.")),
    (
        "generated_tokens_per_second",
        gauge("gpud_model_generated_tokens_per_second", "Over the last minute."),
    ),
    (
        "prompt_tokens_per_second",
        gauge("gpud_model_prompt_tokens_per_second", "Over the last minute."),
    ),
    ("requests_per_second", gauge("gpud_model_requests_per_second", "Over the last minute.")),
    ("error_ratio", gauge("gpud_model_error_ratio", "Share of requests that failed.")),
    (
        "cache_hit_ratio",
        gauge("gpud_model_cache_hit_ratio", "Share of prompt tokens found in the cache."),
    ),
    (
        "request_tokens_per_second",
        gauge("gpud_model_request_tokens_per_second", "Tokens as one request sees them come."),
    ),
    (
        "cached_tokens_total",
        counter("gpud_model_cached_tokens_total", "Prompt tokens found in the engine's cache."),
    ),
    (
        "preemptions_total",
        counter("gpud_model_preemptions_total", "Requests put back for want of KV cache."),
    ),
    ("generated_tokens_total", counter("gpud_model_generated_tokens_total", "Tokens generated.")),
    ("prompt_tokens_total", counter("gpud_model_prompt_tokens_total", "Prompt tokens taken in.")),
    ("requests_total", counter("gpud_model_requests_total", "Requests that ended.")),
    ("failed_total", counter("gpud_model_requests_failed_total", "Requests that failed.")),
    (
        "wall",
        gauge("gpud_model_read_timestamp_seconds", "When the engine's counters were last read."),
    ),
)
_RECORDED = (
    gauge("gpud_model_ready", "Whether the instance serves.", form="%d"),
    gauge("gpud_model_sleeping", "Whether it sleeps, sent or by itself.", form="%d"),
    gauge("gpud_model_load_duration_seconds", "From the load's start until it served."),
    counter("gpud_model_restarts_total", "How often its engine was started again."),
    gauge("gpud_model_footprint_bytes", "Bytes that it was promised."),
)
_plain = attrgetter(*(name for name, _ in _PLAIN))
_NOT_READ: Row = (None,) * len(_PLAIN)
# All but totals, and when these were read, is of the moment in which it was read.
_OF_A_MOMENT: dict[str, Any] = dict.fromkeys(
    [name for name, column in _PLAIN if column.family.kind == "gauge" and name != "wall"]
    + [name for name, _ in _LATENCIES]
)


class Engines:
    """The part of the page about instances."""

    def __init__(self) -> None:
        self._states = Table([gauge("gpud_instances", "Instances, by state.")])
        self._table = Table((*_RECORDED, *(column for _, column in _PLAIN)))
        self._latencies = Table(
            [
                Column(
                    family=Family(
                        name=f"gpud_model_{name}_{quantile}_seconds",
                        help=f"{quantile} of the {what}; source: the engine's own histogram over "
                        "the last minute, or our newest benchmark.",
                    )
                )
                for name, what in _LATENCIES
                for quantile in ("p50", "p99")
            ]
        )

    def render(
        self, instances: Iterable[Instance], readings: Mapping[str, EngineReading], label: str
    ) -> str:
        """Of each that has not ended. `label`: which label says what service one is for."""
        known = {id_: engine_now(each) for id_, each in readings.items()}
        states: Counter[InstanceState] = Counter()
        live: list[tuple[str, Instance, EngineReading | None]] = []
        for each in instances:
            states[each.state] += 1
            if not each.ended:
                seen = known.get(each.id)
                live.append((_labels(each, _service(seen, label)), each, seen))
        latencies = [part for labels, _, seen in live for part in _latencies(labels, seen)]
        return "".join(
            (
                self._states.render(_STATE_LABELS, [(states[state],) for state in _STATES]),
                self._table.render(
                    tuple(labels for labels, _, _ in live),
                    [(*_recorded(each, seen), *_read(seen)) for _, each, seen in live],
                ),
                self._latencies.render(
                    tuple(labels for labels, _ in latencies), [row for _, row in latencies]
                ),
            )
        )


def engine_now(seen: EngineReading) -> EngineReading:
    """The same; of an engine that could not be read again, only what outlasts its moment."""
    return replace(seen, **_OF_A_MOMENT) if seen.problem else seen


_STATE_LABELS = tuple(labelled(state=state.value) for state in _STATES)


def _service(seen: EngineReading | None, label: str) -> str:
    return seen.services.get(label, "") if seen is not None else ""


def _labels(instance: Instance, service: str) -> str:
    return _labels_of(instance.id, instance.model, instance.engine.value, service)


@lru_cache(maxsize=1024)
def _labels_of(id_: str, model: str, engine: str, service: str) -> str:
    # Not `instance`: Prometheus has that for what it scrapes.
    return labelled(instance_id=id_, model=model, engine=engine, service=service)


def _recorded(instance: Instance, seen: EngineReading | None) -> Row:
    footprint = instance.footprint
    return (
        instance.state is InstanceState.READY,
        instance.sleep is not None or (seen is not None and seen.sleeping),
        instance.load_seconds,
        instance.restarts,
        footprint.total_bytes if footprint is not None else None,
    )


def _read(seen: EngineReading | None) -> Row:
    row: Row = _plain(seen) if seen is not None else _NOT_READ
    # Of one that told nothing yet, the wall is when it was asked.
    return row if any(each is not None for each in row[:-1]) else _NOT_READ


def _latencies(labels: str, seen: EngineReading | None) -> list[tuple[str, Row]]:
    if seen is None:
        return []
    return by_source(labels, [getattr(seen, name) for name, _ in _LATENCIES])


def by_source(labels: str, spans: Sequence[Latency | None]) -> list[tuple[str, Row]]:
    """Median and p99 of each span, on one line for each source that there is."""
    return [
        (
            f'{labels},source="{source}"',
            [number for each in spans for number in _quantiles(each, source)],
        )
        for source in sorted({each.source for each in spans if each is not None})
    ]


def _quantiles(latency: Latency | None, source: str) -> tuple[Number, Number]:
    if latency is None or latency.source != source:
        return None, None
    return latency.p50_seconds, latency.p99_seconds
