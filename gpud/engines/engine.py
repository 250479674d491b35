"""The engine seam: all that gpud must know to run one kind of server."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from gpud.engines.api_key import ApiKey
from gpud.engines.counting.counters import Counters
from gpud.engines.probe import ProbeFailed, ProbeFault
from gpud.models.catalogue import Inspection
from gpud.models.footprint import DeviceTraits
from gpud.models.model import EngineKind, Footprint, FootprintWhat, Model, ModelOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProgram:
    """An engine as found on this host."""

    kind: EngineKind
    path: str
    version: str
    # The long flags its --help names, each with the text beside it: the form of its value and what
    # it does. What a build lacks is not passed to it.
    flags: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """What an engine's word is of: whole items of a footprint, and the bytes of them together.

    `weights_bytes` are those of them that are weights.
    """

    what: frozenset[FootprintWhat]
    bytes: int
    weights_bytes: int = 0


@runtime_checkable
class TellsItems(Protocol):
    """An engine that tells some of its buffers and is silent about others."""

    def covered(self, output: tuple[str, ...]) -> Covered | None:
        """The items that its output tells whole; None: it tells none."""
        ...


# All that an engine's environment may hold, beside what says whose it is (GPUD_…).
ENVIRONMENT_NAMES: Final = frozenset(
    {"PATH", "LANG", "HOME", "TMPDIR", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to execute. `environment` is whole: nothing is inherited beside it.

    `own_names` are of a server that the configuration alone describes. Raises ValueError for a
    name that is neither one of them nor one of ENVIRONMENT_NAMES.
    """

    argv: tuple[str, ...]
    environment: dict[str, str]
    own_names: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        strange = self.environment.keys() - ENVIRONMENT_NAMES - self.own_names
        if strange:
            raise ValueError(f"no engine is given {', '.join(sorted(strange))}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """All that a command line is made from. `visible_devices` are UUIDs; none for the host.

    `key_path` is where the engine finds the key that it is to ask of everybody; None: of nobody.
    """

    model: Model
    options: ModelOptions
    model_path: Path
    host: str
    port: int
    visible_devices: tuple[str, ...]
    directory: Path  # the instance's own: TMPDIR, cache
    key_path: Path | None = None
    mmproj_path: Path | None = None  # a projector beside it
    lock_memory: bool = False  # keep the model from swap; only asked of a build that can
    key: ApiKey | None = None  # the same key, for engines that take no file
    inspection: Inspection | None = None  # of the files at `model_path`
    grant_bytes: int = 0  # promised on each of its devices
    device_bytes: int | None = None  # of the smallest of its devices, all of its memory


class Readiness(enum.Enum):
    """What a server says of itself."""

    REFUSED = "refused"  # nothing listens yet
    LOADING = "loading"
    READY = "ready"
    BROKEN = "broken"  # it answers, but not as a server of this kind does

    @classmethod
    def of_silence(cls, failure: ProbeFailed) -> Readiness:
        """Of a server that gave no answer; who takes a connection and says nothing loads."""
        silent = {ProbeFault.REFUSED: cls.REFUSED, ProbeFault.TIMEOUT: cls.LOADING}
        return silent.get(failure.fault, cls.BROKEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadStep:
    """What a server is doing before it is ready. An empty detail, None: it does not tell."""

    detail: str = ""
    fraction: float | None = None  # of the whole way, 0..1


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmth:
    """What the first tokens showed. None: the server did not say."""

    tokens_per_second: float | None
    time_to_first_token_seconds: float | None

    def __str__(self) -> str:
        """`first token after 120 ms, 80 tokens/s`; empty where nothing is known."""
        first, speed = self.time_to_first_token_seconds, self.tokens_per_second
        told = [] if first is None else [f"first token after {first * 1000:,.0f} ms"]
        return ", ".join(told + ([] if speed is None else [f"{speed:.0f} tokens/s"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """What a server's own counters say. None: it does not tell.

    `progress` grows with the work that is done (tokens, steps) and with nothing else, so that two
    readings tell a busy server from a stuck one. `waiting` are requests without a slot. One that
    is `sleeping` and does not wake when asked refuses requests until it is woken.
    """

    running: int | None = None
    waiting: int | None = None
    progress: float | None = None
    completed: float | None = None  # requests, or tokens given, since it started
    tokens: float | None = None  # given since it started; in some builds told at a request's end
    kv_used_fraction: float | None = None
    sleeping: bool = False
    wakes_when_asked: bool = True
    holds_contexts: bool = False  # of its users, in its slots: a request of ours would cost one
    counters: Counters | None = field(default=None, compare=False)  # all that the same look told

    @property
    def in_flight(self) -> int | None:
        """Requests that run and that wait; None: it does not tell."""
        return None if self.running is None else self.running + (self.waiting or 0)


class Engine(Protocol):
    """One kind of server.

    `program`, `look`, `readiness`, `warm_up`, `pulse`, `counters`, `probe` do I/O off the loop,
    each bounded in time; the rest is pure.
    """

    kind: EngineKind

    async def program(self) -> EngineProgram:
        """The program on this host, its --help read once per (path, mtime, size).

        Raises EngineMissing.
        """
        ...

    async def look(self, model: Model) -> None:
        """Whether the program that the model's own entry names may be executed.

        Nothing to look at where no entry names one. Raises EngineMissing.
        """
        ...

    def check_options(self, options: ModelOptions) -> ModelOptions:
        """The options with this engine's defaults filled in. Raises OptionInvalid."""
        ...

    def command(self, program: EngineProgram, request: StartRequest) -> Command:
        """The argv and environment, every element from the allow-list.

        Raises EngineMissing for a program that cannot do what is asked.
        """
        ...

    def can_lock(self, program: EngineProgram) -> bool:
        """Whether this build can lock its model in memory."""
        ...

    def estimate(
        self, inspection: Inspection, options: ModelOptions, device: DeviceTraits
    ) -> Footprint:
        """The bytes that a load needs on each of its devices, the dearest of them.

        Raises GgufInvalid where the files do not describe a model.
        """
        ...

    def host_bytes(
        self, inspection: Inspection, options: ModelOptions, device: DeviceTraits
    ) -> int:
        """The RAM that it needs beside a card; 0 on the host itself."""
        ...

    def devices_needed(self, options: ModelOptions) -> int:
        """Over how many devices one load is spread."""
        ...

    def contexts_per_device(self, options: ModelOptions) -> int:
        """How many contexts it opens on each of its devices; some drivers' modes allow one."""
        ...

    async def readiness(self, endpoint: str) -> Readiness:
        """What the server at `endpoint` says of itself; never raises."""
        ...

    async def warm_up(
        self, endpoint: str, model: Model, options: ModelOptions, key: ApiKey | None = None
    ) -> Warmth:
        """Make it produce first tokens (or an embedding). Raises ProbeFailed."""
        ...

    async def in_flight(self, endpoint: str, key: ApiKey | None = None) -> int | None:
        """Requests being served; None: it does not tell. Never raises."""
        ...

    async def pulse(self, endpoint: str, key: ApiKey | None = None) -> Pulse | None:
        """What its counters say, without waking one that sleeps; None: no answer in time."""
        ...

    async def counters(self, endpoint: str, key: ApiKey | None = None) -> Counters | None:
        """All that it counts, in one request that wakes nobody; None: it is told to have none.

        Raises ProbeFailed.
        """
        ...

    async def probe(
        self, endpoint: str, model: Model, options: ModelOptions, key: ApiKey | None = None
    ) -> None:
        """Have it produce one token (or an embedding), when it is idle. Raises ProbeFailed."""
        ...

    def measured_bytes(self, output: tuple[str, ...]) -> int | None:
        """What the engine says that it allocated; None: its output does not tell."""
        ...

    def load_step(self, output_tail: tuple[str, ...]) -> LoadStep:
        """What it does and how far the load is, by the engine's last output."""
        ...

    def hopeless(self, output_tail: tuple[str, ...]) -> str:
        """Why it will never be ready though it still runs, as its last output says; else empty."""
        ...

    def explain_exit(self, output_tail: tuple[str, ...]) -> str:
        """What the last lines mean, in a few words; empty when they say nothing known."""
        ...
