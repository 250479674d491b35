"""Reservations to protobuf and back; every field of a request is checked here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from google.protobuf.timestamp_pb2 import Timestamp

from gpud.access.identity import CALLER
from gpud.devices.snapshot import DeviceKind, Health, Sample, Snapshot
from gpud.enforcement.relations import belonging
from gpud.errors import OptionInvalid
from gpud.ledger.admission.explain import DeviceExplanation, Explanation, Holder
from gpud.ledger.charge import Charge
from gpud.ledger.reservation import (
    DEFAULT_TTL_SECONDS,
    MAX_TTL_SECONDS,
    MIN_TTL_SECONDS,
    Attachment,
    Deadline,
    Enforcement,
    Notice,
    Placement,
    Priority,
    Reservation,
    ReserveRequest,
    Shape,
    Sharing,
)
from gpud.promises.places import Place
from gpud.rpc import messages
from gpud.units import format_size
from gpud.v1 import reservations_pb2 as pb

MAX_DEVICES = 64
MAX_BYTES = 2**62
MAX_ALTERNATIVES = 16
MAX_WAIT_SECONDS = MAX_TTL_SECONDS
MAX_NUMA_NODE = 1023

# Reserve and Explain have the same fields.
Request = pb.ReserveRequest | pb.ExplainRequest


def request_from(request: Request, snapshot: Snapshot | None) -> ReserveRequest:
    """What is asked. Raises OptionInvalid, DeviceNotFound, Reconciling."""
    shape = _shape_from("", request, snapshot)
    caller = CALLER.get()
    owner = caller.acting_for(messages.checked_text("owner", request.owner))
    if len(request.alternatives) > MAX_ALTERNATIVES:
        raise OptionInvalid(
            field="alternatives",
            problem=f"{len(request.alternatives)} of them, at most {MAX_ALTERNATIVES}",
        )
    ttl = messages.checked_span("ttl", request, MIN_TTL_SECONDS, MAX_TTL_SECONDS)
    wait = messages.checked_span("max_wait", request, 0.0, MAX_WAIT_SECONDS)
    asked = ReserveRequest(
        owner=owner,
        asked_by="" if owner == caller.person else caller.person,
        bytes=shape.bytes,
        devices=shape.devices,
        device_count=shape.device_count,
        device_kind=shape.device_kind,
        alternatives=tuple(
            _shape_from(f"alternatives[{at}].", each, snapshot)
            for at, each in enumerate(request.alternatives)
        ),
        sharing=sharing_from(request.sharing),
        placement=_placement(request.placement),
        numa_node=_numa_node(request),
        priority=priority_from(request.priority),
        preemptible=request.preemptible,
        ttl_seconds=DEFAULT_TTL_SECONDS if ttl is None else ttl,
        max_wait_seconds=wait or 0.0,
        host_bytes=_host_bytes(request.host_bytes, snapshot),
        require_enforcement=_enforcement(request.require_enforcement),
        labels=messages.checked_labels(request.labels),
    )
    needs_exclusive = asked.require_enforcement is Enforcement.DRIVER
    if needs_exclusive and not asked.exclusive:
        raise OptionInvalid(
            field="require_enforcement",
            problem="a driver keeps others off whole devices only; ask for SHARING_EXCLUSIVE too",
        )
    return asked


def priority_from(number: int) -> Priority:
    """NORMAL where it is not said. Raises OptionInvalid."""
    messages.checked_enum("priority", number, pb.Priority.DESCRIPTOR.values_by_number)
    return Priority(number) if number else Priority.NORMAL


def sharing_from(number: int) -> Sharing:
    """SHARED where it is not said. Raises OptionInvalid."""
    messages.checked_enum("sharing", number, pb.Sharing.DESCRIPTOR.values_by_number)
    return Sharing.EXCLUSIVE if number == pb.SHARING_EXCLUSIVE else Sharing.SHARED


def _placement(number: int) -> Placement:
    messages.checked_enum("placement", number, pb.Placement.DESCRIPTOR.values_by_number)
    return Placement.SPREAD if number == pb.PLACEMENT_SPREAD else Placement.PACK


def _enforcement(number: int) -> Enforcement:
    values = pb.Enforcement.DESCRIPTOR.values_by_number
    messages.checked_enum("require_enforcement", number, values)
    return Enforcement.DRIVER if number == pb.ENFORCEMENT_DRIVER else Enforcement.LEDGER


def _numa_node(request: Request) -> int | None:
    if not request.HasField("numa_node"):
        return None
    if not 0 <= request.numa_node <= MAX_NUMA_NODE:
        raise OptionInvalid(
            field="numa_node", problem=f"{request.numa_node} is not within 0 … {MAX_NUMA_NODE}"
        )
    return request.numa_node


def _host_bytes(size: int, snapshot: Snapshot | None) -> int:
    if not 0 <= size <= MAX_BYTES:
        raise OptionInvalid(field="host_bytes", problem=f"{size} is not within 0 … {MAX_BYTES}")
    if size and snapshot is not None and snapshot.complete:
        kinds = {sample.info.kind for sample in snapshot.samples}
        if DeviceKind.HOST not in kinds:
            raise OptionInvalid(
                field="host_bytes",
                problem="the host's RAM is no device here (devices.host is off); leave it out",
            )
    return size


def _shape_from(prefix: str, message: Request | pb.Shape, snapshot: Snapshot | None) -> Shape:
    size = message.bytes
    if not 0 < size <= MAX_BYTES:
        raise OptionInvalid(
            field=f"{prefix}bytes",
            problem=f"{size} is not within 1 … {MAX_BYTES}, per device",
        )
    devices = messages.checked_devices(message.devices, snapshot)
    count = message.device_count or len(devices) or 1
    if not 0 < count <= MAX_DEVICES:
        raise OptionInvalid(
            field=f"{prefix}device_count", problem=f"{count} is not within 1 … {MAX_DEVICES}"
        )
    if devices and count > len(devices):
        raise OptionInvalid(
            field=f"{prefix}device_count", problem=f"{count} of {len(devices)} named devices"
        )
    return Shape(
        bytes=size,
        device_count=count,
        devices=devices,
        device_kind=messages.kind_from(message.kind),
    )


# Telling what is.


def reservation(
    value: Reservation,
    terms: Mapping[str, Charge],
    samples: Iterable[Sample],
    place: Place | None = None,
    renewable_until: Deadline | None = None,
) -> pb.Reservation:
    """A reservation with what its processes use now; `place` of one that waits."""
    devices = {grant.device for grant in value.grants}
    known = [sample for sample in samples if sample.info.uuid in devices] if devices else []
    hosts = frozenset(s.info.uuid for s in known if s.info.kind is DeviceKind.HOST)
    request = value.request
    return pb.Reservation(
        name=value.name,
        owner=value.owner,
        state=f"RESERVATION_STATE_{value.state.name}",
        kind=f"RESERVATION_KIND_{value.kind.name}",
        grants=[
            pb.Grant(
                device=f"devices/{grant.device}",
                bytes=grant.bytes,
                observed_bytes=_observed(value, grant.device, terms),
                enforcement=f"ENFORCEMENT_{grant.enforcement.name}",
            )
            for grant in value.grants
        ],
        generation=value.generation,
        create_time=messages.stamp(value.created.wall),
        ttl=messages.span(value.ttl_seconds),
        end_time=messages.stamp(value.ended.wall) if value.ended is not None else None,
        environment=value.environment(hosts) if value.grants else {},
        processes=[
            messages.process(belonging(each, value))
            for sample in known
            for each in sample.processes or ()
            if each.claim == value.id
        ],
        labels=dict(request.labels),
        instance=f"instances/{value.instance}" if value.instance else "",
        state_reason=value.reason or _trouble(value, known),
        sharing=f"SHARING_{request.sharing.name}",
        priority=f"PRIORITY_{request.priority.name}",
        preemptible=request.preemptible,
        shapes=[_shape(each) for each in request.shapes],
        host_bytes=request.host_bytes,
        attachments=[_attachment(each) for each in value.attachments],
        preemption_notice=notice(value.notice),
        within=f"reservations/{value.within}" if value.within else "",
        standing=request.standing,
        placement=f"PLACEMENT_{request.placement.name}",
        wait_until_time=moment(value.deadline) if value.queued else None,
        expire_time=moment(value.deadline) if value.granted is not None else None,
        queue_position=place.position if place is not None else None,
        wait_reason=place.why if place is not None else "",
        expected_time=moment(place.expected) if place is not None else None,
        renewable_until_time=moment(renewable_until),
    )


def _trouble(value: Reservation, samples: Iterable[Sample]) -> str:
    """What is wrong with the devices of a promise that goes on."""
    if not value.booked:
        return ""
    return "; ".join(
        f"{sample.info.alias} is {sample.health.value}"
        + (f": {sample.health_reason}" if sample.health_reason else "")
        for sample in samples
        if sample.health is not Health.HEALTHY
    )


def moment(deadline: Deadline | None) -> Timestamp | None:
    """A deadline as people read it."""
    return messages.stamp(deadline.wall) if deadline is not None else None


def _observed(value: Reservation, device: str, terms: Mapping[str, Charge]) -> int | None:
    if value.booked and not value.bound:
        return 0  # no process was ever seen in it
    if not value.booked or device not in terms:
        return None
    return terms[device].observed_bytes.get(value.id, 0)


def _shape(value: Shape) -> pb.Shape:
    kind = value.device_kind
    return pb.Shape(
        bytes=value.bytes,
        device_count=value.device_count,
        devices=[f"devices/{uuid}" for uuid in value.devices],
        kind=f"DEVICE_KIND_{kind.name}" if kind is not None else None,
    )


def _attachment(value: Attachment) -> pb.Attachment:
    return pb.Attachment(
        pid=value.pid, cgroup=value.cgroup, attach_time=messages.stamp(value.wall)
    )


def notice(value: Notice | None) -> pb.PreemptionNotice | None:
    """For whom it is to end, and when."""
    if value is None:
        return None
    return pb.PreemptionNotice(by=f"reservations/{value.by}", revoke_time=moment(value.deadline))


def explanation(value: Explanation, request: ReserveRequest) -> pb.ExplainResponse:
    """Why a request fits or not, device by device."""
    return pb.ExplainResponse(
        fits=value.fit is not None,
        summary=_summary(value, request),
        reason=value.refusal.reason if value.refusal is not None else "",
        devices=[_explained(each) for each in value.devices],
        queue_ahead=value.queue_ahead,
        can_wait=value.can_wait,
    )


def _summary(value: Explanation, request: ReserveRequest) -> str:
    if value.fit is None and value.preempts:
        ended = ", ".join(value.preempts[:4])
        return (
            f"{value.refusal}; waiting would end {ended} within {value.grace_seconds:g} s for it"
        )
    if value.fit is None and value.room_in_seconds is not None:
        return (
            f"{value.refusal}; or ask again in {value.room_in_seconds:.0f} s, when leases of its "
            "own have ended, unless renewed"
        )
    if value.fit is None:
        return str(value.refusal)
    aliases = {each.candidate.charge.uuid: each.candidate.charge.alias for each in value.devices}
    shown = ", ".join(
        f"{format_size(grant.bytes)} on {aliases.get(grant.device, grant.device)}"
        for grant in value.fit.grants
    )
    passed = " and ".join(f"reservations/{each.by}" for each in value.fit.passes)
    passing = f", passing {passed}" if passed else ""
    return f"fits now: {shown}{passing}, {request.priority.name}"


def _explained(value: DeviceExplanation) -> pb.DeviceExplanation:
    terms = value.candidate.charge
    return pb.DeviceExplanation(
        device=f"devices/{terms.uuid}",
        alias=terms.alias,
        needed_bytes=value.needed_bytes,
        grantable_bytes=value.candidate.room_bytes,
        fits=value.fits,
        rule=value.rule,
        total_bytes=terms.total_bytes,
        reserve_bytes=terms.reserve_bytes,
        granted_bytes=terms.charged_bytes,
        foreign_bytes=terms.foreign_bytes,
        unattributed_bytes=terms.unattributed_bytes,
        leaked_bytes=terms.leaked_bytes,
        holders=[_holder(each) for each in value.holders],
        remedy=value.remedy,
        shape=value.shape,
        expected_time=moment(value.expected),
    )


def _holder(value: Holder) -> pb.Holder:
    return pb.Holder(
        reservation=value.reservation,
        owner=value.what,
        bytes=value.bytes,
        until_time=moment(value.until),
        pid=value.pid,
        process_name=value.process_name,
    )
