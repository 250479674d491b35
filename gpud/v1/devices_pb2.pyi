import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DeviceKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEVICE_KIND_UNSPECIFIED: _ClassVar[DeviceKind]
    DEVICE_KIND_GPU: _ClassVar[DeviceKind]
    DEVICE_KIND_MIG: _ClassVar[DeviceKind]
    DEVICE_KIND_HOST: _ClassVar[DeviceKind]
    DEVICE_KIND_SIMULATED: _ClassVar[DeviceKind]

class DeviceHealth(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEVICE_HEALTH_UNSPECIFIED: _ClassVar[DeviceHealth]
    DEVICE_HEALTH_HEALTHY: _ClassVar[DeviceHealth]
    DEVICE_HEALTH_UNRESPONSIVE: _ClassVar[DeviceHealth]
    DEVICE_HEALTH_LOST: _ClassVar[DeviceHealth]
    DEVICE_HEALTH_UNKNOWN: _ClassVar[DeviceHealth]

class Pressure(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRESSURE_UNSPECIFIED: _ClassVar[Pressure]
    PRESSURE_LOW: _ClassVar[Pressure]
    PRESSURE_NORMAL: _ClassVar[Pressure]
    PRESSURE_HIGH: _ClassVar[Pressure]
    PRESSURE_CRITICAL: _ClassVar[Pressure]

class Thermal(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    THERMAL_UNSPECIFIED: _ClassVar[Thermal]
    THERMAL_NORMAL: _ClassVar[Thermal]
    THERMAL_WARNING: _ClassVar[Thermal]
    THERMAL_THROTTLING: _ClassVar[Thermal]
    THERMAL_CRITICAL: _ClassVar[Thermal]

class ComputeMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMPUTE_MODE_UNSPECIFIED: _ClassVar[ComputeMode]
    COMPUTE_MODE_DEFAULT: _ClassVar[ComputeMode]
    COMPUTE_MODE_EXCLUSIVE_THREAD: _ClassVar[ComputeMode]
    COMPUTE_MODE_PROHIBITED: _ClassVar[ComputeMode]
    COMPUTE_MODE_EXCLUSIVE_PROCESS: _ClassVar[ComputeMode]

class SuggestedAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SUGGESTED_ACTION_UNSPECIFIED: _ClassVar[SuggestedAction]
    SUGGESTED_ACTION_NONE: _ClassVar[SuggestedAction]
    SUGGESTED_ACTION_RESTART_APP: _ClassVar[SuggestedAction]
    SUGGESTED_ACTION_RESET: _ClassVar[SuggestedAction]
    SUGGESTED_ACTION_REBOOT: _ClassVar[SuggestedAction]
    SUGGESTED_ACTION_INSPECT: _ClassVar[SuggestedAction]

class ProcessRelation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROCESS_RELATION_UNSPECIFIED: _ClassVar[ProcessRelation]
    PROCESS_RELATION_OWNER: _ClassVar[ProcessRelation]
    PROCESS_RELATION_ATTACHED: _ClassVar[ProcessRelation]
    PROCESS_RELATION_FOREIGN: _ClassVar[ProcessRelation]
    PROCESS_RELATION_TRESPASSER: _ClassVar[ProcessRelation]

class ProcessKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROCESS_KIND_UNSPECIFIED: _ClassVar[ProcessKind]
    PROCESS_KIND_COMPUTE: _ClassVar[ProcessKind]
    PROCESS_KIND_GRAPHICS: _ClassVar[ProcessKind]
    PROCESS_KIND_MPS: _ClassVar[ProcessKind]
DEVICE_KIND_UNSPECIFIED: DeviceKind
DEVICE_KIND_GPU: DeviceKind
DEVICE_KIND_MIG: DeviceKind
DEVICE_KIND_HOST: DeviceKind
DEVICE_KIND_SIMULATED: DeviceKind
DEVICE_HEALTH_UNSPECIFIED: DeviceHealth
DEVICE_HEALTH_HEALTHY: DeviceHealth
DEVICE_HEALTH_UNRESPONSIVE: DeviceHealth
DEVICE_HEALTH_LOST: DeviceHealth
DEVICE_HEALTH_UNKNOWN: DeviceHealth
PRESSURE_UNSPECIFIED: Pressure
PRESSURE_LOW: Pressure
PRESSURE_NORMAL: Pressure
PRESSURE_HIGH: Pressure
PRESSURE_CRITICAL: Pressure
THERMAL_UNSPECIFIED: Thermal
THERMAL_NORMAL: Thermal
THERMAL_WARNING: Thermal
THERMAL_THROTTLING: Thermal
THERMAL_CRITICAL: Thermal
COMPUTE_MODE_UNSPECIFIED: ComputeMode
COMPUTE_MODE_DEFAULT: ComputeMode
COMPUTE_MODE_EXCLUSIVE_THREAD: ComputeMode
COMPUTE_MODE_PROHIBITED: ComputeMode
COMPUTE_MODE_EXCLUSIVE_PROCESS: ComputeMode
SUGGESTED_ACTION_UNSPECIFIED: SuggestedAction
SUGGESTED_ACTION_NONE: SuggestedAction
SUGGESTED_ACTION_RESTART_APP: SuggestedAction
SUGGESTED_ACTION_RESET: SuggestedAction
SUGGESTED_ACTION_REBOOT: SuggestedAction
SUGGESTED_ACTION_INSPECT: SuggestedAction
PROCESS_RELATION_UNSPECIFIED: ProcessRelation
PROCESS_RELATION_OWNER: ProcessRelation
PROCESS_RELATION_ATTACHED: ProcessRelation
PROCESS_RELATION_FOREIGN: ProcessRelation
PROCESS_RELATION_TRESPASSER: ProcessRelation
PROCESS_KIND_UNSPECIFIED: ProcessKind
PROCESS_KIND_COMPUTE: ProcessKind
PROCESS_KIND_GRAPHICS: ProcessKind
PROCESS_KIND_MPS: ProcessKind

class Device(_message.Message):
    __slots__ = ("name", "alias", "index", "kind", "model_name", "memory_total_bytes", "reserve_bytes", "grantable_bytes", "granted_bytes", "foreign_bytes", "unattributed_bytes", "leaked_bytes", "free_bytes", "health", "health_reason", "compute_mode", "parent", "mig_enabled", "pci_bus_id", "driver_version", "numa_node", "sample", "pressure", "thermal", "cordoned", "cordon_reason", "cpu_affinity", "exclusive_reservation", "suggested_action", "action_reason", "xids", "memory_pressure_events")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESERVE_BYTES_FIELD_NUMBER: _ClassVar[int]
    GRANTABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    GRANTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    FOREIGN_BYTES_FIELD_NUMBER: _ClassVar[int]
    UNATTRIBUTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    LEAKED_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    HEALTH_REASON_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_MODE_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    MIG_ENABLED_FIELD_NUMBER: _ClassVar[int]
    PCI_BUS_ID_FIELD_NUMBER: _ClassVar[int]
    DRIVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    NUMA_NODE_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    PRESSURE_FIELD_NUMBER: _ClassVar[int]
    THERMAL_FIELD_NUMBER: _ClassVar[int]
    CORDONED_FIELD_NUMBER: _ClassVar[int]
    CORDON_REASON_FIELD_NUMBER: _ClassVar[int]
    CPU_AFFINITY_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIVE_RESERVATION_FIELD_NUMBER: _ClassVar[int]
    SUGGESTED_ACTION_FIELD_NUMBER: _ClassVar[int]
    ACTION_REASON_FIELD_NUMBER: _ClassVar[int]
    XIDS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PRESSURE_EVENTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    alias: str
    index: int
    kind: DeviceKind
    model_name: str
    memory_total_bytes: int
    reserve_bytes: int
    grantable_bytes: int
    granted_bytes: int
    foreign_bytes: int
    unattributed_bytes: int
    leaked_bytes: int
    free_bytes: int
    health: DeviceHealth
    health_reason: str
    compute_mode: ComputeMode
    parent: str
    mig_enabled: bool
    pci_bus_id: str
    driver_version: str
    numa_node: int
    sample: Sample
    pressure: Pressure
    thermal: Thermal
    cordoned: bool
    cordon_reason: str
    cpu_affinity: str
    exclusive_reservation: str
    suggested_action: SuggestedAction
    action_reason: str
    xids: _containers.RepeatedCompositeFieldContainer[XidCount]
    memory_pressure_events: int
    def __init__(self, name: _Optional[str] = ..., alias: _Optional[str] = ..., index: _Optional[int] = ..., kind: _Optional[_Union[DeviceKind, str]] = ..., model_name: _Optional[str] = ..., memory_total_bytes: _Optional[int] = ..., reserve_bytes: _Optional[int] = ..., grantable_bytes: _Optional[int] = ..., granted_bytes: _Optional[int] = ..., foreign_bytes: _Optional[int] = ..., unattributed_bytes: _Optional[int] = ..., leaked_bytes: _Optional[int] = ..., free_bytes: _Optional[int] = ..., health: _Optional[_Union[DeviceHealth, str]] = ..., health_reason: _Optional[str] = ..., compute_mode: _Optional[_Union[ComputeMode, str]] = ..., parent: _Optional[str] = ..., mig_enabled: bool = ..., pci_bus_id: _Optional[str] = ..., driver_version: _Optional[str] = ..., numa_node: _Optional[int] = ..., sample: _Optional[_Union[Sample, _Mapping]] = ..., pressure: _Optional[_Union[Pressure, str]] = ..., thermal: _Optional[_Union[Thermal, str]] = ..., cordoned: bool = ..., cordon_reason: _Optional[str] = ..., cpu_affinity: _Optional[str] = ..., exclusive_reservation: _Optional[str] = ..., suggested_action: _Optional[_Union[SuggestedAction, str]] = ..., action_reason: _Optional[str] = ..., xids: _Optional[_Iterable[_Union[XidCount, _Mapping]]] = ..., memory_pressure_events: _Optional[int] = ...) -> None: ...

class XidCount(_message.Message):
    __slots__ = ("xid", "count", "meaning")
    XID_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MEANING_FIELD_NUMBER: _ClassVar[int]
    xid: int
    count: int
    meaning: str
    def __init__(self, xid: _Optional[int] = ..., count: _Optional[int] = ..., meaning: _Optional[str] = ...) -> None: ...

class Sample(_message.Message):
    __slots__ = ("time", "memory_used_bytes", "utilization_percent", "memory_utilization_percent", "temperature_celsius", "power_watts", "power_limit_watts", "fan_percent", "sm_clock_mhz", "memory_clock_mhz", "processes_time", "processes", "memory_temperature_celsius", "video_clock_mhz", "performance_state", "encoder_percent", "decoder_percent", "energy_joules", "throttle_reasons", "throttled", "ecc_enabled", "ecc_corrected_count", "ecc_uncorrected_count", "remapped_corrected_count", "remapped_uncorrected_count", "remap_pending", "remap_failed", "retired_page_count", "pcie_generation", "pcie_width", "pcie_replay_count", "pcie_sent_bytes_per_second", "pcie_received_bytes_per_second", "nvlink_active_count", "nvlink_error_count", "nvlink_sent_bytes_per_second", "nvlink_received_bytes_per_second")
    TIME_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    UTILIZATION_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_UTILIZATION_PERCENT_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_CELSIUS_FIELD_NUMBER: _ClassVar[int]
    POWER_WATTS_FIELD_NUMBER: _ClassVar[int]
    POWER_LIMIT_WATTS_FIELD_NUMBER: _ClassVar[int]
    FAN_PERCENT_FIELD_NUMBER: _ClassVar[int]
    SM_CLOCK_MHZ_FIELD_NUMBER: _ClassVar[int]
    MEMORY_CLOCK_MHZ_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_TIME_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TEMPERATURE_CELSIUS_FIELD_NUMBER: _ClassVar[int]
    VIDEO_CLOCK_MHZ_FIELD_NUMBER: _ClassVar[int]
    PERFORMANCE_STATE_FIELD_NUMBER: _ClassVar[int]
    ENCODER_PERCENT_FIELD_NUMBER: _ClassVar[int]
    DECODER_PERCENT_FIELD_NUMBER: _ClassVar[int]
    ENERGY_JOULES_FIELD_NUMBER: _ClassVar[int]
    THROTTLE_REASONS_FIELD_NUMBER: _ClassVar[int]
    THROTTLED_FIELD_NUMBER: _ClassVar[int]
    ECC_ENABLED_FIELD_NUMBER: _ClassVar[int]
    ECC_CORRECTED_COUNT_FIELD_NUMBER: _ClassVar[int]
    ECC_UNCORRECTED_COUNT_FIELD_NUMBER: _ClassVar[int]
    REMAPPED_CORRECTED_COUNT_FIELD_NUMBER: _ClassVar[int]
    REMAPPED_UNCORRECTED_COUNT_FIELD_NUMBER: _ClassVar[int]
    REMAP_PENDING_FIELD_NUMBER: _ClassVar[int]
    REMAP_FAILED_FIELD_NUMBER: _ClassVar[int]
    RETIRED_PAGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    PCIE_GENERATION_FIELD_NUMBER: _ClassVar[int]
    PCIE_WIDTH_FIELD_NUMBER: _ClassVar[int]
    PCIE_REPLAY_COUNT_FIELD_NUMBER: _ClassVar[int]
    PCIE_SENT_BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    PCIE_RECEIVED_BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    NVLINK_ACTIVE_COUNT_FIELD_NUMBER: _ClassVar[int]
    NVLINK_ERROR_COUNT_FIELD_NUMBER: _ClassVar[int]
    NVLINK_SENT_BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    NVLINK_RECEIVED_BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    memory_used_bytes: int
    utilization_percent: float
    memory_utilization_percent: float
    temperature_celsius: float
    power_watts: float
    power_limit_watts: float
    fan_percent: float
    sm_clock_mhz: int
    memory_clock_mhz: int
    processes_time: _timestamp_pb2.Timestamp
    processes: _containers.RepeatedCompositeFieldContainer[DeviceProcess]
    memory_temperature_celsius: float
    video_clock_mhz: int
    performance_state: int
    encoder_percent: float
    decoder_percent: float
    energy_joules: float
    throttle_reasons: _containers.RepeatedScalarFieldContainer[str]
    throttled: bool
    ecc_enabled: bool
    ecc_corrected_count: int
    ecc_uncorrected_count: int
    remapped_corrected_count: int
    remapped_uncorrected_count: int
    remap_pending: bool
    remap_failed: bool
    retired_page_count: int
    pcie_generation: int
    pcie_width: int
    pcie_replay_count: int
    pcie_sent_bytes_per_second: float
    pcie_received_bytes_per_second: float
    nvlink_active_count: int
    nvlink_error_count: int
    nvlink_sent_bytes_per_second: float
    nvlink_received_bytes_per_second: float
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., memory_used_bytes: _Optional[int] = ..., utilization_percent: _Optional[float] = ..., memory_utilization_percent: _Optional[float] = ..., temperature_celsius: _Optional[float] = ..., power_watts: _Optional[float] = ..., power_limit_watts: _Optional[float] = ..., fan_percent: _Optional[float] = ..., sm_clock_mhz: _Optional[int] = ..., memory_clock_mhz: _Optional[int] = ..., processes_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., processes: _Optional[_Iterable[_Union[DeviceProcess, _Mapping]]] = ..., memory_temperature_celsius: _Optional[float] = ..., video_clock_mhz: _Optional[int] = ..., performance_state: _Optional[int] = ..., encoder_percent: _Optional[float] = ..., decoder_percent: _Optional[float] = ..., energy_joules: _Optional[float] = ..., throttle_reasons: _Optional[_Iterable[str]] = ..., throttled: bool = ..., ecc_enabled: bool = ..., ecc_corrected_count: _Optional[int] = ..., ecc_uncorrected_count: _Optional[int] = ..., remapped_corrected_count: _Optional[int] = ..., remapped_uncorrected_count: _Optional[int] = ..., remap_pending: bool = ..., remap_failed: bool = ..., retired_page_count: _Optional[int] = ..., pcie_generation: _Optional[int] = ..., pcie_width: _Optional[int] = ..., pcie_replay_count: _Optional[int] = ..., pcie_sent_bytes_per_second: _Optional[float] = ..., pcie_received_bytes_per_second: _Optional[float] = ..., nvlink_active_count: _Optional[int] = ..., nvlink_error_count: _Optional[int] = ..., nvlink_sent_bytes_per_second: _Optional[float] = ..., nvlink_received_bytes_per_second: _Optional[float] = ...) -> None: ...

class DeviceProcess(_message.Message):
    __slots__ = ("pid", "process_name", "used_bytes", "kind", "reservation", "relation")
    PID_FIELD_NUMBER: _ClassVar[int]
    PROCESS_NAME_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    RESERVATION_FIELD_NUMBER: _ClassVar[int]
    RELATION_FIELD_NUMBER: _ClassVar[int]
    pid: int
    process_name: str
    used_bytes: int
    kind: ProcessKind
    reservation: str
    relation: ProcessRelation
    def __init__(self, pid: _Optional[int] = ..., process_name: _Optional[str] = ..., used_bytes: _Optional[int] = ..., kind: _Optional[_Union[ProcessKind, str]] = ..., reservation: _Optional[str] = ..., relation: _Optional[_Union[ProcessRelation, str]] = ...) -> None: ...

class ListDevicesRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "include_processes")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_PROCESSES_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    include_processes: bool
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., include_processes: bool = ...) -> None: ...

