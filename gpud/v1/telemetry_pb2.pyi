import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from gpud.v1 import alerts_pb2 as _alerts_pb2
from gpud.v1 import devices_pb2 as _devices_pb2
from gpud.v1 import forecast_pb2 as _forecast_pb2
from gpud.v1 import history_pb2 as _history_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Snapshot(_message.Message):
    __slots__ = ("sequence", "time", "devices", "host", "dropped_count", "epoch", "missed_count")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    DROPPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MISSED_COUNT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: _timestamp_pb2.Timestamp
    devices: _containers.RepeatedCompositeFieldContainer[_devices_pb2.Device]
    host: HostReadings
    dropped_count: int
    epoch: str
    missed_count: int
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., devices: _Optional[_Iterable[_Union[_devices_pb2.Device, _Mapping]]] = ..., host: _Optional[_Union[HostReadings, _Mapping]] = ..., dropped_count: _Optional[int] = ..., epoch: _Optional[str] = ..., missed_count: _Optional[int] = ...) -> None: ...

class HostReadings(_message.Message):
    __slots__ = ("cpu_percent", "load_average", "memory_total_bytes", "memory_available_bytes", "swap_total_bytes", "swap_used_bytes", "memory_some_percent", "memory_full_percent", "memory_pressure_events", "cpu_some_percent", "io_some_percent", "io_full_percent", "nodes", "disks")
    CPU_PERCENT_FIELD_NUMBER: _ClassVar[int]
    LOAD_AVERAGE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SWAP_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    SWAP_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_SOME_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FULL_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PRESSURE_EVENTS_FIELD_NUMBER: _ClassVar[int]
    CPU_SOME_PERCENT_FIELD_NUMBER: _ClassVar[int]
    IO_SOME_PERCENT_FIELD_NUMBER: _ClassVar[int]
    IO_FULL_PERCENT_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    DISKS_FIELD_NUMBER: _ClassVar[int]
    cpu_percent: float
    load_average: float
    memory_total_bytes: int
    memory_available_bytes: int
    swap_total_bytes: int
    swap_used_bytes: int
    memory_some_percent: float
    memory_full_percent: float
    memory_pressure_events: int
    cpu_some_percent: float
    io_some_percent: float
    io_full_percent: float
    nodes: _containers.RepeatedCompositeFieldContainer[NodeMemory]
    disks: _containers.RepeatedCompositeFieldContainer[Disk]
    def __init__(self, cpu_percent: _Optional[float] = ..., load_average: _Optional[float] = ..., memory_total_bytes: _Optional[int] = ..., memory_available_bytes: _Optional[int] = ..., swap_total_bytes: _Optional[int] = ..., swap_used_bytes: _Optional[int] = ..., memory_some_percent: _Optional[float] = ..., memory_full_percent: _Optional[float] = ..., memory_pressure_events: _Optional[int] = ..., cpu_some_percent: _Optional[float] = ..., io_some_percent: _Optional[float] = ..., io_full_percent: _Optional[float] = ..., nodes: _Optional[_Iterable[_Union[NodeMemory, _Mapping]]] = ..., disks: _Optional[_Iterable[_Union[Disk, _Mapping]]] = ...) -> None: ...

class NodeMemory(_message.Message):
    __slots__ = ("node", "total_bytes", "free_bytes")
    NODE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    node: int
    total_bytes: int
    free_bytes: int
    def __init__(self, node: _Optional[int] = ..., total_bytes: _Optional[int] = ..., free_bytes: _Optional[int] = ...) -> None: ...

class Disk(_message.Message):
    __slots__ = ("what", "path", "total_bytes", "free_bytes", "disk")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_FIELD_NUMBER: _ClassVar[int]
    what: str
    path: str
    total_bytes: int
    free_bytes: int
    disk: str
    def __init__(self, what: _Optional[str] = ..., path: _Optional[str] = ..., total_bytes: _Optional[int] = ..., free_bytes: _Optional[int] = ..., disk: _Optional[str] = ...) -> None: ...

class GetSnapshotRequest(_message.Message):
    __slots__ = ("devices", "include_processes")
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_PROCESSES_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedScalarFieldContainer[str]
    include_processes: bool
    def __init__(self, devices: _Optional[_Iterable[str]] = ..., include_processes: bool = ...) -> None: ...

class GetSnapshotResponse(_message.Message):
    __slots__ = ("snapshot",)
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    snapshot: Snapshot
    def __init__(self, snapshot: _Optional[_Union[Snapshot, _Mapping]] = ...) -> None: ...

class WatchSnapshotsRequest(_message.Message):
    __slots__ = ("interval", "devices", "include_processes", "after_sequence", "epoch")
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_PROCESSES_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    interval: _duration_pb2.Duration
    devices: _containers.RepeatedScalarFieldContainer[str]
    include_processes: bool
    after_sequence: int
    epoch: str
    def __init__(self, interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., devices: _Optional[_Iterable[str]] = ..., include_processes: bool = ..., after_sequence: _Optional[int] = ..., epoch: _Optional[str] = ...) -> None: ...

class WatchSnapshotsResponse(_message.Message):
    __slots__ = ("snapshot",)
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    snapshot: Snapshot
    def __init__(self, snapshot: _Optional[_Union[Snapshot, _Mapping]] = ...) -> None: ...
