"""How an instance's engine is, as told."""

from __future__ import annotations

from gpud.instances.health.vital import Signs, Verdict
from gpud.instances.instance import Instance, InstanceState
from gpud.rpc.messages import span, stamp
from gpud.v1 import instances_pb2


def add_health(message: instances_pb2.Instance, value: Instance, signs: Signs | None) -> None:
    """Into the message: its health, and when it will be unloaded or started again."""
    part = instances_pb2.Instance(pinned=value.pinned, idle_ttl=span(value.idle_ttl_seconds))
    if value.state is InstanceState.BACKOFF:
        retry = value.healing.retry
        part.MergeFrom(
            instances_pb2.Instance(
                retry_time=stamp(retry.wall) if retry is not None else None,
                health=instances_pb2.InstanceHealth(
                    reason=value.healing.cause, failures=len(value.healing.failures)
                ),
            )
        )
    elif value.state is InstanceState.READY and signs is not None:
        part.MergeFrom(_serving(value, signs))
    message.MergeFrom(part)


def _serving(value: Instance, signs: Signs) -> instances_pb2.Instance:
    """What a READY engine was heard to say."""
    used = signs.kv_used_fraction
    part = instances_pb2.Instance(
        last_progress_time=stamp(signs.last_progress_wall),
        tokens_per_second=signs.tokens_per_second,
        idle_deadline=stamp(signs.idle_deadline_wall),
        sleeping=signs.verdict is Verdict.SLEEPING,
        health=instances_pb2.InstanceHealth(
            verdict=f"HEALTH_VERDICT_{signs.verdict.name}",
            reason=signs.reason,
            requests_running=signs.running,
            requests_waiting=signs.waiting,
            kv_used_percent=None if used is None else 100 * used,
            failures=len(value.healing.failures),
        ),
    )
    if signs.busy is not None:
        part.busy = signs.busy
    if signs.ready is not None:
        part.health.ready = signs.ready
    return part
