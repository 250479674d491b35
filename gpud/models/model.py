"""Pure: a catalogue entry, its options, and the footprint of a load."""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields, replace


class EngineKind(enum.Enum):
    """The program that serves a model."""

    LLAMA_CPP = "llama_cpp"


class ModelKind(enum.Enum):
    """What a model answers."""

    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"
    RERANK = "rerank"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Typed options of a load; None: not said here. Names as in config, API and CLI.

    `context_length` counts tokens over all slots. `gpu_layers` None means all of them.
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

    def over(self, base: ModelOptions) -> ModelOptions:
        """These options, with what they leave unsaid taken from `base`."""
        said = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if getattr(self, f.name) is not None
        }
        return replace(base, **said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A catalogue entry. `path` is relative to one of the model roots, or absolute under one.

    `api_key_file` is where the key lies that its engine asks of everybody; empty: none is asked.
    """

    id: str
    engine: EngineKind
    kind: ModelKind | None  # None: as its file says
    path: str
    options: ModelOptions
    api_key_file: str = ""

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
    """The itemised bytes that a load needs on one device, its margin among the items."""

    items: tuple[FootprintItem, ...]
    confidence: Confidence
    device_uuid: str | None = None

    @property
    def total_bytes(self) -> int:
        """All items, the margin included."""
        return sum(item.bytes for item in self.items)

    @property
    def margin_bytes(self) -> int:
        """What is held above the estimate itself."""
        return sum(item.bytes for item in self.items if item.what is FootprintWhat.MARGIN)