class ListDevicesResponse(_message.Message):
    __slots__ = ("devices", "next_page_token")
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedCompositeFieldContainer[Device]
    next_page_token: str
    def __init__(self, devices: _Optional[_Iterable[_Union[Device, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetDeviceRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetDeviceResponse(_message.Message):
    __slots__ = ("device",)
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    device: Device
    def __init__(self, device: _Optional[_Union[Device, _Mapping]] = ...) -> None: ...

class CordonDeviceRequest(_message.Message):
    __slots__ = ("request_id", "name", "reason", "owner")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    name: str
    reason: str
    owner: str
    def __init__(self, request_id: _Optional[str] = ..., name: _Optional[str] = ..., reason: _Optional[str] = ..., owner: _Optional[str] = ...) -> None: ...

class CordonDeviceResponse(_message.Message):
    __slots__ = ("device",)
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    device: Device
    def __init__(self, device: _Optional[_Union[Device, _Mapping]] = ...) -> None: ...

class UncordonDeviceRequest(_message.Message):
    __slots__ = ("request_id", "name", "owner")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    name: str
    owner: str
    def __init__(self, request_id: _Optional[str] = ..., name: _Optional[str] = ..., owner: _Optional[str] = ...) -> None: ...

class UncordonDeviceResponse(_message.Message):
    __slots__ = ("device",)
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    device: Device
    def __init__(self, device: _Optional[_Union[Device, _Mapping]] = ...) -> None: ...
