"""Pure: what an instance's engine counts, as columns."""

from __future__ import annotations

from gpuctl.messages import known, seconds_of
from gpuctl.tables import Column
from gpuctl.units import UNKNOWN, span_text
from gpud.v1.instances_pb2 import Instance, Latency


def requests_text(instance: Instance) -> str:
    """Served at once of so many, and those that wait: `2/4`, `4/4 full`, `4/4 full, 3 wait`."""
    metrics = instance.metrics
    running, slots = known(metrics, "requests_running"), known(metrics, "slots")
    waiting = known(metrics, "requests_waiting")
    if running is None:
        return UNKNOWN
    text = str(running) if slots is None else f"{running}/{slots}"
    full = " full" if known(metrics, "slots_full") else ""
    return f"{text}{full}" + (f", {waiting} wait" if waiting else "")


def _rate(instance: Instance, field: str) -> str:
    value = known(instance.metrics, field)
    return UNKNOWN if value is None else f"{value:.1f}"


def _percent(instance: Instance, field: str, scale: float) -> str:
    value = known(instance.metrics, field)
    return UNKNOWN if value is None else f"{value * scale:.3g}%"


def latency_text(latency: Latency) -> str:
    """The median and the 99th percentile, `35ms/120ms`; `(bench)` where a benchmark measured."""
    told = (latency.p50, latency.p99)
    present = (latency.HasField("p50"), latency.HasField("p99"))
    if not any(present):
        return UNKNOWN
    texts = (
        span_text(seconds_of(span)) if is_there else UNKNOWN
        for span, is_there in zip(told, present, strict=True)
    )
    mark = " (bench)" if latency.source == "benchmark" else ""
    return "/".join(texts) + mark


REQUESTS: Column[Instance] = Column(header="REQUESTS", cell=requests_text, right=True)
METRIC_COLUMNS: tuple[Column[Instance], ...] = (
    Column(
        header="TOKENS/S 1M",
        cell=lambda i: _rate(i, "generated_tokens_per_second"),
        right=True,
        wide=True,
    ),
    Column(
        header="REQUESTS/S",
        cell=lambda i: _rate(i, "requests_per_second"),
        right=True,
        wide=True,
    ),
    Column(
        header="1ST TOKEN",
        cell=lambda i: latency_text(i.metrics.time_to_first_token),
        right=True,
        wide=True,
    ),
    Column(
        header="LATENCY", cell=lambda i: latency_text(i.metrics.request), right=True, wide=True
    ),
    Column(header="ERRORS", cell=lambda i: _percent(i, "error_ratio", 100), right=True, wide=True),
    Column(
        header="CACHED", cell=lambda i: _percent(i, "cache_hit_ratio", 100), right=True, wide=True
    ),
    Column(header="KV", cell=lambda i: _percent(i, "kv_used_percent", 1), right=True, wide=True),
    Column(header="SERVICE", cell=lambda i: i.metrics.service, wide=True),
)
