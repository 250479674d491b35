"""Pure: one benchmark, as it was asked for, as it is told and as it is stored.

Spans are seconds, moments are wall seconds; None means unknown, or that there is no such thing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gpud.events import Cause, Event
from gpud.models.model import EngineKind, ModelOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be measured; `limit_seconds` bounds the whole run."""

    prompts: int = 32  # at each concurrency
    prompt_tokens: int = 128
    output_tokens: int = 64
    concurrency: tuple[int, ...] = (1,)  # one level after another
    warmup: int = 2
    drained: bool = False
    limit_seconds: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """Of spans, in seconds, by nearest rank."""

    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Requests that failed alike; `detail` is what the first of them was told."""

    kind: str
    count: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What was measured with so many requests at once. Rates are per second."""

    concurrency: int
    requests: int
    completed: int
    errors: tuple[Errors, ...]
    duration_seconds: float
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    time_to_first_token: Percentiles | None = None
    inter_token: Percentiles | None = None
    request_latency: Percentiles | None = None
    tokens_per_second: float | None = None
    request_tokens_per_second: float | None = None
    prompt_tokens_per_second: float | None = None
    prefill_tokens_per_second: float | None = None
    requests_per_second: float = 0.0

    @property
    def error_ratio(self) -> float:
        """Requests without a whole answer, of all that were sent."""
        return (self.requests - self.completed) / self.requests if self.requests else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a device showed at one moment of the run."""

    temperature_celsius: float | None = None
    utilization_percent: float | None = None
    power_watts: float | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRecord:
    """A device of the instance, as the run began and as it ended."""

    uuid: str
    alias: str
    start: Reading
    end: Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One run; `id` is empty until it is stored."""

    model: str  # id in the catalogue
    instance: str  # id
    owner: str
    engine: EngineKind
    options: ModelOptions
    plan: Plan
    create_wall: float
    id: str = ""
    engine_version: str = ""
    duration_seconds: float = 0.0
    served_others: bool | None = None
    levels: tuple[Level, ...] = ()
    devices: tuple[DeviceRecord, ...] = ()
    void_reasons: tuple[str, ...] = ()  # why it is not to be compared with others

    @property
    def name(self) -> str:
        """benchmarks/{id}; empty until it is stored."""
        return f"benchmarks/{self.id}" if self.id else ""

    def told(self, type_: str, reason: str, wall: float, cause: Cause | None) -> Event:
        """What the journal is told of it, with what was measured at each concurrency so far."""
        details = {"model": self.model, "concurrency": _listed(self.plan.concurrency)}
        if self.levels:
            details["tokens_per_second"] = _listed(_rate(each) for each in self.levels)
        if self.id:
            details["benchmark"] = self.name
        return Event(
            wall=wall,
            type=type_,
            subject=f"instances/{self.instance}",
            actor=self.owner,
            reason=reason,
            details=details,
            cause=cause,
        )


def _listed(values: Iterable[object]) -> str:
    return ",".join(map(str, values))


def _rate(level: Level) -> str:
    return "-" if level.tokens_per_second is None else f"{level.tokens_per_second:.1f}"
