"""Pure: from what each request showed to what is told of all of them."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gpud.benchmarking.benchmark import Errors, Level, Percentiles


def nearest_rank(ordered: Sequence[float], percent: float) -> float:
    """The smallest of the values that is no less than `percent` of them all.

    The method "nearest rank": always a value that was measured, never one between two. `ordered`
    rises and is not empty, 0 < percent <= 100.
    """
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def percentiles(values: Iterable[float]) -> Percentiles | None:
    """None of no values."""
    ordered = sorted(values)
    if not ordered:
        return None
    return Percentiles(
        p50=nearest_rank(ordered, 50),
        p90=nearest_rank(ordered, 90),
        p99=nearest_rank(ordered, 99),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One request that was answered to the end; moments on one clock, in seconds."""

    sent: float
    ended: float
    first: float | None = None  # its first token; None where nothing is streamed
    last: float | None = None
    gaps: Sequence[float] = ()  # between two pieces of its stream
    prompt_tokens: int | None = None
    output_tokens: int | None = None

    @property
    def latency(self) -> float:
        """To the end of its answer."""
        return self.ended - self.sent

    @property
    def to_first(self) -> float | None:
        """To its first token."""
        return None if self.first is None else self.first - self.sent

    @property
    def tokens_per_second(self) -> float | None:
        """From its first token to its last; None of fewer than two."""
        if self.first is None or self.last is None or (self.output_tokens or 0) < 2:
            return None
        span = self.last - self.first
        return ((self.output_tokens or 0) - 1) / span if span > 0 else None

    @property
    def prefill_tokens_per_second(self) -> float | None:
        """Its prompt over its time to the first token, waiting for a slot included."""
        if not self.prompt_tokens or not self.to_first:
            return None
        return self.prompt_tokens / self.to_first


@dataclass(slots=True)
class Tally:
    """The requests of one level as they end."""

    concurrency: int
    requests: int = 0
    timings: list[Timing] = field(default_factory=list)
    gaps: array[float] = field(default_factory=lambda: array("d"))
    failures: dict[str, tuple[int, str]] = field(default_factory=dict)  # by kind

    @property
    def ended(self) -> int:
        """Requests answered or failed."""
        return len(self.timings) + sum(count for count, _ in self.failures.values())

    def add(self, timing: Timing) -> None:
        """One that was answered to the end."""
        self.gaps.extend(timing.gaps)
        self.timings.append(timing)

    def fail(self, kind: str, detail: str, count: int = 1) -> None:
        """One that was not."""
        before, first = self.failures.get(kind, (0, detail))
        self.failures[kind] = (before + count, first)

    def level(self, duration_seconds: float) -> Level:
        """What they come to over the time that they took together."""
        timings, seconds = self.timings, max(duration_seconds, 1e-9)
        prompt = _sum(timing.prompt_tokens for timing in timings)
        output = _sum(timing.output_tokens for timing in timings)
        return Level(
            concurrency=self.concurrency,
            requests=self.requests,
            completed=len(timings),
            errors=tuple(
                Errors(kind=kind, count=count, detail=detail)
                for kind, (count, detail) in sorted(self.failures.items())
            ),
            duration_seconds=duration_seconds,
            prompt_tokens=prompt,
            output_tokens=output,
            time_to_first_token=percentiles(_known(timing.to_first for timing in timings)),
            inter_token=percentiles(self.gaps),
            request_latency=percentiles(timing.latency for timing in timings),
            tokens_per_second=output / seconds if output else None,
            request_tokens_per_second=_median(timing.tokens_per_second for timing in timings),
            prompt_tokens_per_second=prompt / seconds if prompt else None,
            prefill_tokens_per_second=_median(
                timing.prefill_tokens_per_second for timing in timings
            ),
            requests_per_second=len(timings) / seconds,
        )


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _median(values: Iterable[float | None]) -> float | None:
    ordered = sorted(_known(values))
    return nearest_rank(ordered, 50) if ordered else None


def _sum(counts: Iterable[int | None]) -> int | None:
    """None where one is unknown, or there are none: a sum of some would be no sum of all."""
    known: list[int] = []
    for count in counts:
        if count is None:
            return None
        known.append(count)
    return sum(known) if known else None
