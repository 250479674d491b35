"""Pure: two benchmarks side by side, in percent of the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gpuctl.benching.tables import milliseconds_text, rate_text, span_of
from gpuctl.messages import known
from gpuctl.tables import Column, clean
from gpuctl.units import UNKNOWN
from gpud.v1.benchmarks_pb2 import Benchmark, BenchmarkLevel

_PERCENTILES = ("p50", "p90", "p99")
_SPANS = ("time_to_first_token", "inter_token", "request_latency")
_RATES = (
    "tokens_per_second",
    "request_tokens_per_second",
    "prompt_tokens_per_second",
    "prefill_tokens_per_second",
)
_ALWAYS = "requests_per_second"
_Measure = Callable[[BenchmarkLevel], float | None]
# What has to be alike for two to say something of each other.
_ASKED = ("model", "engine_version", "prompts", "prompt_tokens", "output_tokens", "drained")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One quantity at one concurrency; seconds, or per second. None: it was not measured."""

    concurrency: int
    quantity: str
    first: float | None
    second: float | None

    @property
    def percent(self) -> float | None:
        """By how much the second is more, in percent of the first."""
        if not self.first or self.second is None:
            return None
        return 100 * (self.second - self.first) / self.first

    def plain(self) -> dict[str, Any]:
        """For JSON; what is unknown is absent."""
        told = {
            "concurrency": self.concurrency,
            "quantity": self.quantity,
            "first": self.first,
            "second": self.second,
            "percent": self.percent,
        }
        return {name: value for name, value in told.items() if value is not None}


def differences(first: Benchmark, second: Benchmark) -> list[Difference]:
    """Of every concurrency that both have, every quantity that either has."""
    others = {level.concurrency: level for level in second.levels}
    found = [
        Difference(
            concurrency=level.concurrency,
            quantity=quantity,
            first=measure(level),
            second=measure(others[level.concurrency]),
        )
        for level in first.levels
        if level.concurrency in others
        for quantity, measure in _QUANTITIES
    ]
    return [each for each in found if (each.first, each.second) != (None, None)]


def caveats(first: Benchmark, second: Benchmark) -> Iterator[str]:
    """Why the difference may say nothing."""
    for name, each in (("A", first), ("B", second)):
        for reason in each.void_reasons:
            yield f"{name} is VOID: {clean(reason)}"
    for field in _ASKED:
        before, after = getattr(first, field), getattr(second, field)
        if before != after:
            yield clean(f"{field.replace('_', ' ')} differs: {before} and {after}")
    if not {level.concurrency for level in first.levels} & {
        level.concurrency for level in second.levels
    }:
        yield "they have no concurrency in common"


def _percent(difference: Difference) -> str:
    return UNKNOWN if difference.percent is None else f"{difference.percent:+.1f}%"


def _text(value: float | None, quantity: str) -> str:
    return rate_text(value) if quantity in {*_RATES, _ALWAYS} else milliseconds_text(value)


DIFFERENCE_COLUMNS: tuple[Column[Difference], ...] = (
    Column(header="N", cell=lambda d: str(d.concurrency), right=True),
    Column(header="QUANTITY", cell=lambda d: d.quantity.replace("_", " ")),
    Column(header="A", cell=lambda d: _text(d.first, d.quantity), right=True),
    Column(header="B", cell=lambda d: _text(d.second, d.quantity), right=True),
    Column(header="CHANGE", cell=_percent, right=True),
)


def _span(field: str, percentile: str) -> _Measure:
    return lambda level: span_of(level, field, percentile)


def _rate(field: str) -> _Measure:
    return lambda level: known(level, field)


def _measures() -> Iterator[tuple[str, _Measure]]:
    for field in _SPANS:
        for percentile in _PERCENTILES:
            yield f"{field}_{percentile}", _span(field, percentile)
    for field in _RATES:
        yield field, _rate(field)
    yield _ALWAYS, lambda level: level.requests_per_second


_QUANTITIES = tuple(_measures())
