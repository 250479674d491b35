"""What an engine counted, as told."""

from __future__ import annotations

from gpud.rpc.messages import span, stamp
from gpud.telemetry.engines.reading import EngineReading, Latency
from gpud.v1 import instances_pb2


def metrics(reading: EngineReading, label: str) -> instances_pb2.InstanceMetrics:
    """What was read last; what its engine does not tell stays absent."""
    used = reading.kv_used_ratio
    message = instances_pb2.InstanceMetrics(
        time=stamp(reading.wall),
        requests_running=reading.running,
        requests_waiting=reading.waiting,
        slots=reading.slots,
        slots_busy=reading.slots_busy,
        kv_used_percent=None if used is None else 100 * used,
        generated_tokens_per_second=reading.generated_tokens_per_second,
        prompt_tokens_per_second=reading.prompt_tokens_per_second,
        request_tokens_per_second=reading.request_tokens_per_second,
        prefill_tokens_per_second=reading.prefill_tokens_per_second,
        requests_per_second=reading.requests_per_second,
        error_ratio=reading.error_ratio,
        cache_hit_ratio=reading.cache_hit_ratio,
        generated_tokens_total=_whole(reading.generated_tokens_total),
        prompt_tokens_total=_whole(reading.prompt_tokens_total),
        cached_tokens_total=_whole(reading.cached_tokens_total),
        requests_total=_whole(reading.requests_total),
        failed_total=_whole(reading.failed_total),
        preemptions_total=_whole(reading.preemptions_total),
        time_to_first_token=_latency(reading.time_to_first_token),
        inter_token=_latency(reading.inter_token),
        request=_latency(reading.request),
        queue=_latency(reading.queue),
        prefill=_latency(reading.prefill),
        decode=_latency(reading.decode),
        problem=reading.problem or reading.doubt,
        service=reading.services.get(label, ""),
    )
    if reading.slots_full is not None:
        message.slots_full = reading.slots_full
    return message


def _whole(total: float | None) -> int | None:
    return None if total is None else round(total)


def _latency(told: Latency | None) -> instances_pb2.Latency | None:
    if told is None:
        return None
    return instances_pb2.Latency(
        p50=span(told.p50_seconds), p99=span(told.p99_seconds), source=told.source
    )
