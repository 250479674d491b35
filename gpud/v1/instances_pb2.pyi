import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from gpud.v1 import benchmarks_pb2 as _benchmarks_pb2
from gpud.v1 import models_pb2 as _models_pb2
from gpud.v1 import node_pb2 as _node_pb2
from gpud.v1 import reservations_pb2 as _reservations_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class InstanceState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INSTANCE_STATE_UNSPECIFIED: _ClassVar[InstanceState]
    INSTANCE_STATE_QUEUED: _ClassVar[InstanceState]
    INSTANCE_STATE_VERIFYING: _ClassVar[InstanceState]
    INSTANCE_STATE_RESERVING: _ClassVar[InstanceState]
    INSTANCE_STATE_STARTING: _ClassVar[InstanceState]
    INSTANCE_STATE_LOADING: _ClassVar[InstanceState]
    INSTANCE_STATE_WARMING: _ClassVar[InstanceState]
    INSTANCE_STATE_READY: _ClassVar[InstanceState]
    INSTANCE_STATE_DRAINING: _ClassVar[InstanceState]
    INSTANCE_STATE_STOPPING: _ClassVar[InstanceState]
    INSTANCE_STATE_STOPPED: _ClassVar[InstanceState]
    INSTANCE_STATE_FAILED: _ClassVar[InstanceState]
    INSTANCE_STATE_BACKOFF: _ClassVar[InstanceState]

class HealthVerdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HEALTH_VERDICT_UNSPECIFIED: _ClassVar[HealthVerdict]
    HEALTH_VERDICT_HEALTHY: _ClassVar[HealthVerdict]
    HEALTH_VERDICT_BUSY: _ClassVar[HealthVerdict]
    HEALTH_VERDICT_IDLE: _ClassVar[HealthVerdict]
    HEALTH_VERDICT_SLEEPING: _ClassVar[HealthVerdict]
    HEALTH_VERDICT_DEGRADED: _ClassVar[HealthVerdict]
    HEALTH_VERDICT_STUCK: _ClassVar[HealthVerdict]

class LoadPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOAD_PHASE_UNSPECIFIED: _ClassVar[LoadPhase]
    LOAD_PHASE_DETECT: _ClassVar[LoadPhase]
    LOAD_PHASE_VERIFY: _ClassVar[LoadPhase]
    LOAD_PHASE_ALLOCATE: _ClassVar[LoadPhase]
    LOAD_PHASE_START: _ClassVar[LoadPhase]
    LOAD_PHASE_LOAD: _ClassVar[LoadPhase]
    LOAD_PHASE_WARMUP: _ClassVar[LoadPhase]
    LOAD_PHASE_CHECK: _ClassVar[LoadPhase]
    LOAD_PHASE_REGISTER: _ClassVar[LoadPhase]
    LOAD_PHASE_READY: _ClassVar[LoadPhase]

class UnloadPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNLOAD_PHASE_UNSPECIFIED: _ClassVar[UnloadPhase]
    UNLOAD_PHASE_DRAIN: _ClassVar[UnloadPhase]
    UNLOAD_PHASE_TERMINATE: _ClassVar[UnloadPhase]
    UNLOAD_PHASE_KILL: _ClassVar[UnloadPhase]
    UNLOAD_PHASE_FREE: _ClassVar[UnloadPhase]
    UNLOAD_PHASE_STOPPED: _ClassVar[UnloadPhase]
