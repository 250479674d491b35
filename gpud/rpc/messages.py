"""Values to protobuf and back; every request is checked here, field by field."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from gpud.access.identity import CALLER
from gpud.devices.snapshot import DeviceKind, Health, Sample, Snapshot
from gpud.enforcement.relations import Related
from gpud.errors import DeviceNotFound, OptionInvalid, Reconciling
from gpud.events import Event
from gpud.instances.instance import Instance, InstanceState
from gpud.ledger.admission.nothing import DeviceUnseen
from gpud.ledger.charge import Charge
from gpud.models.model import Footprint, ModelOptions
from gpud.rpc import reading_messages
from gpud.units import format_span
from gpud.v1 import (
    devices_pb2,
    instances_pb2,
    models_pb2,
    node_pb2,
    telemetry_pb2,
)

MAX_TEXT = 256
MAX_LABELS = 64
_MAX_WALL = 253402300799.0  # 9999-12-31, the last moment of a Timestamp


def stamp(wall: float | None) -> Timestamp | None:
    """A moment in wall seconds."""
    if wall is None or not 0 <= wall <= _MAX_WALL:
        return None
    nanos = round(wall * 1e9)
    return Timestamp(seconds=nanos // 10**9, nanos=nanos % 10**9)


def span(seconds: float | None) -> Duration | None:
    """A span in seconds."""
    if seconds is None:
        return None
    nanos = round(seconds * 1e9)
    return Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)


# Checking what came.


def checked_text(field: str, text: str, limit: int = MAX_TEXT) -> str:
    """Printable, bounded text. Raises OptionInvalid."""
    if len(text) > limit:
        raise OptionInvalid(field=field, problem=f"{len(text)} characters, at most {limit}")
    if not text.isprintable():
        raise OptionInvalid(field=field, problem="it holds characters that cannot be printed")
    return text


def acting_for(owner: str) -> str:
    """Whose doing a call is: its caller's, or whom an admin names. Raises OptionInvalid."""
    return CALLER.get().acting_for(checked_text("owner", owner))


def checked_name(field: str, text: str, collection: str) -> str:
    """The id of a resource name, its collection's prefix taken off. Raises OptionInvalid."""
    bare = checked_text(field, text).removeprefix(f"{collection}/")
    if not bare:
        raise OptionInvalid(field=field, problem=f"empty; write {collection}/ID")
    return bare


def checked_span(field: str, message: Message, low: float, high: float) -> float | None:
    """Seconds of a Duration field within bounds; None when absent. Raises OptionInvalid."""
    if not message.HasField(field):
        return None
    value: Duration = getattr(message, field)
    seconds = value.seconds + value.nanos / 1e9
    signs_differ = value.seconds * value.nanos < 0
    if signs_differ or abs(value.nanos) >= 10**9:
        raise OptionInvalid(
            field=field,
            problem=f"{value.seconds} s and {value.nanos} ns are no Duration: both have one sign, "
            "and there are fewer than 1e9 ns",
        )
    if not low <= seconds <= high:
        told, least, most = format_span(seconds), format_span(low), format_span(high)
        raise OptionInvalid(field=field, problem=f"{told} is not within {least} … {most}")
    return seconds


