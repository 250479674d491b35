import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NodeState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_STATE_UNSPECIFIED: _ClassVar[NodeState]
    NODE_STATE_RECONCILING: _ClassVar[NodeState]
    NODE_STATE_READY: _ClassVar[NodeState]
    NODE_STATE_DRAINING: _ClassVar[NodeState]
    NODE_STATE_DEGRADED: _ClassVar[NodeState]

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_VIEWER: _ClassVar[Role]
    ROLE_OPERATOR: _ClassVar[Role]
    ROLE_ADMIN: _ClassVar[Role]

class Engine(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENGINE_UNSPECIFIED: _ClassVar[Engine]
    ENGINE_LLAMA_CPP: _ClassVar[Engine]
    ENGINE_VLLM: _ClassVar[Engine]
    ENGINE_COMMAND: _ClassVar[Engine]

class ConfigChangeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONFIG_CHANGE_KIND_UNSPECIFIED: _ClassVar[ConfigChangeKind]
    CONFIG_CHANGE_KIND_ADDED: _ClassVar[ConfigChangeKind]
    CONFIG_CHANGE_KIND_REMOVED: _ClassVar[ConfigChangeKind]
    CONFIG_CHANGE_KIND_CHANGED: _ClassVar[ConfigChangeKind]
NODE_STATE_UNSPECIFIED: NodeState
NODE_STATE_RECONCILING: NodeState
NODE_STATE_READY: NodeState
NODE_STATE_DRAINING: NodeState
NODE_STATE_DEGRADED: NodeState
ROLE_UNSPECIFIED: Role
ROLE_VIEWER: Role
ROLE_OPERATOR: Role
ROLE_ADMIN: Role
ENGINE_UNSPECIFIED: Engine
ENGINE_LLAMA_CPP: Engine
ENGINE_VLLM: Engine
ENGINE_COMMAND: Engine
CONFIG_CHANGE_KIND_UNSPECIFIED: ConfigChangeKind
CONFIG_CHANGE_KIND_ADDED: ConfigChangeKind
CONFIG_CHANGE_KIND_REMOVED: ConfigChangeKind
CONFIG_CHANGE_KIND_CHANGED: ConfigChangeKind

class Node(_message.Message):
    __slots__ = ("hostname", "version", "boot_id", "state", "state_reason", "policy", "engines", "start_time", "sampling_interval", "tls", "orphan_count", "warnings")
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATE_REASON_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    ENGINES_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    TLS_FIELD_NUMBER: _ClassVar[int]
    ORPHAN_COUNT_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    hostname: str
    version: str
    boot_id: str
    state: NodeState
    state_reason: str
    policy: Policy
    engines: _containers.RepeatedCompositeFieldContainer[EngineInfo]
    start_time: _timestamp_pb2.Timestamp
    sampling_interval: _duration_pb2.Duration
    tls: TlsStatus
    orphan_count: int
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, hostname: _Optional[str] = ..., version: _Optional[str] = ..., boot_id: _Optional[str] = ..., state: _Optional[_Union[NodeState, str]] = ..., state_reason: _Optional[str] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ..., engines: _Optional[_Iterable[_Union[EngineInfo, _Mapping]]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sampling_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., tls: _Optional[_Union[TlsStatus, _Mapping]] = ..., orphan_count: _Optional[int] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class TlsStatus(_message.Message):
    __slots__ = ("certificate_expire_time", "reload_count", "refused_count", "problem", "client_ca_expire_time")
    CERTIFICATE_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    RELOAD_COUNT_FIELD_NUMBER: _ClassVar[int]
    REFUSED_COUNT_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    CLIENT_CA_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    certificate_expire_time: _timestamp_pb2.Timestamp
    reload_count: int
    refused_count: int
    problem: str
    client_ca_expire_time: _timestamp_pb2.Timestamp
    def __init__(self, certificate_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reload_count: _Optional[int] = ..., refused_count: _Optional[int] = ..., problem: _Optional[str] = ..., client_ca_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Caller(_message.Message):
    __slots__ = ("name", "role", "proof")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: Role
    proof: str
    def __init__(self, name: _Optional[str] = ..., role: _Optional[_Union[Role, str]] = ..., proof: _Optional[str] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("strict_allocation", "device_reserve_bytes", "reserve_system_memory_bytes", "release_deadline", "preemption", "exclusive_process_mode", "on_trespass", "on_overuse", "oom_prevention", "swap_disabled", "gpu_affinity", "numa_aware", "priority_queues", "max_queue")
    STRICT_ALLOCATION_FIELD_NUMBER: _ClassVar[int]
    DEVICE_RESERVE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESERVE_SYSTEM_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    RELEASE_DEADLINE_FIELD_NUMBER: _ClassVar[int]
    PREEMPTION_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIVE_PROCESS_MODE_FIELD_NUMBER: _ClassVar[int]
    ON_TRESPASS_FIELD_NUMBER: _ClassVar[int]
    ON_OVERUSE_FIELD_NUMBER: _ClassVar[int]
    OOM_PREVENTION_FIELD_NUMBER: _ClassVar[int]
    SWAP_DISABLED_FIELD_NUMBER: _ClassVar[int]
    GPU_AFFINITY_FIELD_NUMBER: _ClassVar[int]
    NUMA_AWARE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_QUEUES_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_FIELD_NUMBER: _ClassVar[int]
    strict_allocation: bool
    device_reserve_bytes: int
    reserve_system_memory_bytes: int
    release_deadline: _duration_pb2.Duration
    preemption: bool
    exclusive_process_mode: bool
    on_trespass: str
    on_overuse: str
    oom_prevention: bool
    swap_disabled: bool
    gpu_affinity: bool
    numa_aware: bool
    priority_queues: bool
    max_queue: int
    def __init__(self, strict_allocation: bool = ..., device_reserve_bytes: _Optional[int] = ..., reserve_system_memory_bytes: _Optional[int] = ..., release_deadline: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., preemption: bool = ..., exclusive_process_mode: bool = ..., on_trespass: _Optional[str] = ..., on_overuse: _Optional[str] = ..., oom_prevention: bool = ..., swap_disabled: bool = ..., gpu_affinity: bool = ..., numa_aware: bool = ..., priority_queues: bool = ..., max_queue: _Optional[int] = ...) -> None: ...

class EngineInfo(_message.Message):
    __slots__ = ("engine", "version", "path")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    engine: Engine
    version: str
    path: str
    def __init__(self, engine: _Optional[_Union[Engine, str]] = ..., version: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("sequence", "time", "type", "subject", "actor", "reason", "details", "method", "request_id", "caller")
    class DetailsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: _timestamp_pb2.Timestamp
    type: str
    subject: str
    actor: str
    reason: str
    details: _containers.ScalarMap[str, str]
    method: str
    request_id: str
    caller: str
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., type: _Optional[str] = ..., subject: _Optional[str] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ..., details: _Optional[_Mapping[str, str]] = ..., method: _Optional[str] = ..., request_id: _Optional[str] = ..., caller: _Optional[str] = ...) -> None: ...

class GetNodeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetNodeResponse(_message.Message):
    __slots__ = ("node", "caller")
    NODE_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    node: Node
    caller: Caller
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ..., caller: _Optional[_Union[Caller, _Mapping]] = ...) -> None: ...

class ListEventsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "type", "subject", "since", "until", "request_id")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    type: str
    subject: str
    since: _timestamp_pb2.Timestamp
    until: _timestamp_pb2.Timestamp
    request_id: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., type: _Optional[str] = ..., subject: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class ListEventsResponse(_message.Message):
    __slots__ = ("events", "next_page_token", "oldest_sequence", "oldest_time")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    OLDEST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    OLDEST_TIME_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    next_page_token: str
    oldest_sequence: int
    oldest_time: _timestamp_pb2.Timestamp
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., oldest_sequence: _Optional[int] = ..., oldest_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class WatchEventsRequest(_message.Message):
    __slots__ = ("type", "subject", "since", "after_sequence", "request_id")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    type: str
    subject: str
    since: _timestamp_pb2.Timestamp
    after_sequence: int
    request_id: str
    def __init__(self, type: _Optional[str] = ..., subject: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., after_sequence: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class WatchEventsResponse(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: Event
    def __init__(self, event: _Optional[_Union[Event, _Mapping]] = ...) -> None: ...

class DrainNodeRequest(_message.Message):
    __slots__ = ("request_id", "stop_instances", "deadline", "reason", "owner")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STOP_INSTANCES_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    stop_instances: bool
    deadline: _duration_pb2.Duration
    reason: str
    owner: str
    def __init__(self, request_id: _Optional[str] = ..., stop_instances: bool = ..., deadline: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reason: _Optional[str] = ..., owner: _Optional[str] = ...) -> None: ...

class DrainNodeResponse(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: Node
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ...) -> None: ...

class ResumeNodeRequest(_message.Message):
    __slots__ = ("request_id", "owner")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    owner: str
    def __init__(self, request_id: _Optional[str] = ..., owner: _Optional[str] = ...) -> None: ...

class ResumeNodeResponse(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: Node
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ...) -> None: ...

class ReloadConfigRequest(_message.Message):
    __slots__ = ("request_id", "validate_only", "owner")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    validate_only: bool
    owner: str
    def __init__(self, request_id: _Optional[str] = ..., validate_only: bool = ..., owner: _Optional[str] = ...) -> None: ...

class ReloadConfigResponse(_message.Message):
    __slots__ = ("changes",)
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[ConfigChange]
    def __init__(self, changes: _Optional[_Iterable[_Union[ConfigChange, _Mapping]]] = ...) -> None: ...

class ConfigChange(_message.Message):
    __slots__ = ("key", "kind", "needs_restart")
    KEY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NEEDS_RESTART_FIELD_NUMBER: _ClassVar[int]
    key: str
    kind: ConfigChangeKind
    needs_restart: bool
    def __init__(self, key: _Optional[str] = ..., kind: _Optional[_Union[ConfigChangeKind, str]] = ..., needs_restart: bool = ...) -> None: ...
