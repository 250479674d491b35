"""Benchmarks to protobuf."""

from __future__ import annotations

from gpud.benchmarking.benchmark import (
    Benchmark,
    DeviceRecord,
    Level,
    Percentiles,
    Reading,
)
from gpud.benchmarking.run import Progress
from gpud.rpc import messages
from gpud.v1 import benchmarks_pb2 as pb


def progress(value: Progress) -> pb.BenchmarkModelResponse:
    """How far one is."""
    return pb.BenchmarkModelResponse(
        benchmark=benchmark(value.benchmark),
        phase=f"BENCHMARK_PHASE_{value.phase.name}",
        concurrency=value.concurrency,
        requests_done=value.requests_done,
        requests_total=value.requests_total,
        elapsed=messages.span(value.elapsed_seconds),
        detail=value.detail,
    )


def benchmark(value: Benchmark) -> pb.Benchmark:
    """One, as far as it is known."""
    plan = value.plan
    told = pb.Benchmark(
        name=value.name,
        model=f"models/{value.model}",
        instance=f"instances/{value.instance}",
        owner=value.owner,
        engine=f"ENGINE_{value.engine.name}",
        engine_version=value.engine_version,
        options=messages.options(value.options),
        create_time=messages.stamp(value.create_wall),
        duration=messages.span(value.duration_seconds),
        prompts=plan.prompts,
        prompt_tokens=plan.prompt_tokens,
        output_tokens=plan.output_tokens,
        warmup=plan.warmup,
        drained=plan.drained,
        levels=[_level(each) for each in value.levels],
        devices=[_device(each) for each in value.devices],
        void=bool(value.void_reasons),
        void_reasons=value.void_reasons,
    )
    if value.served_others is not None:
        told.served_others = value.served_others
    return told


def _level(value: Level) -> pb.BenchmarkLevel:
    return pb.BenchmarkLevel(
        concurrency=value.concurrency,
        requests=value.requests,
        completed=value.completed,
        errors=[
            pb.BenchmarkErrors(kind=each.kind, count=each.count, detail=each.detail)
            for each in value.errors
        ],
        error_ratio=value.error_ratio,
        duration=messages.span(value.duration_seconds),
        prompt_tokens=value.prompt_tokens,
        output_tokens=value.output_tokens,
        time_to_first_token=_percentiles(value.time_to_first_token),
        inter_token=_percentiles(value.inter_token),
        request_latency=_percentiles(value.request_latency),
        tokens_per_second=value.tokens_per_second,
        request_tokens_per_second=value.request_tokens_per_second,
        prompt_tokens_per_second=value.prompt_tokens_per_second,
        prefill_tokens_per_second=value.prefill_tokens_per_second,
        requests_per_second=value.requests_per_second,
    )


def _percentiles(value: Percentiles | None) -> pb.Percentiles | None:
    if value is None:
        return None
    return pb.Percentiles(
        p50=messages.span(value.p50), p90=messages.span(value.p90), p99=messages.span(value.p99)
    )


def _device(value: DeviceRecord) -> pb.BenchmarkDevice:
    return pb.BenchmarkDevice(
        device=f"devices/{value.uuid}",
        alias=value.alias,
        start=_reading(value.start),
        end=_reading(value.end),
    )


def _reading(value: Reading) -> pb.BenchmarkReading:
    return pb.BenchmarkReading(
        temperature_celsius=value.temperature_celsius,
        utilization_percent=value.utilization_percent,
        power_watts=value.power_watts,
        sm_clock_mhz=value.sm_clock_mhz,
        memory_clock_mhz=value.memory_clock_mhz,
    )
