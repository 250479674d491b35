"""Pure: one supervised engine process tree, as it is told and as it is stored."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from gpud.instances.health.healing import Healing
from gpud.instances.terms import LoadTerms
from gpud.ledger.reservation import Deadline
from gpud.models.model import EngineKind, Footprint, Limits, ModelOptions


class InstanceState(enum.Enum):
    """Where an instance is in its life; lifecycle.py says which step may follow which."""

    QUEUED = "queued"
    VERIFYING = "verifying"
    RESERVING = "reserving"
    STARTING = "starting"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    BACKOFF = "backoff"  # its engine failed; it waits, within its promise, to be started again


class LoadPhase(enum.Enum):
    """The start-up sequence, in order."""

    DETECT = "detect"
    VERIFY = "verify"
    ALLOCATE = "allocate"
    START = "start"
    LOAD = "load"
    WARMUP = "warmup"
    CHECK = "check"
    REGISTER = "register"
    READY = "ready"


class UnloadPhase(enum.Enum):
    """The stop ladder, in order."""

    DRAIN = "drain"
    TERMINATE = "terminate"
    KILL = "kill"
    FREE = "free"
    STOPPED = "stopped"


class Gate(enum.Enum):
    """How far the gated spawn has durably come; recovery adopts only GO."""

    INTENT = "intent"
    SPAWNED = "spawned"
    GO = "go"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """Which process, beyond pid reuse: no signal is sent to one whose whole identity is unproved.

    `start_time` is field 22 of /proc/PID/stat; `inode` is the pidfd's where the kernel gives a
    unique one (6.9 on), else None; `token` is a secret in the process's environment.
    """

    pid: int
    start_time: int
    boot_id: str
    inode: int | None
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a process ended: one of code and signal, or neither when nobody could see it."""

    code: int | None
    signal: int | None
    wall: float | None

    def __str__(self) -> str:
        if self.signal is not None:
            return f"was killed by signal {self.signal}"
        if self.code is not None:
            return f"exited with code {self.code}"
        return "ended with an unknown status"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a load or a run ended badly: the reason as on the wire, and the words."""

    reason: str
    message: str
    phase: LoadPhase | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleep:
    """That it was sent to sleep: at level 1 its weights lie in RAM, at level 2 nowhere."""

    level: int
    wall: float
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """When its engine was last used, and its counter of progress when that was written down."""

    moment: Deadline
    progress: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """A stop that was ordered: by whom, and until when requests in flight may finish."""

    actor: str
    drained: Deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class PromisedFile:
    """A file of its model as it was when its bytes were promised: another one is not this."""

    path: str
    inode: int
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One engine process tree inside one promise. Times are wall seconds, spans are seconds."""

    id: str
    model: str  # id in the catalogue
    engine: EngineKind
    owner: str
    state: InstanceState
    options: ModelOptions
    create_wall: float
    reservation: str | None = None  # id
    devices: tuple[str, ...] = ()  # UUIDs
    footprint: Footprint | None = None
    files: tuple[PromisedFile, ...] | None = None  # None: recorded by a version that did not look
    law_bytes: int | None = None  # of these on its devices, by the law alone, without a margin
    port: int | None = None
    endpoint: str = ""  # told only once READY
    gate: Gate | None = None
    shim: ProcessIdentity | None = None
    pid: int | None = None  # the engine's own main process
    phase_seconds: tuple[tuple[LoadPhase, float], ...] = ()
    ready_wall: float | None = None
    end_wall: float | None = None
    restarts: int = 0
    last_exit: Exit | None = None
    exit_meaning: str = ""
    failure: Failure | None = None
    tokens_per_second: float | None = None
    time_to_first_token_seconds: float | None = None
    load_seconds: float | None = None
    engine_bytes: int | None = None  # what the engine says that it allocated
    containment: str = "session"
    cpu_affinity: str = ""  # what it was bound to, `0-15`; empty: all CPUs
    memory_node: int | None = None  # that its memory is taken from first
    swap: str = ""  # cgroup, mlock, or why it is not kept from swap; empty before its start
    api_key_file: str = ""  # of the key that its engine asks of everybody; empty: of nobody
    terms: LoadTerms = field(default_factory=LoadTerms)  # as it was asked for
    restart: bool = True  # its engine is started again when it fails while it serves
    healing: Healing = field(default_factory=Healing)
    idle_ttl_seconds: float | None = None  # unloaded when unused for so long; None: never
    pinned: bool = False  # never unloaded for being unused
    limits: Limits = field(default_factory=Limits)
    limits_enforced: str = ""  # how; empty where there are none, or before its start
    options_ignored: str = ""  # which of them have no effect, and why
    sleep: Sleep | None = None  # it was sent to sleep; None: it was not
    use: Use | None = None  # as its watch wrote it down; None: nobody needs to know
    stopping: Stopping | None = None  # None: no stop was ordered, or one without a grace

    @property
    def name(self) -> str:
        """instances/{id}."""
        return f"instances/{self.id}"

    @property
    def endpoint_needs_key(self) -> bool:
        """Whether who calls its endpoint must show a key."""
        return bool(self.api_key_file)

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.state in {InstanceState.STOPPED, InstanceState.FAILED}
