"""Pure: benchmarks as people read them, within 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from gpuctl.messages import known, seconds_of, word
from gpuctl.tables import Column, clean, moment_text
from gpuctl.units import UNKNOWN
from gpud.v1.benchmarks_pb2 import Benchmark, BenchmarkDevice, BenchmarkLevel, BenchmarkReading

_WIDTH = 80


def milliseconds_text(seconds: float | None) -> str:
    """`0.42ms`, `12.3ms`, `123ms`, `1.23s`: three digits that matter."""
    if seconds is None:
        return UNKNOWN
    value, unit = (seconds, "s") if seconds >= 0.9995 else (seconds * 1000, "ms")
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f}{unit}"


def rate_text(rate: float | None) -> str:
    """`0.52`, `12.3`, `1234`."""
    if rate is None:
        return UNKNOWN
    decimals = 2 if rate < 9.995 else 1 if rate < 99.95 else 0
    return f"{rate:.{decimals}f}"


def span_of(level: BenchmarkLevel, quantity: str, percentile: str) -> float | None:
    """Seconds of one of the percentiles; None where there is none."""
    if not level.HasField(quantity):
        return None
    return seconds_of(getattr(getattr(level, quantity), percentile))


def _span(
    header: str, quantity: str, percentile: str, *, wide: bool = False
) -> Column[BenchmarkLevel]:
    return Column(
        header=header,
        cell=lambda level: milliseconds_text(span_of(level, quantity, percentile)),
        right=True,
        wide=wide,
    )


def _rate(header: str, quantity: str, *, wide: bool = False) -> Column[BenchmarkLevel]:
    return Column(
        header=header,
        cell=lambda level: rate_text(known(level, quantity)),
        right=True,
        wide=wide,
    )


def _errors(level: BenchmarkLevel) -> str:
    return str(level.requests - level.completed)


_N: Column[BenchmarkLevel] = Column(
    header="N", cell=lambda level: str(level.concurrency), right=True
)
_ENDS: tuple[Column[BenchmarkLevel], ...] = (
    Column(header="REQ/S", cell=lambda level: rate_text(level.requests_per_second), right=True),
    Column(header="ERR", cell=_errors, right=True),
)
_STREAMED: tuple[Column[BenchmarkLevel], ...] = (
    _N,
    _span("TTFT", "time_to_first_token", "p50"),
    _span("P90", "time_to_first_token", "p90", wide=True),
    _span("P99", "time_to_first_token", "p99"),
    _span("TOKEN", "inter_token", "p50"),
    _span("P99", "inter_token", "p99"),
    _span("REQUEST", "request_latency", "p50"),
    _span("P99", "request_latency", "p99"),
    _rate("TOK/S", "tokens_per_second"),
    _rate("EACH", "request_tokens_per_second", wide=True),
    _rate("PROMPT/S", "prompt_tokens_per_second", wide=True),
    _rate("PREFILL/S", "prefill_tokens_per_second", wide=True),
    *_ENDS,
)
_WHOLE: tuple[Column[BenchmarkLevel], ...] = (
    _N,
    _span("REQUEST", "request_latency", "p50"),
    _span("P90", "request_latency", "p90"),
    _span("P99", "request_latency", "p99"),
    _rate("PROMPT/S", "prompt_tokens_per_second"),
    *_ENDS,
)


def level_columns(benchmark: Benchmark) -> tuple[Column[BenchmarkLevel], ...]:
    """Of what was streamed, or of what came whole."""
    streams = any(level.HasField("time_to_first_token") for level in benchmark.levels)
    return _STREAMED if streams or not benchmark.levels else _WHOLE


def _best(benchmark: Benchmark, quantity: str) -> float | None:
    found = (known(level, quantity) for level in benchmark.levels)
    return max((rate for rate in found if rate is not None), default=None)


def _first_token(benchmark: Benchmark) -> str:
    level = benchmark.levels[0] if benchmark.levels else BenchmarkLevel()
    return milliseconds_text(span_of(level, "time_to_first_token", "p50"))


def _verdict(benchmark: Benchmark) -> str:
    if benchmark.void:
        return "void"
    return "drained" if benchmark.drained else "live"


BENCHMARK_COLUMNS: tuple[Column[Benchmark], ...] = (
    Column(header="BENCHMARK", cell=lambda b: b.name.removeprefix("benchmarks/"), shrinks=True),
    Column(header="WHEN", cell=lambda b: moment_text(b.create_time)),
    Column(header="N", cell=lambda b: ",".join(str(level.concurrency) for level in b.levels)),
    Column(header="TTFT", cell=_first_token, right=True),
    Column(header="TOK/S", cell=lambda b: rate_text(_best(b, "tokens_per_second")), right=True),
    Column(
        header="PROMPT/S",
        cell=lambda b: rate_text(_best(b, "prompt_tokens_per_second")),
        right=True,
    ),
    Column(header="HOW", cell=_verdict),
    Column(header="INSTANCE", cell=lambda b: b.instance, wide=True),
    Column(header="ENGINE", cell=lambda b: f"{word(b, 'engine')} {b.engine_version}", wide=True),
    Column(header="OWNER", cell=lambda b: b.owner, wide=True),
)


def heading(benchmark: Benchmark) -> Iterator[str]:
    """What was measured, and how."""
    on = ", ".join(device.alias for device in benchmark.devices) or "no device"
    engine = f"{word(benchmark, 'engine').lower()} {benchmark.engine_version}".strip()
    asked = f"{benchmark.prompts} prompts of {benchmark.prompt_tokens} tokens at each N"
    if any(level.HasField("output_tokens") for level in benchmark.levels):
        asked += f", {benchmark.output_tokens} tokens each"
    name = benchmark.instance.removeprefix("instances/")
    yield from _wrapped(f"{name} on {on}, {engine}; {asked}")


def remarks(benchmark: Benchmark) -> Iterator[str]:
    """What to know before it is compared: others, heat, failures, and why it is void."""
    for level in benchmark.levels:
        for errors in level.errors:
            told = f": {errors.detail}" if errors.detail else ""
            failed = f"N={level.concurrency}: {errors.count} of {level.requests} failed"
            yield from _wrapped(f"{failed}, {errors.kind}{told}")
    yield from _wrapped(f"{'drained' if benchmark.drained else 'live'}; {_others(benchmark)}")
    for device in benchmark.devices:
        moved = _moved(device)
        if moved:
            yield from _wrapped(f"{device.alias}: {moved}")
    for reason in benchmark.void_reasons:
        yield from _wrapped(f"VOID: {reason}")
    if benchmark.name:
        yield f"kept as {benchmark.name.removeprefix('benchmarks/')}"


def _others(benchmark: Benchmark) -> str:
    served = known(benchmark, "served_others")
    if served is None:
        return "whether it served others meanwhile, its engine does not tell"
    return "it served others meanwhile" if served else "nobody else was served meanwhile"


_READINGS = (
    ("temperature_celsius", "°C"),
    ("sm_clock_mhz", "MHz"),
    ("power_watts", "W"),
    ("utilization_percent", "% used"),
)


def _moved(device: BenchmarkDevice) -> str:
    """`61 → 74 °C, 1911 → 1898 MHz`; what the device does not tell is left out."""

    def reading(of: BenchmarkReading, field: str) -> str:
        value = known(of, field)
        return UNKNOWN if value is None else f"{value:.0f}"

    found = ((reading(device.start, f), reading(device.end, f), unit) for f, unit in _READINGS)
    return ", ".join(
        f"{start} → {end} {unit}" for start, end, unit in found if {start, end} != {UNKNOWN}
    )


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(clean(text), _WIDTH, subsequent_indent="  ")
