"""What devices and the host show, as messages; unknown stays absent."""

from __future__ import annotations

from typing import Any

from gpud.devices.snapshot import HostReadings, Readings, Sample
from gpud.devices.verdict.throttling import is_throttled
from gpud.devices.verdict.xids import meaning
from gpud.v1 import devices_pb2, telemetry_pb2

# Called the same in Sample and in Readings, with the same units.
_OF_SAMPLE = tuple(
    name
    for name in Readings.__struct_fields__
    if name in devices_pb2.Sample.DESCRIPTOR.fields_by_name and name != "throttle_reasons"
)
_OF_HOST = tuple(
    name
    for name in HostReadings.__slots__
    if name in telemetry_pb2.HostReadings.DESCRIPTOR.fields_by_name
    and name not in ("nodes", "disks")
)


def readings(value: Readings) -> dict[str, Any]:
    """The fields of a Sample message that are readings."""
    told: dict[str, Any] = {name: getattr(value, name) for name in _OF_SAMPLE}
    told["throttled"] = is_throttled(value.throttle_reasons)
    told["throttle_reasons"] = value.throttle_reasons or ()
    return told


def add_verdict(message: devices_pb2.Device, sample: Sample) -> None:
    """What is to be done about a device, and the errors that its driver reported."""
    verdict = sample.verdict
    name = f"SUGGESTED_ACTION_{verdict.action.name}"
    message.suggested_action = devices_pb2.SuggestedAction.Value(name)  # type: ignore[assignment]
    message.action_reason = verdict.reason
    for number, count in sorted((sample.xids or {}).items()):
        message.xids.add(xid=number, count=count, meaning=meaning(number))


def host(value: HostReadings) -> telemetry_pb2.HostReadings:
    """The host beside its devices."""
    return telemetry_pb2.HostReadings(
        **{name: getattr(value, name) for name in _OF_HOST},
        nodes=[
            telemetry_pb2.NodeMemory(
                node=node.node, total_bytes=node.total_bytes, free_bytes=node.free_bytes
            )
            for node in value.nodes
        ],
        disks=[
            telemetry_pb2.Disk(
                what=disk.what,
                path=disk.path,
                total_bytes=disk.total_bytes,
                free_bytes=disk.free_bytes,
                disk=disk.disk,
            )
            for disk in value.disks
        ],
    )
