"""The configuration: TOML file, its conf.d/, then GPUD_SECTION__KEY; frozen once read."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from gpud.errors import ConfigInvalid
from gpud.units import GIB, MIB, parse_size, parse_span

# tomllib needs 16 times a hostile file's size in memory and more (FACTS: a 16 KB dotted key took
# 258 MiB), so the file stays small and is only ever the administrator's.
MAX_FILE_BYTES = 64 * 1024
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")


class Size(int):
    """Bytes, written `8GiB` or as a whole number."""


class Span(float):
    """Seconds, written `30s`, `5m` or as a number of seconds."""


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file; an unknown key is an error."""


class Node(Section):
    """[node]."""

    state_dir: str = "/var/lib/gpud"


class Server(Section):
    """[server]: where gRPC is served. An empty `socket` means the default one."""

    socket: str = ""
    listen: str = ""


class Sampling(Section):
    """[sampling]: how often devices are read."""

    interval: Span = Span(1.0)
    processes_every: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 5


class SimulatedCards(Section):
    """[[devices.simulated]]: so many cards of a kind that card data exists for."""

    card: str
    count: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1


class Devices(Section):
    """[devices]: what to look for."""

    nvml: str = "auto"
    host: bool = True
    scenario: str = ""
    simulated: tuple[SimulatedCards, ...] = ()


class Policy(Section):
    """[policy]."""

    strict_allocation: bool = True
    device_reserve: Size = Size(512 * MIB)
    reserve_system_memory: Size = Size(2 * GIB)
    release_deadline: Span = Span(10.0)


class LlamaCpp(Section):
    """[engines.llama_cpp]. `load_stall` bounds a load that shows no progress."""

    binary: str = "llama-server"
    load_stall: Span = Span(120.0)


class Engines(Section):
    """[engines]."""

    llama_cpp: LlamaCpp = LlamaCpp()


class ModelEntry(Section, kw_only=True):
    """[models.NAME]: a catalogue entry and the options it is loaded with."""

    engine: str = "llama_cpp"
    path: str
    kind: str = ""
    context_length: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None
    parallel: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
    batch: Annotated[int, msgspec.Meta(ge=1, le=2**20)] | None = None
    ubatch: Annotated[int, msgspec.Meta(ge=1, le=2**20)] | None = None
    cache_type_k: str | None = None
    cache_type_v: str | None = None
    flash_attention: str | None = None
    gpu_layers: Annotated[int, msgspec.Meta(ge=0, le=65536)] | None = None
    threads: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
    kv_unified: bool | None = None
    embedding: bool | None = None


class Models(msgspec.Struct, frozen=True, kw_only=True):
    """[models]: the roots that files must lie under, and the entries."""

    roots: tuple[str, ...] = ()
    entries: dict[str, ModelEntry] = {}


class Logging(Section):
    """[logging]. `auto`: for a person on a terminal, JSON else."""

    format: str = "auto"
    level: str = "info"


class Config(Section):
    """All of it."""

    node: Node = Node()
    server: Server = Server()
    sampling: Sampling = Sampling()
    devices: Devices = Devices()
    policy: Policy = Policy()
    engines: Engines = Engines()
    models: Models = Models()
    logging: Logging = Logging()
