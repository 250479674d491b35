"""Pure: a catalogue entry, its options, and the footprint of a load."""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields, replace


class EngineKind(enum.Enum):
    """The program that serves a model."""

    LLAMA_CPP = "llama_cpp"
    VLLM = "vllm"
    COMMAND = "command"  # any server, from the configuration of this host


class ModelKind(enum.Enum):
    """What a model answers."""

    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"
    RERANK = "rerank"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Typed options of a load; None: not said here. Names as in config, API and CLI.

    `context_length` counts tokens over all slots (vLLM: of one sequence). `gpu_layers` None means
    all of them. Each engine takes those that are its own, and refuses the others by name.
    """

    context_length: int | None = None
    parallel: int | None = None
    batch: int | None = None
    ubatch: int | None = None
    cache_type_k: str | None = None
    cache_type_v: str | None = None
    flash_attention: str | None = None
    gpu_layers: int | None = None
    threads: int | None = None
    kv_unified: bool | None = None
    embedding: bool | None = None
    # llama.cpp
    threads_batch: int | None = None
    tensor_split: tuple[float, ...] | None = None  # the share of each device, in any unit
    split_mode: str | None = None
    mmap: bool | None = None
    mlock: bool | None = None
    cache_reuse: int | None = None  # least tokens of a chunk that is reused
    continuous_batching: bool | None = None
    cache_ram_bytes: int | None = None  # of prompts, in the host's memory
    pooling: str | None = None
    sleep_idle_seconds: int | None = None
    # vLLM
    dtype: str | None = None
    quantization: str | None = None
    kv_cache_dtype: str | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    tensor_parallel_size: int | None = None
    enforce_eager: bool | None = None
    kv_cache_bytes: int | None = None
    sleep_mode: bool | None = None

    def over(self, base: ModelOptions) -> ModelOptions:
        """These options, with what they leave unsaid taken from `base`."""
        said = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if getattr(self, f.name) is not None
        }
        return replace(base, **said)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSource:
    """A repository of a model hub. An empty `file` means all that a server needs of it."""

    repository: str
    revision: str = "main"
    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSource:
    """One file behind an HTTP(S) URL, known by its SHA-256 (64 hexadecimal digits)."""

    url: str
    sha256: str


Source = HubSource | HttpSource


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec:
    """A server of any kind, as the configuration of this host tells it.

    `argv` and `environment` may hold ${PORT}, ${DEVICES}, ${MODEL}, ${DIRECTORY}; `health` and
    `metrics` are paths on its port, `metrics` empty where it has none. `counters` are fields of a
    Pulse, each with the metric that tells it. Bytes are what it needs on one device, and in the
    host's memory beside a card. `served_name` is what requests call its model; empty: the id.
    """

    argv: tuple[str, ...]
    health: str
    device_bytes: int
    host_bytes: int = 0
    environment: tuple[tuple[str, str], ...] = ()
    metrics: str = ""
    counters: tuple[tuple[str, str], ...] = ()
    served_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one instance may take of the host. None: no limit of its own."""

    cpus: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A catalogue entry. `path` is relative to one of the model roots, or absolute under one.

    `api_key_file` is where the key lies that its engine asks of everybody; empty: none is asked.
    With a `source`, `path` is where its files come to lie. `idle_ttl_seconds` None: never unloaded
    for being idle. `owner` is who registered it; empty: it stands in the configuration.
    """

    id: str
    engine: EngineKind
    kind: ModelKind | None  # None: as its file says
    path: str
    options: ModelOptions
    api_key_file: str = ""
    source: Source | None = None
    sha256: str = ""  # of its first file, where it is to be checked
    mmproj: str = ""  # a projector beside it, as `path`
    profile: str = ""
    extra_args: tuple[str, ...] = ()  # of the configuration alone, each reviewed
    command: CommandSpec | None = None
    preload: bool = False
    preload_devices: tuple[str, ...] = ()  # by alias or UUID; none: any card
    pinned: bool = False
    idle_ttl_seconds: float | None = None
    restart: bool = True  # its engine is started again when it fails while it serves
    limits: Limits = Limits()
    owner: str = ""
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """models/{id}."""
        return f"models/{self.id}"


class FootprintWhat(enum.Enum):
    """What the bytes of a footprint are for."""

    WEIGHTS = "weights"
    KV_CACHE = "kv_cache"
    STATE = "state"  # of recurrent layers: per slot, whatever the context
    COMPUTE = "compute"
    OUTPUT = "output"
    CONTEXT = "context"  # what each engine process costs before any model
    HOST_CACHE = "host_cache"
    MARGIN = "margin"


class Confidence(enum.Enum):
    """How far an estimate can be trusted."""

    MEASURED = "measured"
    LAW = "law"
    GUESS = "guess"


@dataclass(frozen=True, slots=True, kw_only=True)
class FootprintItem:
    """Some bytes and where their number came from."""

    what: FootprintWhat
    bytes: int
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """The itemised bytes that a load needs on one device, its margin among the items.

    `past_error` is of the last load like it: measured ÷ estimated − 1; None: none was measured.
    `past_of` says in words what was measured there; empty with it.
    """

    items: tuple[FootprintItem, ...]
    confidence: Confidence
    device_uuid: str | None = None
    past_error: float | None = None
    past_of: str = ""

    @property
    def total_bytes(self) -> int:
        """All items, the margin included."""
        return sum(item.bytes for item in self.items)

    @property
    def margin_bytes(self) -> int:
        """What is held above the estimate itself."""
        return sum(item.bytes for item in self.items if item.what is FootprintWhat.MARGIN)
