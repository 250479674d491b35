"""Pure: what an engine's counters come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Quantiles of a span, in seconds.

    `source`: the engine's own histogram over the last minute, or our newest benchmark of it.
    """

    p50_seconds: float | None
    p99_seconds: float | None
    source: Literal["engine", "benchmark"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReading:
    """One instance's engine at one moment; None: it does not tell.

    Rates are over the last minute; ratios 0..1; totals since its process started, prompt tokens as
    its engine counts them (llama-server: without those that its cache held). `services` are
    the labels of its model and reservation that say which service it is for. `problem` is why
    nothing newer could be read; the rest is then as it was at `boottime`. `doubt` is what of that
    which was read is left out, and why. With `counts_late` tokens were given, or may have
    been, that are counted only when their request ends: the rate of tokens is then of those ends.
    """

    instance: str  # bare ids
    model: str
    boottime: float
    wall: float
    services: Mapping[str, str] = field(default_factory=dict)
    running: int | None = None
    waiting: int | None = None
    slots: int | None = None
    slots_full: bool | None = None
    slots_busy: float | None = None  # the mean, of the steps of the last minute
    kv_used_ratio: float | None = None
    generated_tokens_per_second: float | None = None
    counts_late: bool = False
    prompt_tokens_per_second: float | None = None
    request_tokens_per_second: float | None = None  # as one request sees it while it is served
    prefill_tokens_per_second: float | None = None  # of one prompt while it is worked on
    requests_per_second: float | None = None
    error_ratio: float | None = None
    cache_hit_ratio: float | None = None
    generated_tokens_total: float | None = None
    prompt_tokens_total: float | None = None
    cached_tokens_total: float | None = None  # of prompts, held by its cache
    requests_total: float | None = None
    failed_total: float | None = None
    preemptions_total: float | None = None
    time_to_first_token: Latency | None = None
    inter_token: Latency | None = None
    request: Latency | None = None
    queue: Latency | None = None
    prefill: Latency | None = None
    decode: Latency | None = None
    load_seconds: float | None = None
    restarts: int = 0
    sleeping: bool = False
    problem: str = ""
    doubt: str = ""
