"""What an instance may take of the host, and whether it was sent to sleep, as told."""

from __future__ import annotations

from gpud.instances.instance import Instance
from gpud.models.model import Limits
from gpud.rpc.messages import stamp
from gpud.v1 import instances_pb2


def add_life(message: instances_pb2.Instance, value: Instance) -> None:
    """Into the message; what was not said stays absent."""
    part = instances_pb2.Instance(
        limits_enforced=value.limits_enforced, options_ignored=value.options_ignored
    )
    if value.limits != Limits():
        part.limits.CopyFrom(
            instances_pb2.Limits(cpus=value.limits.cpus, memory_bytes=value.limits.memory_bytes)
        )
    if value.sleep is not None and not value.ended:
        part.sleeping = True
        part.sleep.CopyFrom(
            instances_pb2.Sleep(
                level=value.sleep.level,
                time=stamp(value.sleep.wall),
                actor=value.sleep.actor,
            )
        )
    message.MergeFrom(part)