INSTANCE_STATE_UNSPECIFIED: InstanceState
INSTANCE_STATE_QUEUED: InstanceState
INSTANCE_STATE_VERIFYING: InstanceState
INSTANCE_STATE_RESERVING: InstanceState
INSTANCE_STATE_STARTING: InstanceState
INSTANCE_STATE_LOADING: InstanceState
INSTANCE_STATE_WARMING: InstanceState
INSTANCE_STATE_READY: InstanceState
INSTANCE_STATE_DRAINING: InstanceState
INSTANCE_STATE_STOPPING: InstanceState
INSTANCE_STATE_STOPPED: InstanceState
INSTANCE_STATE_FAILED: InstanceState
INSTANCE_STATE_BACKOFF: InstanceState
HEALTH_VERDICT_UNSPECIFIED: HealthVerdict
HEALTH_VERDICT_HEALTHY: HealthVerdict
HEALTH_VERDICT_BUSY: HealthVerdict
HEALTH_VERDICT_IDLE: HealthVerdict
HEALTH_VERDICT_SLEEPING: HealthVerdict
HEALTH_VERDICT_DEGRADED: HealthVerdict
HEALTH_VERDICT_STUCK: HealthVerdict
LOAD_PHASE_UNSPECIFIED: LoadPhase
LOAD_PHASE_DETECT: LoadPhase
LOAD_PHASE_VERIFY: LoadPhase
LOAD_PHASE_ALLOCATE: LoadPhase
LOAD_PHASE_START: LoadPhase
LOAD_PHASE_LOAD: LoadPhase
LOAD_PHASE_WARMUP: LoadPhase
LOAD_PHASE_CHECK: LoadPhase
LOAD_PHASE_REGISTER: LoadPhase
LOAD_PHASE_READY: LoadPhase
UNLOAD_PHASE_UNSPECIFIED: UnloadPhase
UNLOAD_PHASE_DRAIN: UnloadPhase
UNLOAD_PHASE_TERMINATE: UnloadPhase
UNLOAD_PHASE_KILL: UnloadPhase
UNLOAD_PHASE_FREE: UnloadPhase
UNLOAD_PHASE_STOPPED: UnloadPhase

class InstanceHealth(_message.Message):
    __slots__ = ("verdict", "reason", "ready", "requests_running", "requests_waiting", "kv_used_percent", "failures")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_WAITING_FIELD_NUMBER: _ClassVar[int]
    KV_USED_PERCENT_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    verdict: HealthVerdict
    reason: str
    ready: bool
    requests_running: int
    requests_waiting: int
    kv_used_percent: float
    failures: int
    def __init__(self, verdict: _Optional[_Union[HealthVerdict, str]] = ..., reason: _Optional[str] = ..., ready: bool = ..., requests_running: _Optional[int] = ..., requests_waiting: _Optional[int] = ..., kv_used_percent: _Optional[float] = ..., failures: _Optional[int] = ...) -> None: ...

class ExitInfo(_message.Message):
    __slots__ = ("code", "signal", "time", "meaning")
    CODE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    MEANING_FIELD_NUMBER: _ClassVar[int]
    code: int
    signal: int
    time: _timestamp_pb2.Timestamp
    meaning: str
    def __init__(self, code: _Optional[int] = ..., signal: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., meaning: _Optional[str] = ...) -> None: ...

class PhaseTiming(_message.Message):
    __slots__ = ("phase", "duration")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    phase: LoadPhase
    duration: _duration_pb2.Duration
    def __init__(self, phase: _Optional[_Union[LoadPhase, str]] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("reason", "message", "phase")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    phase: LoadPhase
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., phase: _Optional[_Union[LoadPhase, str]] = ...) -> None: ...

