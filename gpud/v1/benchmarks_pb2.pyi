import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from gpud.v1 import models_pb2 as _models_pb2
from gpud.v1 import node_pb2 as _node_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BenchmarkPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BENCHMARK_PHASE_UNSPECIFIED: _ClassVar[BenchmarkPhase]
    BENCHMARK_PHASE_DRAIN: _ClassVar[BenchmarkPhase]
    BENCHMARK_PHASE_WARMUP: _ClassVar[BenchmarkPhase]
    BENCHMARK_PHASE_MEASURE: _ClassVar[BenchmarkPhase]
    BENCHMARK_PHASE_DONE: _ClassVar[BenchmarkPhase]
BENCHMARK_PHASE_UNSPECIFIED: BenchmarkPhase
BENCHMARK_PHASE_DRAIN: BenchmarkPhase
BENCHMARK_PHASE_WARMUP: BenchmarkPhase
BENCHMARK_PHASE_MEASURE: BenchmarkPhase
BENCHMARK_PHASE_DONE: BenchmarkPhase

class Percentiles(_message.Message):
    __slots__ = ("p50", "p90", "p99")
    P50_FIELD_NUMBER: _ClassVar[int]
    P90_FIELD_NUMBER: _ClassVar[int]
    P99_FIELD_NUMBER: _ClassVar[int]
    p50: _duration_pb2.Duration
    p90: _duration_pb2.Duration
    p99: _duration_pb2.Duration
    def __init__(self, p50: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., p90: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., p99: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class BenchmarkErrors(_message.Message):
    __slots__ = ("kind", "count", "detail")
    KIND_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    kind: str
    count: int
    detail: str
    def __init__(self, kind: _Optional[str] = ..., count: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class BenchmarkLevel(_message.Message):
    __slots__ = ("concurrency", "requests", "completed", "errors", "error_ratio", "duration", "prompt_tokens", "output_tokens", "time_to_first_token", "inter_token", "request_latency", "tokens_per_second", "request_tokens_per_second", "prompt_tokens_per_second", "prefill_tokens_per_second", "requests_per_second")
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    ERROR_RATIO_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INTER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_LATENCY_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    REQUEST_TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    PREFILL_TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    concurrency: int
    requests: int
    completed: int
    errors: _containers.RepeatedCompositeFieldContainer[BenchmarkErrors]
    error_ratio: float
    duration: _duration_pb2.Duration
    prompt_tokens: int
    output_tokens: int
    time_to_first_token: Percentiles
    inter_token: Percentiles
    request_latency: Percentiles
    tokens_per_second: float
    request_tokens_per_second: float
    prompt_tokens_per_second: float
    prefill_tokens_per_second: float
    requests_per_second: float
    def __init__(self, concurrency: _Optional[int] = ..., requests: _Optional[int] = ..., completed: _Optional[int] = ..., errors: _Optional[_Iterable[_Union[BenchmarkErrors, _Mapping]]] = ..., error_ratio: _Optional[float] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., prompt_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., time_to_first_token: _Optional[_Union[Percentiles, _Mapping]] = ..., inter_token: _Optional[_Union[Percentiles, _Mapping]] = ..., request_latency: _Optional[_Union[Percentiles, _Mapping]] = ..., tokens_per_second: _Optional[float] = ..., request_tokens_per_second: _Optional[float] = ..., prompt_tokens_per_second: _Optional[float] = ..., prefill_tokens_per_second: _Optional[float] = ..., requests_per_second: _Optional[float] = ...) -> None: ...

class BenchmarkReading(_message.Message):
    __slots__ = ("temperature_celsius", "utilization_percent", "power_watts", "sm_clock_mhz", "memory_clock_mhz")
    TEMPERATURE_CELSIUS_FIELD_NUMBER: _ClassVar[int]
    UTILIZATION_PERCENT_FIELD_NUMBER: _ClassVar[int]
    POWER_WATTS_FIELD_NUMBER: _ClassVar[int]
    SM_CLOCK_MHZ_FIELD_NUMBER: _ClassVar[int]
    MEMORY_CLOCK_MHZ_FIELD_NUMBER: _ClassVar[int]
    temperature_celsius: float
    utilization_percent: float
    power_watts: float
    sm_clock_mhz: int
    memory_clock_mhz: int
    def __init__(self, temperature_celsius: _Optional[float] = ..., utilization_percent: _Optional[float] = ..., power_watts: _Optional[float] = ..., sm_clock_mhz: _Optional[int] = ..., memory_clock_mhz: _Optional[int] = ...) -> None: ...

class BenchmarkDevice(_message.Message):
    __slots__ = ("device", "alias", "start", "end")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    device: str
    alias: str
    start: BenchmarkReading
    end: BenchmarkReading
    def __init__(self, device: _Optional[str] = ..., alias: _Optional[str] = ..., start: _Optional[_Union[BenchmarkReading, _Mapping]] = ..., end: _Optional[_Union[BenchmarkReading, _Mapping]] = ...) -> None: ...

class Benchmark(_message.Message):
    __slots__ = ("name", "model", "instance", "owner", "engine", "engine_version", "options", "create_time", "duration", "prompts", "prompt_tokens", "output_tokens", "warmup", "drained", "served_others", "levels", "devices", "void", "void_reasons")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_VERSION_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    WARMUP_FIELD_NUMBER: _ClassVar[int]
    DRAINED_FIELD_NUMBER: _ClassVar[int]
    SERVED_OTHERS_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    VOID_FIELD_NUMBER: _ClassVar[int]
    VOID_REASONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    model: str
    instance: str
    owner: str
    engine: _node_pb2.Engine
    engine_version: str
    options: _models_pb2.ModelOptions
    create_time: _timestamp_pb2.Timestamp
    duration: _duration_pb2.Duration
    prompts: int
    prompt_tokens: int
    output_tokens: int
    warmup: int
    drained: bool
    served_others: bool
    levels: _containers.RepeatedCompositeFieldContainer[BenchmarkLevel]
    devices: _containers.RepeatedCompositeFieldContainer[BenchmarkDevice]
    void: bool
    void_reasons: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., model: _Optional[str] = ..., instance: _Optional[str] = ..., owner: _Optional[str] = ..., engine: _Optional[_Union[_node_pb2.Engine, str]] = ..., engine_version: _Optional[str] = ..., options: _Optional[_Union[_models_pb2.ModelOptions, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., prompts: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., warmup: _Optional[int] = ..., drained: bool = ..., served_others: bool = ..., levels: _Optional[_Iterable[_Union[BenchmarkLevel, _Mapping]]] = ..., devices: _Optional[_Iterable[_Union[BenchmarkDevice, _Mapping]]] = ..., void: bool = ..., void_reasons: _Optional[_Iterable[str]] = ...) -> None: ...

class BenchmarkModelRequest(_message.Message):
    __slots__ = ("instance", "model", "prompts", "prompt_tokens", "output_tokens", "concurrency", "warmup", "drained", "limit")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    WARMUP_FIELD_NUMBER: _ClassVar[int]
    DRAINED_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    instance: str
    model: str
    prompts: int
    prompt_tokens: int
    output_tokens: int
    concurrency: _containers.RepeatedScalarFieldContainer[int]
    warmup: int
    drained: bool
    limit: _duration_pb2.Duration
    def __init__(self, instance: _Optional[str] = ..., model: _Optional[str] = ..., prompts: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., concurrency: _Optional[_Iterable[int]] = ..., warmup: _Optional[int] = ..., drained: bool = ..., limit: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class BenchmarkModelResponse(_message.Message):
    __slots__ = ("benchmark", "phase", "concurrency", "requests_done", "requests_total", "elapsed", "detail")
    BENCHMARK_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_DONE_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    benchmark: Benchmark
    phase: BenchmarkPhase
    concurrency: int
    requests_done: int
    requests_total: int
    elapsed: _duration_pb2.Duration
    detail: str
    def __init__(self, benchmark: _Optional[_Union[Benchmark, _Mapping]] = ..., phase: _Optional[_Union[BenchmarkPhase, str]] = ..., concurrency: _Optional[int] = ..., requests_done: _Optional[int] = ..., requests_total: _Optional[int] = ..., elapsed: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., detail: _Optional[str] = ...) -> None: ...

class ListBenchmarksRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "model")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    model: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class ListBenchmarksResponse(_message.Message):
    __slots__ = ("benchmarks", "next_page_token")
    BENCHMARKS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    benchmarks: _containers.RepeatedCompositeFieldContainer[Benchmark]
    next_page_token: str
    def __init__(self, benchmarks: _Optional[_Iterable[_Union[Benchmark, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
