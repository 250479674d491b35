import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from gpud.v1 import devices_pb2 as _devices_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReservationState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESERVATION_STATE_UNSPECIFIED: _ClassVar[ReservationState]
    RESERVATION_STATE_QUEUED: _ClassVar[ReservationState]
    RESERVATION_STATE_GRANTED: _ClassVar[ReservationState]
    RESERVATION_STATE_RELEASING: _ClassVar[ReservationState]
    RESERVATION_STATE_RELEASED: _ClassVar[ReservationState]
    RESERVATION_STATE_EXPIRED: _ClassVar[ReservationState]
    RESERVATION_STATE_REVOKED: _ClassVar[ReservationState]

class ReservationKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESERVATION_KIND_UNSPECIFIED: _ClassVar[ReservationKind]
    RESERVATION_KIND_LEASED: _ClassVar[ReservationKind]
    RESERVATION_KIND_HELD: _ClassVar[ReservationKind]

class Sharing(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SHARING_UNSPECIFIED: _ClassVar[Sharing]
    SHARING_SHARED: _ClassVar[Sharing]
    SHARING_EXCLUSIVE: _ClassVar[Sharing]

class Placement(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLACEMENT_UNSPECIFIED: _ClassVar[Placement]
    PLACEMENT_PACK: _ClassVar[Placement]
    PLACEMENT_SPREAD: _ClassVar[Placement]

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_BATCH: _ClassVar[Priority]
    PRIORITY_NORMAL: _ClassVar[Priority]
    PRIORITY_INTERACTIVE: _ClassVar[Priority]
    PRIORITY_CRITICAL: _ClassVar[Priority]

class Enforcement(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENFORCEMENT_UNSPECIFIED: _ClassVar[Enforcement]
    ENFORCEMENT_LEDGER: _ClassVar[Enforcement]
    ENFORCEMENT_DRIVER: _ClassVar[Enforcement]
RESERVATION_STATE_UNSPECIFIED: ReservationState
RESERVATION_STATE_QUEUED: ReservationState
RESERVATION_STATE_GRANTED: ReservationState
RESERVATION_STATE_RELEASING: ReservationState
RESERVATION_STATE_RELEASED: ReservationState
RESERVATION_STATE_EXPIRED: ReservationState
RESERVATION_STATE_REVOKED: ReservationState
RESERVATION_KIND_UNSPECIFIED: ReservationKind
RESERVATION_KIND_LEASED: ReservationKind
RESERVATION_KIND_HELD: ReservationKind
SHARING_UNSPECIFIED: Sharing
SHARING_SHARED: Sharing
SHARING_EXCLUSIVE: Sharing
PLACEMENT_UNSPECIFIED: Placement
PLACEMENT_PACK: Placement
PLACEMENT_SPREAD: Placement
PRIORITY_UNSPECIFIED: Priority
PRIORITY_BATCH: Priority
PRIORITY_NORMAL: Priority
PRIORITY_INTERACTIVE: Priority
PRIORITY_CRITICAL: Priority
ENFORCEMENT_UNSPECIFIED: Enforcement
ENFORCEMENT_LEDGER: Enforcement
ENFORCEMENT_DRIVER: Enforcement

class Grant(_message.Message):
    __slots__ = ("device", "bytes", "observed_bytes", "enforcement")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    ENFORCEMENT_FIELD_NUMBER: _ClassVar[int]
    device: str
    bytes: int
    observed_bytes: int
    enforcement: Enforcement
    def __init__(self, device: _Optional[str] = ..., bytes: _Optional[int] = ..., observed_bytes: _Optional[int] = ..., enforcement: _Optional[_Union[Enforcement, str]] = ...) -> None: ...

class Reservation(_message.Message):
    __slots__ = ("name", "owner", "state", "kind", "grants", "generation", "create_time", "expire_time", "ttl", "end_time", "environment", "processes", "labels", "instance", "state_reason", "sharing", "priority", "preemptible", "queue_position", "wait_reason", "expected_time", "wait_until_time", "shapes", "host_bytes", "attachments", "preemption_notice", "within", "standing", "placement", "renewable_until_time")
    class EnvironmentEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    STATE_REASON_FIELD_NUMBER: _ClassVar[int]
    SHARING_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    PREEMPTIBLE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    WAIT_REASON_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_TIME_FIELD_NUMBER: _ClassVar[int]
    WAIT_UNTIL_TIME_FIELD_NUMBER: _ClassVar[int]
    SHAPES_FIELD_NUMBER: _ClassVar[int]
    HOST_BYTES_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    PREEMPTION_NOTICE_FIELD_NUMBER: _ClassVar[int]
    WITHIN_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    RENEWABLE_UNTIL_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    owner: str
    state: ReservationState
    kind: ReservationKind
    grants: _containers.RepeatedCompositeFieldContainer[Grant]
    generation: int
    create_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    ttl: _duration_pb2.Duration
    end_time: _timestamp_pb2.Timestamp
    environment: _containers.ScalarMap[str, str]
    processes: _containers.RepeatedCompositeFieldContainer[_devices_pb2.DeviceProcess]
    labels: _containers.ScalarMap[str, str]
    instance: str
    state_reason: str
    sharing: Sharing
    priority: Priority
    preemptible: bool
    queue_position: int
    wait_reason: str
    expected_time: _timestamp_pb2.Timestamp
    wait_until_time: _timestamp_pb2.Timestamp
    shapes: _containers.RepeatedCompositeFieldContainer[Shape]
    host_bytes: int
    attachments: _containers.RepeatedCompositeFieldContainer[Attachment]
    preemption_notice: PreemptionNotice
    within: str
    standing: bool
    placement: Placement
    renewable_until_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., owner: _Optional[str] = ..., state: _Optional[_Union[ReservationState, str]] = ..., kind: _Optional[_Union[ReservationKind, str]] = ..., grants: _Optional[_Iterable[_Union[Grant, _Mapping]]] = ..., generation: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., environment: _Optional[_Mapping[str, str]] = ..., processes: _Optional[_Iterable[_Union[_devices_pb2.DeviceProcess, _Mapping]]] = ..., labels: _Optional[_Mapping[str, str]] = ..., instance: _Optional[str] = ..., state_reason: _Optional[str] = ..., sharing: _Optional[_Union[Sharing, str]] = ..., priority: _Optional[_Union[Priority, str]] = ..., preemptible: bool = ..., queue_position: _Optional[int] = ..., wait_reason: _Optional[str] = ..., expected_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., wait_until_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., shapes: _Optional[_Iterable[_Union[Shape, _Mapping]]] = ..., host_bytes: _Optional[int] = ..., attachments: _Optional[_Iterable[_Union[Attachment, _Mapping]]] = ..., preemption_notice: _Optional[_Union[PreemptionNotice, _Mapping]] = ..., within: _Optional[str] = ..., standing: bool = ..., placement: _Optional[_Union[Placement, str]] = ..., renewable_until_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Shape(_message.Message):
    __slots__ = ("bytes", "device_count", "devices", "kind")
    BYTES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_COUNT_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    bytes: int
    device_count: int
    devices: _containers.RepeatedScalarFieldContainer[str]
    kind: _devices_pb2.DeviceKind
    def __init__(self, bytes: _Optional[int] = ..., device_count: _Optional[int] = ..., devices: _Optional[_Iterable[str]] = ..., kind: _Optional[_Union[_devices_pb2.DeviceKind, str]] = ...) -> None: ...

class Attachment(_message.Message):
    __slots__ = ("pid", "cgroup", "attach_time")
    PID_FIELD_NUMBER: _ClassVar[int]
    CGROUP_FIELD_NUMBER: _ClassVar[int]
    ATTACH_TIME_FIELD_NUMBER: _ClassVar[int]
    pid: int
    cgroup: str
    attach_time: _timestamp_pb2.Timestamp
    def __init__(self, pid: _Optional[int] = ..., cgroup: _Optional[str] = ..., attach_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class PreemptionNotice(_message.Message):
    __slots__ = ("by", "revoke_time")
    BY_FIELD_NUMBER: _ClassVar[int]
    REVOKE_TIME_FIELD_NUMBER: _ClassVar[int]
    by: str
    revoke_time: _timestamp_pb2.Timestamp
    def __init__(self, by: _Optional[str] = ..., revoke_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ReserveRequest(_message.Message):
    __slots__ = ("request_id", "bytes", "device_count", "devices", "kind", "ttl", "owner", "labels", "validate_only", "sharing", "placement", "priority", "preemptible", "max_wait", "alternatives", "host_bytes", "require_enforcement", "numa_node")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_COUNT_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    SHARING_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    PREEMPTIBLE_FIELD_NUMBER: _ClassVar[int]
    MAX_WAIT_FIELD_NUMBER: _ClassVar[int]
    ALTERNATIVES_FIELD_NUMBER: _ClassVar[int]
    HOST_BYTES_FIELD_NUMBER: _ClassVar[int]
    REQUIRE_ENFORCEMENT_FIELD_NUMBER: _ClassVar[int]
    NUMA_NODE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    bytes: int
    device_count: int
    devices: _containers.RepeatedScalarFieldContainer[str]
    kind: _devices_pb2.DeviceKind
    ttl: _duration_pb2.Duration
    owner: str
    labels: _containers.ScalarMap[str, str]
    validate_only: bool
    sharing: Sharing
    placement: Placement
    priority: Priority
    preemptible: bool
    max_wait: _duration_pb2.Duration
    alternatives: _containers.RepeatedCompositeFieldContainer[Shape]
    host_bytes: int
    require_enforcement: Enforcement
    numa_node: int
    def __init__(self, request_id: _Optional[str] = ..., bytes: _Optional[int] = ..., device_count: _Optional[int] = ..., devices: _Optional[_Iterable[str]] = ..., kind: _Optional[_Union[_devices_pb2.DeviceKind, str]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., owner: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., validate_only: bool = ..., sharing: _Optional[_Union[Sharing, str]] = ..., placement: _Optional[_Union[Placement, str]] = ..., priority: _Optional[_Union[Priority, str]] = ..., preemptible: bool = ..., max_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., alternatives: _Optional[_Iterable[_Union[Shape, _Mapping]]] = ..., host_bytes: _Optional[int] = ..., require_enforcement: _Optional[_Union[Enforcement, str]] = ..., numa_node: _Optional[int] = ...) -> None: ...

class ReserveResponse(_message.Message):
    __slots__ = ("reservation",)
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    reservation: Reservation
    def __init__(self, reservation: _Optional[_Union[Reservation, _Mapping]] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("request_id", "name", "generation", "ttl")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    name: str
    generation: int
    ttl: _duration_pb2.Duration
    def __init__(self, request_id: _Optional[str] = ..., name: _Optional[str] = ..., generation: _Optional[int] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class RenewResponse(_message.Message):
    __slots__ = ("reservation",)
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    reservation: Reservation
    def __init__(self, reservation: _Optional[_Union[Reservation, _Mapping]] = ...) -> None: ...

class KeepAliveRequest(_message.Message):
    __slots__ = ("name", "generation", "ttl")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    name: str
    generation: int
    ttl: _duration_pb2.Duration
    def __init__(self, name: _Optional[str] = ..., generation: _Optional[int] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class KeepAliveResponse(_message.Message):
    __slots__ = ("name", "generation", "state", "expire_time", "preemption_notice")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    PREEMPTION_NOTICE_FIELD_NUMBER: _ClassVar[int]
    name: str
    generation: int
    state: ReservationState
    expire_time: _timestamp_pb2.Timestamp
    preemption_notice: PreemptionNotice
    def __init__(self, name: _Optional[str] = ..., generation: _Optional[int] = ..., state: _Optional[_Union[ReservationState, str]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., preemption_notice: _Optional[_Union[PreemptionNotice, _Mapping]] = ...) -> None: ...

class WatchReservationRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class WatchReservationResponse(_message.Message):
    __slots__ = ("reservation",)
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    reservation: Reservation
    def __init__(self, reservation: _Optional[_Union[Reservation, _Mapping]] = ...) -> None: ...

class AttachProcessRequest(_message.Message):
    __slots__ = ("request_id", "name", "generation", "pid", "cgroup", "start_time")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    CGROUP_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    name: str
    generation: int
    pid: int
    cgroup: str
    start_time: int
    def __init__(self, request_id: _Optional[str] = ..., name: _Optional[str] = ..., generation: _Optional[int] = ..., pid: _Optional[int] = ..., cgroup: _Optional[str] = ..., start_time: _Optional[int] = ...) -> None: ...

class AttachProcessResponse(_message.Message):
    __slots__ = ("reservation",)
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    reservation: Reservation
    def __init__(self, reservation: _Optional[_Union[Reservation, _Mapping]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("bytes", "device_count", "devices", "kind", "ttl", "owner", "labels", "sharing", "placement", "priority", "preemptible", "max_wait", "alternatives", "host_bytes", "require_enforcement", "numa_node")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    BYTES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_COUNT_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SHARING_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    PREEMPTIBLE_FIELD_NUMBER: _ClassVar[int]
    MAX_WAIT_FIELD_NUMBER: _ClassVar[int]
    ALTERNATIVES_FIELD_NUMBER: _ClassVar[int]
    HOST_BYTES_FIELD_NUMBER: _ClassVar[int]
    REQUIRE_ENFORCEMENT_FIELD_NUMBER: _ClassVar[int]
    NUMA_NODE_FIELD_NUMBER: _ClassVar[int]
    bytes: int
    device_count: int
    devices: _containers.RepeatedScalarFieldContainer[str]
    kind: _devices_pb2.DeviceKind
    ttl: _duration_pb2.Duration
    owner: str
    labels: _containers.ScalarMap[str, str]
    sharing: Sharing
    placement: Placement
    priority: Priority
    preemptible: bool
    max_wait: _duration_pb2.Duration
    alternatives: _containers.RepeatedCompositeFieldContainer[Shape]
    host_bytes: int
    require_enforcement: Enforcement
    numa_node: int
    def __init__(self, bytes: _Optional[int] = ..., device_count: _Optional[int] = ..., devices: _Optional[_Iterable[str]] = ..., kind: _Optional[_Union[_devices_pb2.DeviceKind, str]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., owner: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., sharing: _Optional[_Union[Sharing, str]] = ..., placement: _Optional[_Union[Placement, str]] = ..., priority: _Optional[_Union[Priority, str]] = ..., preemptible: bool = ..., max_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., alternatives: _Optional[_Iterable[_Union[Shape, _Mapping]]] = ..., host_bytes: _Optional[int] = ..., require_enforcement: _Optional[_Union[Enforcement, str]] = ..., numa_node: _Optional[int] = ...) -> None: ...

class Holder(_message.Message):
    __slots__ = ("reservation", "owner", "bytes", "until_time", "pid", "process_name")
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    UNTIL_TIME_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    PROCESS_NAME_FIELD_NUMBER: _ClassVar[int]
    reservation: str
    owner: str
    bytes: int
    until_time: _timestamp_pb2.Timestamp
    pid: int
    process_name: str
    def __init__(self, reservation: _Optional[str] = ..., owner: _Optional[str] = ..., bytes: _Optional[int] = ..., until_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., pid: _Optional[int] = ..., process_name: _Optional[str] = ...) -> None: ...

class DeviceExplanation(_message.Message):
    __slots__ = ("device", "alias", "needed_bytes", "grantable_bytes", "fits", "rule", "total_bytes", "reserve_bytes", "granted_bytes", "foreign_bytes", "unattributed_bytes", "leaked_bytes", "holders", "remedy", "expected_time", "shape")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    NEEDED_BYTES_FIELD_NUMBER: _ClassVar[int]
    GRANTABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    FITS_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESERVE_BYTES_FIELD_NUMBER: _ClassVar[int]
    GRANTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    FOREIGN_BYTES_FIELD_NUMBER: _ClassVar[int]
    UNATTRIBUTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    LEAKED_BYTES_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_TIME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    device: str
    alias: str
    needed_bytes: int
    grantable_bytes: int
    fits: bool
    rule: str
    total_bytes: int
    reserve_bytes: int
    granted_bytes: int
    foreign_bytes: int
    unattributed_bytes: int
    leaked_bytes: int
    holders: _containers.RepeatedCompositeFieldContainer[Holder]
    remedy: str
    expected_time: _timestamp_pb2.Timestamp
    shape: int
    def __init__(self, device: _Optional[str] = ..., alias: _Optional[str] = ..., needed_bytes: _Optional[int] = ..., grantable_bytes: _Optional[int] = ..., fits: bool = ..., rule: _Optional[str] = ..., total_bytes: _Optional[int] = ..., reserve_bytes: _Optional[int] = ..., granted_bytes: _Optional[int] = ..., foreign_bytes: _Optional[int] = ..., unattributed_bytes: _Optional[int] = ..., leaked_bytes: _Optional[int] = ..., holders: _Optional[_Iterable[_Union[Holder, _Mapping]]] = ..., remedy: _Optional[str] = ..., expected_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., shape: _Optional[int] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("fits", "summary", "reason", "devices", "queue_ahead", "can_wait")
    FITS_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    QUEUE_AHEAD_FIELD_NUMBER: _ClassVar[int]
    CAN_WAIT_FIELD_NUMBER: _ClassVar[int]
    fits: bool
    summary: str
    reason: str
    devices: _containers.RepeatedCompositeFieldContainer[DeviceExplanation]
    queue_ahead: int
    can_wait: bool
    def __init__(self, fits: bool = ..., summary: _Optional[str] = ..., reason: _Optional[str] = ..., devices: _Optional[_Iterable[_Union[DeviceExplanation, _Mapping]]] = ..., queue_ahead: _Optional[int] = ..., can_wait: bool = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("request_id", "name", "generation")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    name: str
    generation: int
    def __init__(self, request_id: _Optional[str] = ..., name: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class ReleaseResponse(_message.Message):
    __slots__ = ("reservation",)
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    reservation: Reservation
    def __init__(self, reservation: _Optional[_Union[Reservation, _Mapping]] = ...) -> None: ...

class GetReservationRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetReservationResponse(_message.Message):
    __slots__ = ("reservation",)
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    reservation: Reservation
    def __init__(self, reservation: _Optional[_Union[Reservation, _Mapping]] = ...) -> None: ...

class ListReservationsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "states", "owner")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    states: _containers.RepeatedScalarFieldContainer[ReservationState]
    owner: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., states: _Optional[_Iterable[_Union[ReservationState, str]]] = ..., owner: _Optional[str] = ...) -> None: ...

class ListReservationsResponse(_message.Message):
    __slots__ = ("reservations", "next_page_token")
    RESERVATIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    reservations: _containers.RepeatedCompositeFieldContainer[Reservation]
    next_page_token: str
    def __init__(self, reservations: _Optional[_Iterable[_Union[Reservation, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