def checked_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Bounded, printable labels. Raises OptionInvalid."""
    if len(labels) > MAX_LABELS:
        raise OptionInvalid(field="labels", problem=f"{len(labels)} of them, at most {MAX_LABELS}")
    if "" in labels:
        raise OptionInvalid(field="labels", problem="a key is empty; write key=value")
    return {
        checked_text("labels", key, 63): checked_text(f"labels[{key}]", value)
        for key, value in sorted(labels.items())
    }


def checked_enum(field: str, number: int, values: Mapping[int, object]) -> None:
    """Refuse an enum number that this version does not know. Raises OptionInvalid."""
    if number not in values:
        raise OptionInvalid(field=field, problem=f"{number} is no value of it")


def checked_device(field: str, name: str, snapshot: Snapshot | None) -> Sample:
    """The sample of a device named by UUID, alias or devices/….

    Raises DeviceNotFound, OptionInvalid; Reconciling while it may only not have been sampled yet.
    """
    sample = snapshot.find(checked_text(field, name)) if snapshot is not None else None
    if sample is not None:
        return sample
    if snapshot is None or not snapshot.complete:
        raise Reconciling(waiting_for="the first sample of every device")
    if snapshot.trouble:
        raise DeviceUnseen(name=name, trouble=snapshot.trouble)
    raise DeviceNotFound(name=name)


def checked_devices(names: Iterable[str], snapshot: Snapshot | None) -> tuple[str, ...]:
    """UUIDs of devices named by UUID, alias or devices/….

    Raises DeviceNotFound, Reconciling, OptionInvalid.
    """
    found: list[str] = []
    for name in names:
        sample = checked_device("devices", name, snapshot)
        if sample.info.uuid in found:
            raise OptionInvalid(field="devices", problem=f"{name} is named twice")
        found.append(sample.info.uuid)
    return tuple(found)


def options_from(message: models_pb2.ModelOptions) -> ModelOptions:
    """Options as asked; None where absent. The engine checks their ranges."""
    said: dict[str, Any] = {field.name: value for field, value in message.ListFields()}
    if "tensor_split" in said:
        said["tensor_split"] = tuple(said["tensor_split"])
    return ModelOptions(**said)


def kind_from(number: int) -> DeviceKind | None:
    """A device kind; None for unspecified. Raises OptionInvalid."""
    checked_enum("kind", number, devices_pb2.DeviceKind.DESCRIPTOR.values_by_number)
    name = devices_pb2.DeviceKind.Name(number).removeprefix("DEVICE_KIND_")
    return None if number == 0 else DeviceKind[name]


# Telling what is.


def device(
    sample: Sample,
    terms: Charge | None,
    related: Iterable[Related] = (),
) -> devices_pb2.Device:
    """A device with its terms; `related` are its processes, where they are to be told."""
    info, readings = sample.info, sample.readings
    total, used = info.memory_total_bytes, readings.memory_used_bytes
    message = devices_pb2.Device(
        name=f"devices/{info.uuid}",
        alias=info.alias,
        index=info.index,
        kind=f"DEVICE_KIND_{info.kind.name}",
        model_name=info.model_name,
        memory_total_bytes=total,
        free_bytes=max(0, total - used) if total is not None and used is not None else None,
        health=f"DEVICE_HEALTH_{sample.health.name}",
        health_reason=sample.health_reason,
        compute_mode=(
            f"COMPUTE_MODE_{readings.compute_mode.upper()}" if readings.compute_mode else None
        ),
        parent=f"devices/{info.parent_uuid}" if info.parent_uuid else "",
        pci_bus_id=info.pci_bus_id,
        driver_version=info.driver_version,
        numa_node=info.numa_node,
        cpu_affinity=info.cpu_affinity,
        sample=_sample(sample, related),
        pressure=f"PRESSURE_{sample.pressure.name}" if sample.pressure else None,
        thermal=f"THERMAL_{sample.thermal.name}" if sample.thermal else None,
        memory_pressure_events=sample.pressure_events,
    )
    if readings.mig_enabled is not None:
        message.mig_enabled = readings.mig_enabled
    reading_messages.add_verdict(message, sample)
    if terms is not None:
        message.reserve_bytes = terms.reserve_bytes
        message.granted_bytes = terms.granted_bytes
        message.leaked_bytes = terms.leaked_bytes
    if terms is not None and sample.health is Health.HEALTHY:
        _set_known(message, "grantable_bytes", terms.grantable_bytes)
        _set_known(message, "foreign_bytes", terms.foreign_bytes)
        _set_known(message, "unattributed_bytes", terms.unattributed_bytes)
    return message


def _set_known(message: devices_pb2.Device, field: str, value: int | None) -> None:
    if value is not None:
        setattr(message, field, value)


def _sample(sample: Sample, related: Iterable[Related]) -> devices_pb2.Sample:
    return devices_pb2.Sample(
        time=stamp(sample.wall) if sample.was_read else None,
        processes_time=stamp(sample.listed_wall),
        processes=[process(each) for each in related],
        **reading_messages.readings(sample.readings),
    )


def process(value: Related) -> devices_pb2.DeviceProcess:
    """A process on a device, and what it is to the promises there."""
    return devices_pb2.DeviceProcess(
        pid=value.process.pid,
        process_name=value.process.process_name,
        used_bytes=value.process.used_bytes,
        kind=f"PROCESS_KIND_{value.process.kind.name}",
        reservation=f"reservations/{value.reservation}" if value.reservation else "",
        relation=f"PROCESS_RELATION_{value.relation.name}",
    )


def snapshot(
    value: Snapshot, devices: list[devices_pb2.Device], dropped_count: int
) -> telemetry_pb2.Snapshot:
    """All devices at one moment."""
    return telemetry_pb2.Snapshot(
        sequence=value.sequence,
        time=stamp(value.wall),
        devices=devices,
        host=reading_messages.host(value.host),
        dropped_count=dropped_count,
    )


def event(value: Event) -> node_pb2.Event:
    """An event of the journal."""
    cause = value.cause
    return node_pb2.Event(
        sequence=value.sequence,
        time=stamp(value.wall),
        type=value.type,
        subject=value.subject,
        actor=value.actor,
        reason=value.reason,
        details=dict(value.details),
        method=cause.method if cause is not None else "",
        request_id=cause.request_id if cause is not None else "",
        caller=cause.caller if cause is not None else "",
    )


def footprint(value: Footprint) -> models_pb2.Footprint:
    """The itemised bytes of a load."""
    return models_pb2.Footprint(
        items=[
            models_pb2.FootprintItem(
                what=f"FOOTPRINT_WHAT_{item.what.name}",
                bytes=item.bytes,
                source=item.source,
            )
            for item in value.items
        ],
        total_bytes=value.total_bytes,
        margin_bytes=value.margin_bytes,
        confidence=f"CONFIDENCE_{value.confidence.name}",
        past_error=value.past_error,
        past_error_of=value.past_of,
        device=f"devices/{value.device_uuid}" if value.device_uuid else "",
    )


def options(value: ModelOptions) -> models_pb2.ModelOptions:
    """Options; absent where unsaid."""
    return models_pb2.ModelOptions(
        **{name: getattr(value, name) for name in ModelOptions.__dataclass_fields__}
    )


def instance(value: Instance, terms: Mapping[str, Charge]) -> instances_pb2.Instance:
    """An instance with what its processes use now."""
    id_ = value.reservation or ""
    observed = [
        terms[uuid].observed_bytes[id_]
        for uuid in value.devices
        if uuid in terms and id_ in terms[uuid].observed_bytes
    ]
    message = instances_pb2.Instance(
        name=value.name,
        model=f"models/{value.model}",
        engine=f"ENGINE_{value.engine.name}",
        state=f"INSTANCE_STATE_{value.state.name}",
        reservation=f"reservations/{value.reservation}" if value.reservation else "",
        endpoint=value.endpoint,
        endpoint_needs_key=value.endpoint_needs_key,
        pid=value.pid if not value.ended else None,
        devices=[f"devices/{uuid}" for uuid in value.devices],
        footprint=footprint(value.footprint) if value.footprint is not None else None,
        measured_bytes=_measured(value, observed),
        load_duration=span(value.load_seconds),
        restarts=value.restarts,
        create_time=stamp(value.create_wall),
        ready_time=stamp(value.ready_wall),
        end_time=stamp(value.end_wall),
        options=options(value.options),
        phases=[
            instances_pb2.PhaseTiming(
                phase=f"LOAD_PHASE_{phase.name}",
                duration=span(seconds),
            )
            for phase, seconds in value.phase_seconds
        ],
        tokens_per_second=_finite(value.tokens_per_second),
        time_to_first_token=span(value.time_to_first_token_seconds),
        containment=value.containment,
        owner=value.owner,
        engine_bytes=value.engine_bytes,
        cpu_affinity=value.cpu_affinity,
        memory_node=value.memory_node,
        swap=value.swap,
    )
    _add_ends(message, value)
    return message


_SERVED = (InstanceState.READY, InstanceState.DRAINING, InstanceState.STOPPING)


def _measured(value: Instance, observed: list[int]) -> int | None:
    """By the devices' newest lists; until the first that knows it, by the engine's own account.

    A list may still show an engine that is gone, and the account is the newest one's only once it
    is READY.
    """
    if value.ended or value.state is InstanceState.BACKOFF:
        return None
    if observed:
        return sum(observed)
    return value.engine_bytes if value.state in _SERVED else None


def _add_ends(message: instances_pb2.Instance, value: Instance) -> None:
    if value.last_exit is not None:
        message.last_exit.CopyFrom(
            instances_pb2.ExitInfo(
                code=value.last_exit.code,
                signal=value.last_exit.signal,
                time=stamp(value.last_exit.wall),
                meaning=value.exit_meaning,
            )
        )
    if value.failure is not None:
        phase = value.failure.phase
        message.failure.CopyFrom(
            instances_pb2.Failure(
                reason=value.failure.reason,
                message=value.failure.message,
                phase=(f"LOAD_PHASE_{phase.name}" if phase else None),
            )
        )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
