import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from gpud.v1 import node_pb2 as _node_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_KIND_UNSPECIFIED: _ClassVar[ModelKind]
    MODEL_KIND_CHAT: _ClassVar[ModelKind]
    MODEL_KIND_COMPLETION: _ClassVar[ModelKind]
    MODEL_KIND_EMBEDDING: _ClassVar[ModelKind]
    MODEL_KIND_RERANK: _ClassVar[ModelKind]

class FootprintWhat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FOOTPRINT_WHAT_UNSPECIFIED: _ClassVar[FootprintWhat]
    FOOTPRINT_WHAT_WEIGHTS: _ClassVar[FootprintWhat]
    FOOTPRINT_WHAT_KV_CACHE: _ClassVar[FootprintWhat]
    FOOTPRINT_WHAT_STATE: _ClassVar[FootprintWhat]
    FOOTPRINT_WHAT_COMPUTE: _ClassVar[FootprintWhat]
    FOOTPRINT_WHAT_OUTPUT: _ClassVar[FootprintWhat]
    FOOTPRINT_WHAT_CONTEXT: _ClassVar[FootprintWhat]
    FOOTPRINT_WHAT_HOST_CACHE: _ClassVar[FootprintWhat]
    FOOTPRINT_WHAT_MARGIN: _ClassVar[FootprintWhat]

