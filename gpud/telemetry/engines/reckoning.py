"""Pure: from what an engine counted, and what is known of it beside, to what is told of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from operator import attrgetter

from gpud.benchmarking.benchmark import Benchmark, Level, Percentiles
from gpud.engines.counting.counters import Counters, given_between
from gpud.instances.instance import Instance
from gpud.telemetry.engines.reading import EngineReading, Latency
from gpud.telemetry.engines.series import Points, given_rate, observed, per, quantile, rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of an instance beside what its engine counts."""

    instance: Instance
    services: Mapping[str, str] = field(default_factory=dict)
    sleeping: bool = False
    measured: Level | None = None  # by our newest benchmark of it


def reading(points: Points, known: Known, wall: float) -> EngineReading:
    """What is told once the newest point was read, at that wall time. There is one at least."""
    instance, now = known.instance, points[-1].counters
    measured = known.measured
    return EngineReading(
        instance=instance.id,
        model=instance.model,
        boottime=points[-1].boottime,
        wall=wall,
        services=known.services,
        running=now.running,
        waiting=now.waiting,
        slots=slots(now, instance),
        slots_full=slots_full(now, instance),
        slots_busy=per(points, _SLOT_STEPS, _STEPS),
        kv_used_ratio=now.kv_used_ratio,
        generated_tokens_per_second=given_rate(points),
        counts_late=_counts_late(points),
        prompt_tokens_per_second=rate(points, _PROMPT),
        request_tokens_per_second=_request_speed(points),
        prefill_tokens_per_second=per(points, _PROMPT, _PROMPT_SECONDS),
        requests_per_second=rate(points, _REQUESTS),
        error_ratio=_at_most_one(per(points, _FAILED, _REQUESTS)),
        cache_hit_ratio=_at_most_one(per(points, _CACHED, _LOOKED_UP)),
        generated_tokens_total=now.generated_tokens,
        prompt_tokens_total=now.prompt_tokens,
        cached_tokens_total=now.cached_tokens,
        requests_total=now.requests,
        failed_total=now.failed,
        preemptions_total=now.preemptions,
        time_to_first_token=_latency(
            points, "time_to_first_token", measured.time_to_first_token if measured else None
        ),
        inter_token=_latency(points, "inter_token", measured.inter_token if measured else None),
        request=_latency(points, "request", measured.request_latency if measured else None),
        queue=_latency(points, "queue"),
        prefill=_latency(points, "prefill"),
        decode=_latency(points, "decode"),
        load_seconds=instance.load_seconds,
        restarts=instance.restarts,
        sleeping=known.sleeping,
        problem=problem_of(now),
        doubt=doubt_of(now),
    )


def unread(known: Known, boottime: float, wall: float, problem: str) -> EngineReading:
    """What is told of one that nothing was read of yet."""
    return EngineReading(
        instance=known.instance.id,
        model=known.instance.model,
        boottime=boottime,
        wall=wall,
        services=known.services,
        load_seconds=known.instance.load_seconds,
        restarts=known.instance.restarts,
        sleeping=known.sleeping,
        problem=problem,
    )


def slots(counters: Counters, instance: Instance) -> int | None:
    """How many requests it serves at once: as it says, else as it was started."""
    if counters.slots is not None:
        return counters.slots
    return instance.options.parallel or instance.options.max_num_seqs


def slots_full(counters: Counters, instance: Instance) -> bool | None:
    """Whether the next request has to wait for another's end."""
    if counters.slots_full is not None:
        return counters.slots_full
    there = slots(counters, instance)
    if there is None or counters.running is None:
        return None
    return counters.running >= there


def problem_of(counters: Counters) -> str:
    """Why nothing was read of what it told; empty: something was."""
    if not counters.is_blank:
        return ""
    return (
        doubt_of(counters) or "its metrics hold none of the counters that are known of its engine"
    )


def doubt_of(counters: Counters) -> str:
    """What of it is left out; empty: nothing."""
    if counters.senseless:
        names = ", ".join(counters.senseless)
        return f"it tells what no server can have counted: {names}"
    return "it tells more metrics than are read" if counters.is_cut else ""


def newest_of(instance: Instance, benchmarks: Iterable[Benchmark]) -> Level | None:
    """What the newest run measured of the same model, options and devices: its quietest level.

    A run that something spoiled is none; `benchmarks` are oldest first.
    """
    found = None
    for each in benchmarks:
        is_same = (each.model, each.engine, each.options) == (
            instance.model,
            instance.engine,
            instance.options,
        )
        where = {device.uuid for device in each.devices}
        if is_same and not each.void_reasons and where == set(instance.devices):
            found = each
    levels = found.levels if found is not None else ()
    return min(levels, key=lambda level: level.concurrency, default=None)


def _counts_late(points: Points) -> bool:
    return any(_gave_unseen(before.counters, after.counters) for before, after in pairwise(points))


def _gave_unseen(before: Counters, after: Counters) -> bool:
    """Whether nothing was counted where something may have been given: no step is no token."""
    if after.given_tokens is not None or not (before.running and after.running):
        return False
    has_rested = before.steps is not None and before.steps == after.steps
    return not has_rested and given_between(before, after) == 0


def _latency(points: Points, name: str, measured: Percentiles | None = None) -> Latency | None:
    """Of the last minute; where its engine has no such histogram, as it was last measured."""
    spans = attrgetter(name)
    if spans(points[-1].counters) is None:
        if measured is None:
            return None
        return Latency(p50_seconds=measured.p50, p99_seconds=measured.p99, source="benchmark")
    seen = observed(points, spans)
    if seen is None:
        return None
    return Latency(
        p50_seconds=quantile(seen, 0.50), p99_seconds=quantile(seen, 0.99), source="engine"
    )


def _request_speed(points: Points) -> float | None:
    """Tokens that one request is given in a second, by the pauses between them."""
    pauses = observed(points, lambda counters: counters.inter_token)
    if pauses is not None and pauses.sum is not None and pauses.sum > 0:
        return pauses.count / pauses.sum
    return per(points, _GENERATED, _GENERATION_SECONDS)


def _at_most_one(value: float | None) -> float | None:
    return None if value is None else min(1.0, value)


_GENERATED = attrgetter("generated_tokens")
_GENERATION_SECONDS = attrgetter("generation_seconds")
_PROMPT = attrgetter("prompt_tokens")
_PROMPT_SECONDS = attrgetter("prompt_seconds")
_CACHED = attrgetter("cached_tokens")
_LOOKED_UP = attrgetter("looked_up_tokens")
_REQUESTS = attrgetter("requests")
_FAILED = attrgetter("failed")
_STEPS = attrgetter("steps")
_SLOT_STEPS = attrgetter("slot_steps")
