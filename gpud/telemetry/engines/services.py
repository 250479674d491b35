"""Pure: what engines tell, by the service that they are for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from gpud.ledger.reservation import Reservation
from gpud.models.model import Model
from gpud.telemetry.engines.reading import EngineReading, Latency


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceReading:
    """The engines of one service together; None: none of them tells.

    What counts or flows is summed over those that tell. Ratios are weighed by what they are shares
    of; of a span each quantile is the worst of an engine.
    """

    service: str
    models: tuple[str, ...]  # bare ids, in order
    instances: tuple[str, ...]
    running: int | None = None
    waiting: int | None = None
    slots: int | None = None
    slots_full: bool | None = None  # of all of them: the next request waits wherever it goes
    kv_used_ratio: float | None = None  # of the fullest
    generated_tokens_per_second: float | None = None
    prompt_tokens_per_second: float | None = None
    requests_per_second: float | None = None
    error_ratio: float | None = None
    cache_hit_ratio: float | None = None
    generated_tokens_total: float | None = None
    prompt_tokens_total: float | None = None
    requests_total: float | None = None
    failed_total: float | None = None
    time_to_first_token: Latency | None = None
    inter_token: Latency | None = None
    request: Latency | None = None
    load_seconds: float | None = None  # of the slowest
    restarts: int = 0


def services_of(
    model: Model | None, reservations: Iterable[Reservation], label: str
) -> Mapping[str, str]:
    """Which service an instance is for: {label: service}, empty where nobody says.

    By the labels of its reservations, the nearest first, then by its model's.
    """
    for reservation in reservations:
        if reservation.request.labels.get(label):
            return {label: reservation.request.labels[label]}
    service = dict(model.labels).get(label) if model is not None else None
    return {label: service} if service else {}


def by_service(readings: Iterable[EngineReading], label: str) -> Mapping[str, ServiceReading]:
    """What is told of each service; engines of none are left out."""
    grouped: dict[str, list[EngineReading]] = {}
    for each in readings:
        service = each.services.get(label)
        if service:
            grouped.setdefault(service, []).append(each)
    return {service: _together(service, grouped[service]) for service in sorted(grouped)}


def _together(service: str, engines: list[EngineReading]) -> ServiceReading:
    full = [each.slots_full for each in engines if each.slots_full is not None]
    return ServiceReading(
        service=service,
        models=tuple(sorted({each.model for each in engines})),
        instances=tuple(sorted(each.instance for each in engines)),
        running=_count(engines, lambda each: each.running),
        waiting=_count(engines, lambda each: each.waiting),
        slots=_count(engines, lambda each: each.slots),
        slots_full=all(full) if full else None,
        kv_used_ratio=_most(engines, lambda each: each.kv_used_ratio),
        generated_tokens_per_second=_sum(engines, lambda each: each.generated_tokens_per_second),
        prompt_tokens_per_second=_sum(engines, lambda each: each.prompt_tokens_per_second),
        requests_per_second=_sum(engines, lambda each: each.requests_per_second),
        error_ratio=_mean((each.error_ratio, each.requests_per_second or 0.0) for each in engines),
        cache_hit_ratio=_mean(
            (each.cache_hit_ratio, each.prompt_tokens_per_second or 0.0) for each in engines
        ),
        generated_tokens_total=_sum(engines, lambda each: each.generated_tokens_total),
        prompt_tokens_total=_sum(engines, lambda each: each.prompt_tokens_total),
        requests_total=_sum(engines, lambda each: each.requests_total),
        failed_total=_sum(engines, lambda each: each.failed_total),
        time_to_first_token=_worst([each.time_to_first_token for each in engines]),
        inter_token=_worst([each.inter_token for each in engines]),
        request=_worst([each.request for each in engines]),
        load_seconds=_most(engines, lambda each: each.load_seconds),
        restarts=sum(each.restarts for each in engines),
    )


Told = Callable[[EngineReading], float | None]


def _known(engines: list[EngineReading], told: Told) -> list[float]:
    return [value for each in engines if (value := told(each)) is not None]


def _sum(engines: list[EngineReading], told: Told) -> float | None:
    known = _known(engines, told)
    return sum(known) if known else None


def _count(engines: list[EngineReading], told: Told) -> int | None:
    found = _sum(engines, told)
    return None if found is None else round(found)


def _most(engines: list[EngineReading], told: Told) -> float | None:
    return max(_known(engines, told), default=None)


def _mean(weighed: Iterable[tuple[float | None, float]]) -> float | None:
    """By weight; evenly where nothing weighs anything."""
    known = [(value, weight) for value, weight in weighed if value is not None]
    whole = sum(weight for _, weight in known)
    if not known:
        return None
    if whole <= 0:
        return sum(value for value, _ in known) / len(known)
    return sum(value * weight for value, weight in known) / whole


def _worst(spans: list[Latency | None]) -> Latency | None:
    """Measured by engines where any of them does, else by benchmarks: the two are not mixed."""
    known = [each for each in spans if each is not None]
    own = [each for each in known if each.source == "engine"] or known
    if not own:
        return None
    p50 = [each.p50_seconds for each in own if each.p50_seconds is not None]
    p99 = [each.p99_seconds for each in own if each.p99_seconds is not None]
    return Latency(
        p50_seconds=max(p50, default=None),
        p99_seconds=max(p99, default=None),
        source=own[0].source,
    )