class Confidence(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONFIDENCE_UNSPECIFIED: _ClassVar[Confidence]
    CONFIDENCE_MEASURED: _ClassVar[Confidence]
    CONFIDENCE_LAW: _ClassVar[Confidence]
    CONFIDENCE_GUESS: _ClassVar[Confidence]
MODEL_KIND_UNSPECIFIED: ModelKind
MODEL_KIND_CHAT: ModelKind
MODEL_KIND_COMPLETION: ModelKind
MODEL_KIND_EMBEDDING: ModelKind
MODEL_KIND_RERANK: ModelKind
FOOTPRINT_WHAT_UNSPECIFIED: FootprintWhat
FOOTPRINT_WHAT_WEIGHTS: FootprintWhat
FOOTPRINT_WHAT_KV_CACHE: FootprintWhat
FOOTPRINT_WHAT_STATE: FootprintWhat
FOOTPRINT_WHAT_COMPUTE: FootprintWhat
FOOTPRINT_WHAT_OUTPUT: FootprintWhat
FOOTPRINT_WHAT_CONTEXT: FootprintWhat
FOOTPRINT_WHAT_HOST_CACHE: FootprintWhat
FOOTPRINT_WHAT_MARGIN: FootprintWhat
CONFIDENCE_UNSPECIFIED: Confidence
CONFIDENCE_MEASURED: Confidence
CONFIDENCE_LAW: Confidence
CONFIDENCE_GUESS: Confidence

class ModelOptions(_message.Message):
    __slots__ = ("context_length", "parallel", "batch", "ubatch", "cache_type_k", "cache_type_v", "flash_attention", "gpu_layers", "threads", "kv_unified", "embedding", "threads_batch", "tensor_split", "split_mode", "mmap", "mlock", "cache_reuse", "continuous_batching", "cache_ram_bytes", "pooling", "sleep_idle_seconds", "dtype", "quantization", "kv_cache_dtype", "max_num_seqs", "max_num_batched_tokens", "tensor_parallel_size", "enforce_eager", "kv_cache_bytes", "sleep_mode")
    CONTEXT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    PARALLEL_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    UBATCH_FIELD_NUMBER: _ClassVar[int]
    CACHE_TYPE_K_FIELD_NUMBER: _ClassVar[int]
    CACHE_TYPE_V_FIELD_NUMBER: _ClassVar[int]
    FLASH_ATTENTION_FIELD_NUMBER: _ClassVar[int]
    GPU_LAYERS_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    KV_UNIFIED_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    THREADS_BATCH_FIELD_NUMBER: _ClassVar[int]
    TENSOR_SPLIT_FIELD_NUMBER: _ClassVar[int]
    SPLIT_MODE_FIELD_NUMBER: _ClassVar[int]
    MMAP_FIELD_NUMBER: _ClassVar[int]
    MLOCK_FIELD_NUMBER: _ClassVar[int]
    CACHE_REUSE_FIELD_NUMBER: _ClassVar[int]
    CONTINUOUS_BATCHING_FIELD_NUMBER: _ClassVar[int]
    CACHE_RAM_BYTES_FIELD_NUMBER: _ClassVar[int]
    POOLING_FIELD_NUMBER: _ClassVar[int]
    SLEEP_IDLE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_DTYPE_FIELD_NUMBER: _ClassVar[int]
    MAX_NUM_SEQS_FIELD_NUMBER: _ClassVar[int]
    MAX_NUM_BATCHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TENSOR_PARALLEL_SIZE_FIELD_NUMBER: _ClassVar[int]
    ENFORCE_EAGER_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SLEEP_MODE_FIELD_NUMBER: _ClassVar[int]
    context_length: int
    parallel: int
    batch: int
    ubatch: int
    cache_type_k: str
    cache_type_v: str
    flash_attention: str
    gpu_layers: int
    threads: int
    kv_unified: bool
    embedding: bool
    threads_batch: int
    tensor_split: _containers.RepeatedScalarFieldContainer[float]
    split_mode: str
    mmap: bool
    mlock: bool
    cache_reuse: int
    continuous_batching: bool
    cache_ram_bytes: int
    pooling: str
    sleep_idle_seconds: int
    dtype: str
    quantization: str
    kv_cache_dtype: str
    max_num_seqs: int
    max_num_batched_tokens: int
    tensor_parallel_size: int
    enforce_eager: bool
    kv_cache_bytes: int
    sleep_mode: bool
    def __init__(self, context_length: _Optional[int] = ..., parallel: _Optional[int] = ..., batch: _Optional[int] = ..., ubatch: _Optional[int] = ..., cache_type_k: _Optional[str] = ..., cache_type_v: _Optional[str] = ..., flash_attention: _Optional[str] = ..., gpu_layers: _Optional[int] = ..., threads: _Optional[int] = ..., kv_unified: bool = ..., embedding: bool = ..., threads_batch: _Optional[int] = ..., tensor_split: _Optional[_Iterable[float]] = ..., split_mode: _Optional[str] = ..., mmap: bool = ..., mlock: bool = ..., cache_reuse: _Optional[int] = ..., continuous_batching: bool = ..., cache_ram_bytes: _Optional[int] = ..., pooling: _Optional[str] = ..., sleep_idle_seconds: _Optional[int] = ..., dtype: _Optional[str] = ..., quantization: _Optional[str] = ..., kv_cache_dtype: _Optional[str] = ..., max_num_seqs: _Optional[int] = ..., max_num_batched_tokens: _Optional[int] = ..., tensor_parallel_size: _Optional[int] = ..., enforce_eager: bool = ..., kv_cache_bytes: _Optional[int] = ..., sleep_mode: bool = ...) -> None: ...

class ModelFile(_message.Message):
    __slots__ = ("path", "size_bytes", "sha256")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    path: str
    size_bytes: int
    sha256: str
    def __init__(self, path: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class ModelSource(_message.Message):
    __slots__ = ("url", "hub", "revision", "file")
    URL_FIELD_NUMBER: _ClassVar[int]
    HUB_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    url: str
    hub: str
    revision: str
    file: str
    def __init__(self, url: _Optional[str] = ..., hub: _Optional[str] = ..., revision: _Optional[str] = ..., file: _Optional[str] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "engine", "kind", "options", "files", "architecture", "parameter_count", "context_length_trained", "problem", "footprint", "source", "sha256", "owner", "registered", "downloaded_bytes", "mmproj", "create_time", "notice", "profile", "extra_args", "command", "options_ignored", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_LENGTH_TRAINED_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    FOOTPRINT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_FIELD_NUMBER: _ClassVar[int]
    DOWNLOADED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MMPROJ_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    EXTRA_ARGS_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_IGNORED_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    name: str
    engine: _node_pb2.Engine
    kind: ModelKind
    options: ModelOptions
    files: _containers.RepeatedCompositeFieldContainer[ModelFile]
    architecture: str
    parameter_count: int
    context_length_trained: int
    problem: str
    footprint: Footprint
    source: ModelSource
    sha256: str
    owner: str
    registered: bool
    downloaded_bytes: int
    mmproj: str
    create_time: _timestamp_pb2.Timestamp
    notice: str
    profile: str
    extra_args: _containers.RepeatedScalarFieldContainer[str]
    command: Command
    options_ignored: str
    labels: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., engine: _Optional[_Union[_node_pb2.Engine, str]] = ..., kind: _Optional[_Union[ModelKind, str]] = ..., options: _Optional[_Union[ModelOptions, _Mapping]] = ..., files: _Optional[_Iterable[_Union[ModelFile, _Mapping]]] = ..., architecture: _Optional[str] = ..., parameter_count: _Optional[int] = ..., context_length_trained: _Optional[int] = ..., problem: _Optional[str] = ..., footprint: _Optional[_Union[Footprint, _Mapping]] = ..., source: _Optional[_Union[ModelSource, _Mapping]] = ..., sha256: _Optional[str] = ..., owner: _Optional[str] = ..., registered: bool = ..., downloaded_bytes: _Optional[int] = ..., mmproj: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., notice: _Optional[str] = ..., profile: _Optional[str] = ..., extra_args: _Optional[_Iterable[str]] = ..., command: _Optional[_Union[Command, _Mapping]] = ..., options_ignored: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Command(_message.Message):
    __slots__ = ("argv", "environment", "health", "metrics", "device_bytes", "host_bytes", "served_name")
    ARGV_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_BYTES_FIELD_NUMBER: _ClassVar[int]
    HOST_BYTES_FIELD_NUMBER: _ClassVar[int]
    SERVED_NAME_FIELD_NUMBER: _ClassVar[int]
    argv: _containers.RepeatedScalarFieldContainer[str]
    environment: _containers.RepeatedScalarFieldContainer[str]
    health: str
    metrics: str
    device_bytes: int
    host_bytes: int
    served_name: str
    def __init__(self, argv: _Optional[_Iterable[str]] = ..., environment: _Optional[_Iterable[str]] = ..., health: _Optional[str] = ..., metrics: _Optional[str] = ..., device_bytes: _Optional[int] = ..., host_bytes: _Optional[int] = ..., served_name: _Optional[str] = ...) -> None: ...

class FootprintItem(_message.Message):
    __slots__ = ("what", "bytes", "source")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    what: FootprintWhat
    bytes: int
    source: str
    def __init__(self, what: _Optional[_Union[FootprintWhat, str]] = ..., bytes: _Optional[int] = ..., source: _Optional[str] = ...) -> None: ...

class Footprint(_message.Message):
    __slots__ = ("items", "total_bytes", "margin_bytes", "confidence", "past_error", "device", "past_error_of")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MARGIN_BYTES_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    PAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    PAST_ERROR_OF_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[FootprintItem]
    total_bytes: int
    margin_bytes: int
    confidence: Confidence
    past_error: float
    device: str
    past_error_of: str
    def __init__(self, items: _Optional[_Iterable[_Union[FootprintItem, _Mapping]]] = ..., total_bytes: _Optional[int] = ..., margin_bytes: _Optional[int] = ..., confidence: _Optional[_Union[Confidence, str]] = ..., past_error: _Optional[float] = ..., device: _Optional[str] = ..., past_error_of: _Optional[str] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "next_page_token")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    next_page_token: str
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class EstimateFootprintRequest(_message.Message):
    __slots__ = ("model", "options", "device")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    model: str
    options: ModelOptions
    device: str
    def __init__(self, model: _Optional[str] = ..., options: _Optional[_Union[ModelOptions, _Mapping]] = ..., device: _Optional[str] = ...) -> None: ...

class EstimateFootprintResponse(_message.Message):
    __slots__ = ("footprint",)
    FOOTPRINT_FIELD_NUMBER: _ClassVar[int]
    footprint: Footprint
    def __init__(self, footprint: _Optional[_Union[Footprint, _Mapping]] = ...) -> None: ...

class RegisterModelRequest(_message.Message):
    __slots__ = ("request_id", "validate_only", "owner", "name", "engine", "kind", "options", "path", "url", "hub", "revision", "file", "sha256", "mmproj", "profile", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    HUB_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    MMPROJ_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    validate_only: bool
    owner: str
    name: str
    engine: _node_pb2.Engine
    kind: ModelKind
    options: ModelOptions
    path: str
    url: str
    hub: str
    revision: str
    file: str
    sha256: str
    mmproj: str
    profile: str
    labels: _containers.ScalarMap[str, str]
    def __init__(self, request_id: _Optional[str] = ..., validate_only: bool = ..., owner: _Optional[str] = ..., name: _Optional[str] = ..., engine: _Optional[_Union[_node_pb2.Engine, str]] = ..., kind: _Optional[_Union[ModelKind, str]] = ..., options: _Optional[_Union[ModelOptions, _Mapping]] = ..., path: _Optional[str] = ..., url: _Optional[str] = ..., hub: _Optional[str] = ..., revision: _Optional[str] = ..., file: _Optional[str] = ..., sha256: _Optional[str] = ..., mmproj: _Optional[str] = ..., profile: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class RegisterModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class DeleteModelRequest(_message.Message):
    __slots__ = ("request_id", "name", "owner", "validate_only", "keep_files")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    KEEP_FILES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    name: str
    owner: str
    validate_only: bool
    keep_files: bool
    def __init__(self, request_id: _Optional[str] = ..., name: _Optional[str] = ..., owner: _Optional[str] = ..., validate_only: bool = ..., keep_files: bool = ...) -> None: ...

class DeleteModelResponse(_message.Message):
    __slots__ = ("model", "freed_bytes")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    model: Model
    freed_bytes: int
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ..., freed_bytes: _Optional[int] = ...) -> None: ...
