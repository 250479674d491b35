"""Pure: what vLLM counts, in versions old and new; what one does not tell stays None.

Each engine core and each model has series of its own, which are summed. Names and their meanings
are those of vllm/v1/metrics/loggers.py; requests that were answered with an error are also told by
prometheus-fastapi-instrumentator, beneath its HTTP server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gpud.engines.counting.counters import Counters, at_once, counted, share, summed
from gpud.engines.counting.exposition import Exposition, Histogram, of_histograms, read
from gpud.engines.engine import Pulse, Warmth

_RUNNING: Final = "vllm:num_requests_running"
_WAITING: Final = "vllm:num_requests_waiting"
_SLEEP: Final = "vllm:engine_sleep_state"
_CACHE: Final = "vllm:cache_config_info"
_GENERATED: Final = "vllm:generation_tokens_total"
_PROMPT: Final = "vllm:prompt_tokens_total"
_FINISHED: Final = "vllm:request_success_total"
_REJECTED: Final = "vllm:admission_rejections_total"
_HTTP: Final = "http_requests_total"
_QUERIES: Final = "vllm:prefix_cache_queries_total"
_HITS: Final = "vllm:prefix_cache_hits_total"
_PREEMPTIONS: Final = "vllm:num_preemptions_total"
# The newest name first: one version has both, and they are the same.
_KV_USED: Final = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
_TTFT: Final = "vllm:time_to_first_token_seconds"
_INTER_TOKEN: Final = (
    "vllm:inter_token_latency_seconds",
    "vllm:time_per_output_token_seconds",
    "vllm:request_time_per_output_token_seconds",
)
_REQUEST: Final = "vllm:e2e_request_latency_seconds"
_QUEUE: Final = ("vllm:request_queue_time_seconds", "vllm:time_in_queue_requests")
_PREFILL: Final = "vllm:request_prefill_time_seconds"
_DECODE: Final = "vllm:request_decode_time_seconds"
_STEPS: Final = "vllm:iteration_tokens_total"
# Tokens that went through a step, then those of prompts that were finished and those given. All of
# them only grow, so their sum does with any work that is done.
_WORK: Final = (f"{_STEPS}_sum", _GENERATED, _PROMPT)
_NAMES: Final = frozenset(
    {_RUNNING, _WAITING, _SLEEP, _CACHE, _GENERATED, _PROMPT, _FINISHED, _REJECTED, _HTTP}
    | {_QUERIES, _HITS, _PREEMPTIONS, *_KV_USED}
    | set(of_histograms(_TTFT, *_INTER_TOKEN, _REQUEST, *_QUEUE, _PREFILL, _DECODE, _STEPS))
)


def counters(metrics: str) -> Counters:
    """From the text of /metrics."""
    return _counters(read(metrics, _NAMES))


def _counters(told: Exposition) -> Counters:
    generated = counted(told.total(_GENERATED))
    requests, failed = _requests(told)
    return Counters(
        running=at_once(told.total(_RUNNING)),
        waiting=at_once(told.total(_WAITING)),
        kv_used_ratio=share(_kv_used(told)),
        generated_tokens=generated,
        given_tokens=generated,
        prompt_tokens=counted(told.total(_PROMPT)),
        cached_tokens=counted(told.total(_HITS)),
        looked_up_tokens=counted(told.total(_QUERIES)),
        requests=requests,
        failed=failed,
        preemptions=counted(told.total(_PREEMPTIONS)),
        steps=counted(told.total(f"{_STEPS}_count")),
        time_to_first_token=told.histogram(_TTFT),
        inter_token=_first(told, *_INTER_TOKEN),
        request=told.histogram(_REQUEST),
        queue=_first(told, *_QUEUE),
        prefill=told.histogram(_PREFILL),
        decode=told.histogram(_DECODE),
        is_cut=told.is_cut,
    )


def pulse(metrics: str) -> Pulse:
    """From the text of /metrics."""
    told = read(metrics, _NAMES)
    said = _counters(told)
    asleep = [
        value for marks, value in told.labelled(_SLEEP) if marks.get("sleep_state") == "awake"
    ]
    return Pulse(
        running=said.running,
        waiting=said.waiting,
        progress=summed(*(counted(told.total(name)) for name in _WORK)),
        completed=counted(told.total(_FINISHED)),
        tokens=said.generated_tokens,
        kv_used_fraction=_kv_used(told),
        sleeping=bool(asleep) and min(asleep) == 0,
        wakes_when_asked=False,
        counters=said,
    )


def _kv_used(told: Exposition) -> float | None:
    """Of the fullest core: there its next request waits. A ratio, whatever its name says."""
    return next((told.highest(name) for name in _KV_USED if name in told), None)


def _requests(told: Exposition) -> tuple[float | None, float | None]:
    """Requests that came to an end, and those of them that failed.

    One that a client gave up is no failure. A failure may show as an engine's, as its HTTP
    server's, or as both, so of the two the larger counts.
    """
    finished = told.labelled(_FINISHED)
    ours = [value for marks, value in finished if marks.get("finished_reason") == "error"]
    theirs = [
        value
        for marks, value in told.labelled(_HTTP)
        if marks.get("handler", "").startswith("/v1/") and marks.get("status", "")[:1] == "5"
    ]
    if not finished:
        return None, None
    turned_away = told.total(_REJECTED) or 0.0
    failed = max(sum(ours) + turned_away, sum(theirs))
    return counted(sum(value for _, value in finished) - sum(ours) + failed), counted(failed)


def _first(told: Exposition, *names: str) -> Histogram | None:
    return next((found for name in names if (found := told.histogram(name)) is not None), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Sums of all requests since the server started, for the difference of two moments."""

    first_tokens: float
    first_token_seconds: float
    later_tokens: float
    later_seconds: float


def speed(metrics: str) -> Speed | None:
    """From the text of /metrics; None where a build counts otherwise."""
    told = read(metrics, _NAMES)
    names = (_TTFT, _INTER_TOKEN[0])
    sums = [told.total(f"{name}_{part}") for name in names for part in ("count", "sum")]
    known = [value for value in sums if value is not None]
    if len(known) < len(sums):
        return None
    return Speed(
        first_tokens=known[0],
        first_token_seconds=known[1],
        later_tokens=known[2],
        later_seconds=known[3],
    )


def warmth(before: Speed | None, after: Speed | None) -> Warmth:
    """What the requests between two moments showed."""
    if before is None or after is None:
        return Warmth(tokens_per_second=None, time_to_first_token_seconds=None)
    seconds = after.later_seconds - before.later_seconds
    tokens = after.later_tokens - before.later_tokens
    firsts = after.first_tokens - before.first_tokens
    waited = after.first_token_seconds - before.first_token_seconds
    return Warmth(
        tokens_per_second=tokens / seconds if tokens > 0 and seconds > 0 else None,
        time_to_first_token_seconds=waited / firsts if firsts > 0 else None,
    )


def cache_config(metrics: str) -> dict[str, str]:
    """What it says of its cache; empty where it says nothing.

    Among it kv_cache_memory_bytes, kv_cache_size_tokens and block_size.
    """
    found = read(metrics, frozenset({_CACHE})).labelled(_CACHE)
    return found[0][0] if found else {}
