"""Pure: what a server counts, by the names of metrics that its entry gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

from gpud.engines.counting.counters import Counters, at_once, counted, share
from gpud.engines.counting.exposition import Exposition, of_histograms, read
from gpud.engines.engine import Pulse

T = TypeVar("T")
# What an entry may name: numbers, and histograms of spans in seconds.
NUMBERS: Final = (
    "running",
    "waiting",
    "progress",
    "completed",
    "tokens",
    "failed",
    "prompt_tokens",
    "cached_tokens",
    "slots",
    "kv_used",
)
HISTOGRAMS: Final = ("time_to_first_token", "inter_token", "request")


def pulse(text: str, named: Iterable[tuple[str, str]]) -> Pulse:
    """What these counters tell, each named by its metric; None what the text does not hold."""
    names = dict(named)
    told = _read(text, names)
    said = _counters(told, names)
    return Pulse(
        running=said.running,
        waiting=said.waiting,
        progress=_number(told, names, "progress"),
        completed=said.requests,
        tokens=said.generated_tokens,
        kv_used_fraction=said.kv_used_ratio,
        counters=said,
    )


def counters(text: str, named: Iterable[tuple[str, str]]) -> Counters:
    """The same, in the words of every engine."""
    names = dict(named)
    return _counters(_read(text, names), names)


def _counters(told: Exposition, names: Mapping[str, str]) -> Counters:
    senseless: list[str] = []

    def judged(field: str, judge: Callable[[float | None], T | None]) -> T | None:
        value = judge(_number(told, names, field))
        if value is None and field in names and told.mentions(names[field]):
            senseless.append(names[field])
        return value

    generated, prompt = judged("tokens", counted), judged("prompt_tokens", counted)
    cached = judged("cached_tokens", counted)
    return Counters(
        running=judged("running", at_once),
        waiting=judged("waiting", at_once),
        slots=judged("slots", at_once),
        kv_used_ratio=judged("kv_used", share),
        generated_tokens=generated,  # as they are given, or at the end: nobody says
        prompt_tokens=prompt,
        cached_tokens=cached,
        looked_up_tokens=None if cached is None else prompt,
        requests=judged("completed", counted),
        failed=judged("failed", counted),
        time_to_first_token=told.histogram(names.get("time_to_first_token", "")),
        inter_token=told.histogram(names.get("inter_token", "")),
        request=told.histogram(names.get("request", "")),
        is_cut=told.is_cut,
        senseless=tuple(senseless),
    )


def _read(text: str, names: Mapping[str, str]) -> Exposition:
    spans = (names[field] for field in HISTOGRAMS if field in names)
    return read(text, frozenset((*names.values(), *of_histograms(*spans))))


def _number(told: Exposition, names: Mapping[str, str], field: str) -> float | None:
    return told.total(names[field]) if field in names else None