class Instance(_message.Message):
    __slots__ = ("name", "model", "engine", "state", "reservation", "endpoint", "pid", "devices", "footprint", "measured_bytes", "load_duration", "restarts", "last_exit", "create_time", "ready_time", "end_time", "options", "phases", "tokens_per_second", "time_to_first_token", "failure", "containment", "owner", "engine_bytes", "cpu_affinity", "memory_node", "swap", "queue_position", "wait_reason", "endpoint_needs_key", "busy", "last_progress_time", "health", "idle_ttl", "idle_deadline", "pinned", "retry_time", "sleeping", "sleep", "limits", "limits_enforced", "options_ignored", "overuse_bytes", "metrics")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    FOOTPRINT_FIELD_NUMBER: _ClassVar[int]
    MEASURED_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOAD_DURATION_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    LAST_EXIT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    READY_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    CONTAINMENT_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    ENGINE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_AFFINITY_FIELD_NUMBER: _ClassVar[int]
    MEMORY_NODE_FIELD_NUMBER: _ClassVar[int]
    SWAP_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    WAIT_REASON_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_NEEDS_KEY_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    LAST_PROGRESS_TIME_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    IDLE_TTL_FIELD_NUMBER: _ClassVar[int]
    IDLE_DEADLINE_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    RETRY_TIME_FIELD_NUMBER: _ClassVar[int]
    SLEEPING_FIELD_NUMBER: _ClassVar[int]
    SLEEP_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_ENFORCED_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_IGNORED_FIELD_NUMBER: _ClassVar[int]
    OVERUSE_BYTES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    name: str
    model: str
    engine: _node_pb2.Engine
    state: InstanceState
    reservation: str
    endpoint: str
    pid: int
    devices: _containers.RepeatedScalarFieldContainer[str]
    footprint: _models_pb2.Footprint
    measured_bytes: int
    load_duration: _duration_pb2.Duration
    restarts: int
    last_exit: ExitInfo
    create_time: _timestamp_pb2.Timestamp
    ready_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    options: _models_pb2.ModelOptions
    phases: _containers.RepeatedCompositeFieldContainer[PhaseTiming]
    tokens_per_second: float
    time_to_first_token: _duration_pb2.Duration
    failure: Failure
    containment: str
    owner: str
    engine_bytes: int
    cpu_affinity: str
    memory_node: int
    swap: str
    queue_position: int
    wait_reason: str
    endpoint_needs_key: bool
    busy: bool
    last_progress_time: _timestamp_pb2.Timestamp
    health: InstanceHealth
    idle_ttl: _duration_pb2.Duration
    idle_deadline: _timestamp_pb2.Timestamp
    pinned: bool
    retry_time: _timestamp_pb2.Timestamp
    sleeping: bool
    sleep: Sleep
    limits: Limits
    limits_enforced: str
    options_ignored: str
    overuse_bytes: int
    metrics: InstanceMetrics
    def __init__(self, name: _Optional[str] = ..., model: _Optional[str] = ..., engine: _Optional[_Union[_node_pb2.Engine, str]] = ..., state: _Optional[_Union[InstanceState, str]] = ..., reservation: _Optional[str] = ..., endpoint: _Optional[str] = ..., pid: _Optional[int] = ..., devices: _Optional[_Iterable[str]] = ..., footprint: _Optional[_Union[_models_pb2.Footprint, _Mapping]] = ..., measured_bytes: _Optional[int] = ..., load_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., restarts: _Optional[int] = ..., last_exit: _Optional[_Union[ExitInfo, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ready_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., options: _Optional[_Union[_models_pb2.ModelOptions, _Mapping]] = ..., phases: _Optional[_Iterable[_Union[PhaseTiming, _Mapping]]] = ..., tokens_per_second: _Optional[float] = ..., time_to_first_token: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., containment: _Optional[str] = ..., owner: _Optional[str] = ..., engine_bytes: _Optional[int] = ..., cpu_affinity: _Optional[str] = ..., memory_node: _Optional[int] = ..., swap: _Optional[str] = ..., queue_position: _Optional[int] = ..., wait_reason: _Optional[str] = ..., endpoint_needs_key: bool = ..., busy: bool = ..., last_progress_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., health: _Optional[_Union[InstanceHealth, _Mapping]] = ..., idle_ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., idle_deadline: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., pinned: bool = ..., retry_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sleeping: bool = ..., sleep: _Optional[_Union[Sleep, _Mapping]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., limits_enforced: _Optional[str] = ..., options_ignored: _Optional[str] = ..., overuse_bytes: _Optional[int] = ..., metrics: _Optional[_Union[InstanceMetrics, _Mapping]] = ...) -> None: ...

class InstanceMetrics(_message.Message):
    __slots__ = ("time", "requests_running", "requests_waiting", "slots", "slots_full", "kv_used_percent", "generated_tokens_per_second", "prompt_tokens_per_second", "requests_per_second", "error_ratio", "cache_hit_ratio", "generated_tokens_total", "prompt_tokens_total", "requests_total", "time_to_first_token", "inter_token", "request", "problem", "cached_tokens_total", "failed_total", "preemptions_total", "request_tokens_per_second", "prefill_tokens_per_second", "slots_busy", "queue", "prefill", "decode", "service")
    TIME_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_WAITING_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FULL_FIELD_NUMBER: _ClassVar[int]
    KV_USED_PERCENT_FIELD_NUMBER: _ClassVar[int]
    GENERATED_TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    ERROR_RATIO_FIELD_NUMBER: _ClassVar[int]
    CACHE_HIT_RATIO_FIELD_NUMBER: _ClassVar[int]
    GENERATED_TOKENS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INTER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    FAILED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    PREEMPTIONS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    PREFILL_TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    SLOTS_BUSY_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    PREFILL_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    requests_running: int
    requests_waiting: int
    slots: int
    slots_full: bool
    kv_used_percent: float
    generated_tokens_per_second: float
    prompt_tokens_per_second: float
    requests_per_second: float
    error_ratio: float
    cache_hit_ratio: float
    generated_tokens_total: int
    prompt_tokens_total: int
    requests_total: int
    time_to_first_token: Latency
    inter_token: Latency
    request: Latency
    problem: str
    cached_tokens_total: int
    failed_total: int
    preemptions_total: int
    request_tokens_per_second: float
    prefill_tokens_per_second: float
    slots_busy: float
    queue: Latency
    prefill: Latency
    decode: Latency
    service: str
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., requests_running: _Optional[int] = ..., requests_waiting: _Optional[int] = ..., slots: _Optional[int] = ..., slots_full: bool = ..., kv_used_percent: _Optional[float] = ..., generated_tokens_per_second: _Optional[float] = ..., prompt_tokens_per_second: _Optional[float] = ..., requests_per_second: _Optional[float] = ..., error_ratio: _Optional[float] = ..., cache_hit_ratio: _Optional[float] = ..., generated_tokens_total: _Optional[int] = ..., prompt_tokens_total: _Optional[int] = ..., requests_total: _Optional[int] = ..., time_to_first_token: _Optional[_Union[Latency, _Mapping]] = ..., inter_token: _Optional[_Union[Latency, _Mapping]] = ..., request: _Optional[_Union[Latency, _Mapping]] = ..., problem: _Optional[str] = ..., cached_tokens_total: _Optional[int] = ..., failed_total: _Optional[int] = ..., preemptions_total: _Optional[int] = ..., request_tokens_per_second: _Optional[float] = ..., prefill_tokens_per_second: _Optional[float] = ..., slots_busy: _Optional[float] = ..., queue: _Optional[_Union[Latency, _Mapping]] = ..., prefill: _Optional[_Union[Latency, _Mapping]] = ..., decode: _Optional[_Union[Latency, _Mapping]] = ..., service: _Optional[str] = ...) -> None: ...

class Latency(_message.Message):
    __slots__ = ("p50", "p99", "source")
    P50_FIELD_NUMBER: _ClassVar[int]
    P99_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    p50: _duration_pb2.Duration
    p99: _duration_pb2.Duration
    source: str
    def __init__(self, p50: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., p99: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., source: _Optional[str] = ...) -> None: ...

class Sleep(_message.Message):
    __slots__ = ("level", "time", "actor")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    level: int
    time: _timestamp_pb2.Timestamp
    actor: str
    def __init__(self, level: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., actor: _Optional[str] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("cpus", "memory_bytes")
    CPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    cpus: float
    memory_bytes: int
    def __init__(self, cpus: _Optional[float] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class SleepInstanceRequest(_message.Message):
    __slots__ = ("request_id", "name", "level", "grace", "owner")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    name: str
    level: int
    grace: _duration_pb2.Duration
    owner: str
    def __init__(self, request_id: _Optional[str] = ..., name: _Optional[str] = ..., level: _Optional[int] = ..., grace: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., owner: _Optional[str] = ...) -> None: ...

class SleepInstanceResponse(_message.Message):
    __slots__ = ("instance",)
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    instance: Instance
    def __init__(self, instance: _Optional[_Union[Instance, _Mapping]] = ...) -> None: ...

class WakeInstanceRequest(_message.Message):
    __slots__ = ("request_id", "name", "owner")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    name: str
    owner: str
    def __init__(self, request_id: _Optional[str] = ..., name: _Optional[str] = ..., owner: _Optional[str] = ...) -> None: ...

class WakeInstanceResponse(_message.Message):
    __slots__ = ("instance",)
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    instance: Instance
    def __init__(self, instance: _Optional[_Union[Instance, _Mapping]] = ...) -> None: ...

class LoadModelRequest(_message.Message):
    __slots__ = ("request_id", "model", "options", "devices", "validate_only", "owner", "priority", "sharing", "preemptible", "max_wait", "reservation", "idle_ttl", "pinned", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    SHARING_FIELD_NUMBER: _ClassVar[int]
    PREEMPTIBLE_FIELD_NUMBER: _ClassVar[int]
    MAX_WAIT_FIELD_NUMBER: _ClassVar[int]
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    IDLE_TTL_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    options: _models_pb2.ModelOptions
    devices: _containers.RepeatedScalarFieldContainer[str]
    validate_only: bool
    owner: str
    priority: _reservations_pb2.Priority
    sharing: _reservations_pb2.Sharing
    preemptible: bool
    max_wait: _duration_pb2.Duration
    reservation: str
    idle_ttl: _duration_pb2.Duration
    pinned: bool
    labels: _containers.ScalarMap[str, str]
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., options: _Optional[_Union[_models_pb2.ModelOptions, _Mapping]] = ..., devices: _Optional[_Iterable[str]] = ..., validate_only: bool = ..., owner: _Optional[str] = ..., priority: _Optional[_Union[_reservations_pb2.Priority, str]] = ..., sharing: _Optional[_Union[_reservations_pb2.Sharing, str]] = ..., preemptible: bool = ..., max_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reservation: _Optional[str] = ..., idle_ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., pinned: bool = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class LoadModelResponse(_message.Message):
    __slots__ = ("instance", "phase", "fraction", "detail", "elapsed")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_FIELD_NUMBER: _ClassVar[int]
    instance: Instance
    phase: LoadPhase
    fraction: float
    detail: str
    elapsed: _duration_pb2.Duration
    def __init__(self, instance: _Optional[_Union[Instance, _Mapping]] = ..., phase: _Optional[_Union[LoadPhase, str]] = ..., fraction: _Optional[float] = ..., detail: _Optional[str] = ..., elapsed: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class UnloadModelRequest(_message.Message):
    __slots__ = ("request_id", "instance", "model", "grace", "force", "owner")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    instance: str
    model: str
    grace: _duration_pb2.Duration
    force: bool
    owner: str
    def __init__(self, request_id: _Optional[str] = ..., instance: _Optional[str] = ..., model: _Optional[str] = ..., grace: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., force: bool = ..., owner: _Optional[str] = ...) -> None: ...

class UnloadModelResponse(_message.Message):
    __slots__ = ("instance", "phase", "detail", "elapsed", "freed_bytes")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_FIELD_NUMBER: _ClassVar[int]
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    instance: Instance
    phase: UnloadPhase
    detail: str
    elapsed: _duration_pb2.Duration
    freed_bytes: int
    def __init__(self, instance: _Optional[_Union[Instance, _Mapping]] = ..., phase: _Optional[_Union[UnloadPhase, str]] = ..., detail: _Optional[str] = ..., elapsed: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., freed_bytes: _Optional[int] = ...) -> None: ...

class GetInstanceRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetInstanceResponse(_message.Message):
    __slots__ = ("instance",)
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    instance: Instance
    def __init__(self, instance: _Optional[_Union[Instance, _Mapping]] = ...) -> None: ...

class ListInstancesRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "states", "model")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    states: _containers.RepeatedScalarFieldContainer[InstanceState]
    model: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., states: _Optional[_Iterable[_Union[InstanceState, str]]] = ..., model: _Optional[str] = ...) -> None: ...

class ListInstancesResponse(_message.Message):
    __slots__ = ("instances", "next_page_token")
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    instances: _containers.RepeatedCompositeFieldContainer[Instance]
    next_page_token: str
    def __init__(self, instances: _Optional[_Iterable[_Union[Instance, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchInstanceRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class WatchInstanceResponse(_message.Message):
    __slots__ = ("instance",)
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    instance: Instance
    def __init__(self, instance: _Optional[_Union[Instance, _Mapping]] = ...) -> None: ...

class TailOutputRequest(_message.Message):
    __slots__ = ("instance", "lines", "follow", "since")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    instance: str
    lines: int
    follow: bool
    since: _timestamp_pb2.Timestamp
    def __init__(self, instance: _Optional[str] = ..., lines: _Optional[int] = ..., follow: bool = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class TailOutputResponse(_message.Message):
    __slots__ = ("lines",)
    LINES_FIELD_NUMBER: _ClassVar[int]
    lines: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, lines: _Optional[_Iterable[str]] = ...) -> None: ...

class ResetInstanceRequest(_message.Message):
    __slots__ = ("request_id", "name", "owner")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    name: str
    owner: str
    def __init__(self, request_id: _Optional[str] = ..., name: _Optional[str] = ..., owner: _Optional[str] = ...) -> None: ...

class ResetInstanceResponse(_message.Message):
    __slots__ = ("instance",)
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    instance: Instance
    def __init__(self, instance: _Optional[_Union[Instance, _Mapping]] = ...) -> None: ...

class Orphan(_message.Message):
    __slots__ = ("pid", "instance", "command", "start_time", "uid", "uses", "resident_bytes", "provable", "reason")
    PID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROVABLE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    pid: int
    instance: str
    command: str
    start_time: _timestamp_pb2.Timestamp
    uid: int
    uses: _containers.RepeatedCompositeFieldContainer[OrphanUse]
    resident_bytes: int
    provable: bool
    reason: str
    def __init__(self, pid: _Optional[int] = ..., instance: _Optional[str] = ..., command: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., uid: _Optional[int] = ..., uses: _Optional[_Iterable[_Union[OrphanUse, _Mapping]]] = ..., resident_bytes: _Optional[int] = ..., provable: bool = ..., reason: _Optional[str] = ...) -> None: ...

class OrphanUse(_message.Message):
    __slots__ = ("device", "used_bytes")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    device: str
    used_bytes: int
    def __init__(self, device: _Optional[str] = ..., used_bytes: _Optional[int] = ...) -> None: ...

class ListOrphansRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListOrphansResponse(_message.Message):
    __slots__ = ("orphans", "next_page_token")
    ORPHANS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    orphans: _containers.RepeatedCompositeFieldContainer[Orphan]
    next_page_token: str
    def __init__(self, orphans: _Optional[_Iterable[_Union[Orphan, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ReapOrphansRequest(_message.Message):
    __slots__ = ("request_id", "pids", "owner")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PIDS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    pids: _containers.RepeatedScalarFieldContainer[int]
    owner: str
    def __init__(self, request_id: _Optional[str] = ..., pids: _Optional[_Iterable[int]] = ..., owner: _Optional[str] = ...) -> None: ...

class ReapOrphansResponse(_message.Message):
    __slots__ = ("reaped", "refused", "remaining")
    REAPED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    reaped: _containers.RepeatedCompositeFieldContainer[Orphan]
    refused: _containers.RepeatedCompositeFieldContainer[Orphan]
    remaining: _containers.RepeatedCompositeFieldContainer[Orphan]
    def __init__(self, reaped: _Optional[_Iterable[_Union[Orphan, _Mapping]]] = ..., refused: _Optional[_Iterable[_Union[Orphan, _Mapping]]] = ..., remaining: _Optional[_Iterable[_Union[Orphan, _Mapping]]] = ...) -> None: ...
