"""The error tree: each class holds facts; its text is made from them and says what to do next.

    GpudError
    ├── OptionInvalid                  a field of a request
    ├── NotFound                       Device… Reservation… Model… InstanceNotFound
    ├── VramInsufficient               the bytes are held by others
    ├── LimitReached                   QuotaExceeded QueueFull
    ├── DeviceUnavailable              a device that grants nothing now
    ├── EnforcementUnavailable         the driver does not keep others off
    ├── NotServing                     SamplesStale Reconciling StoreReadOnly
    ├── GenerationMismatch             fencing
    ├── WrongState                     the thing is not in a state for this
    ├── ModelFileInvalid               the file, before any memory is promised
    ├── EngineMissing                  its program is not on this host
    ├── EngineFailed                   EngineExited EngineNotReady
    ├── FootprintExceeded              it took more than was promised
    ├── InstanceLost                   found broken after a restart of the daemon or the host
    └── LoadCancelled                  by an unload, or by the end of the daemon

`rpc/errors.py` holds the one table from these to google.rpc.Status. ConfigInvalid and
StateDirectoryRefused never reach the wire: they end `gpud run` with exit code 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gpud.units import format_size


class GpudError(Exception):
    """Root of what gpud refuses or fails at; `reason` is its name on the wire."""

    reason: ClassVar[str] = "INTERNAL"

    @property
    def summary(self) -> str:
        """The words without an engine's output: for a line of the journal."""
        return str(self)


class ConfigInvalid(GpudError):
    """The configuration cannot be used; the text is one line with the fix."""


class StateDirectoryRefused(GpudError):
    """The state directory is another program's, or another gpud holds it."""


@dataclass(kw_only=True, eq=False)
class OptionInvalid(GpudError):
    """A field of a request is missing, malformed or out of range."""

    reason = "OPTION_INVALID"

    field: str
    problem: str

    def __str__(self) -> str:
        return f"cannot accept {self.field}: {self.problem}"


@dataclass(kw_only=True, eq=False)
class NotFound(GpudError):
    """Nothing of that name."""

    name: str
    noun = "resource"
    listing = ""

    def __str__(self) -> str:
        return f"cannot find {self.noun} {self.name!r}; `{self.listing}` shows what there is"


class DeviceNotFound(NotFound):
    """No device of that UUID or alias."""

    reason = "DEVICE_NOT_FOUND"
    noun = "device"
    listing = "gpuctl devices"


class ReservationNotFound(NotFound):
    """No reservation of that name, or it ended more than 10 minutes ago."""

    reason = "RESERVATION_NOT_FOUND"
    noun = "reservation"
    listing = "gpuctl reservations"


class ModelNotFound(NotFound):
    """No catalogue entry of that name."""

    reason = "MODEL_NOT_FOUND"
    noun = "model"
    listing = "gpuctl models"


class InstanceNotFound(NotFound):
    """No instance of that name, or it ended more than 10 minutes ago."""

    reason = "INSTANCE_NOT_FOUND"
    noun = "instance"
    listing = "gpuctl instances"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceShortage:
    """Why one device cannot carry a request: the terms of the charging formula, in bytes."""

    device: str
    alias: str
    grantable_bytes: int | None
    total_bytes: int | None
    reserve_bytes: int
    granted_bytes: int
    foreign_bytes: int
    unattributed_bytes: int
    leaked_bytes: int
    # A rule that refuses regardless of bytes: "lost", "stale", "memory unknown".
    rule: str = ""
    # Somebody in the way, who may go: one that waits before, or is there where none may be.
    obstacle: str = ""
    overuse_bytes: int = 0  # used by promises beyond what they are

    def __str__(self) -> str:
        if self.rule:
            return f"{self.alias}: {self.rule}"
        holders = [
            f"{name} {format_size(size)}"
            for name, size in (
                ("reserve", self.reserve_bytes),
                ("granted", self.granted_bytes),
                ("over-use", self.overuse_bytes),
                ("foreign", self.foreign_bytes),
                ("unattributed", self.unattributed_bytes),
                ("leaked", self.leaked_bytes),
            )
            if size
        ]
        numbers = (
            f"{format_size(self.grantable_bytes or 0)} grantable of "
            f"{format_size(self.total_bytes or 0)} ({', '.join(holders) or 'nothing held'})"
        )
        return f"{self.alias}: {f'{self.obstacle}; ' if self.obstacle else ''}{numbers}"


@dataclass(kw_only=True, eq=False)
class VramInsufficient(GpudError):
    """No set of devices can carry the request now."""

    reason = "VRAM_INSUFFICIENT"

    needed_bytes: int
    device_count: int
    shortages: tuple[DeviceShortage, ...]
    # Even an empty device could not: waiting cannot help.
    never_fits: bool = False

    def __str__(self) -> str:
        many = f" on each of {self.device_count} devices" if self.device_count > 1 else ""
        shown = "; ".join(str(shortage) for shortage in self.shortages[:8])
        more = f"; and {len(self.shortages) - 8} more" if len(self.shortages) > 8 else ""
        too_many = self.device_count > len(self.shortages)
        fewer = f"for at most {len(self.shortages)} devices, or `gpuctl devices` shows which"
        advice = (
            (f"ask {fewer} there are" if too_many else "ask for less per device")
            if self.never_fits
            else "release something (`gpuctl reservations`), ask for less, or try another device"
        )
        return f"cannot promise {format_size(self.needed_bytes)}{many}: {shown}{more}; {advice}"


@dataclass(kw_only=True, eq=False)
class DeviceUnavailable(GpudError):
    """Every device asked for is one that grants nothing now, whatever its bytes."""

    reason = "DEVICE_UNAVAILABLE"

    shortages: tuple[DeviceShortage, ...]
    # The rules hold as long as the configuration does: waiting cannot help.
    never_fits: bool = False

    def __str__(self) -> str:
        shown = "; ".join(str(shortage) for shortage in self.shortages[:8])
        return f"cannot grant on {shown}; `gpuctl devices` shows which devices can"


@dataclass(kw_only=True, eq=False)
class EnforcementUnavailable(GpudError):
    """The caller requires that the driver keeps others off, and the driver does not."""

    reason = "ENFORCEMENT_UNAVAILABLE"

    device: str
    problem: str

    def __str__(self) -> str:
        return (
            f"cannot keep others off {self.device} by its driver: {self.problem}; "
            "leave out require_enforcement to have it by the ledger alone"
        )


class LimitReached(GpudError):
    """A number that the policy bounds."""


@dataclass(kw_only=True, eq=False)
class QuotaExceeded(LimitReached):
    """One owner has as much as one may; `unit` is what is counted, "bytes" or a plural."""

    reason = "QUOTA_EXCEEDED"

    owner: str
    limit_name: str  # the setting
    limit: int
    held: int
    asked: int
    unit: str
    advice: str

    def __str__(self) -> str:
        told, what = (format_size, "held") if self.unit == "bytes" else (str, self.unit)
        held = f"{told(self.held)} {what} and " if self.held or what != "held" else ""
        why = f"{held}{told(self.asked)} asked exceed {self.limit_name} = {told(self.limit)}"
        return f"cannot give {self.owner} more: {why}; {self.advice}"


@dataclass(kw_only=True, eq=False)
class QueueFull(LimitReached):
    """As many wait as may."""

    reason = "QUEUE_FULL"

    limit: int

    def __str__(self) -> str:
        return (
            f"cannot wait: {self.limit} requests wait already (policy.max_queue), and it does not "
            "fit now; try again later (`gpuctl explain` shows what holds the bytes)"
        )


class NotServing(GpudError):
    """Grants are refused for a while; reads still work."""


@dataclass(kw_only=True, eq=False)
class SamplesStale(NotServing):
    """The newest sample is too old to grant on."""

    reason = "STALE"

    device: str
    age_seconds: float | None

    def __str__(self) -> str:
        age = f"{self.age_seconds:.1f} s old" if self.age_seconds is not None else "missing"
        return (
            f"cannot grant on {self.device}: its newest sample is {age}; "
            "`gpuctl devices` shows its health, the daemon's log says what the sampler met"
        )


@dataclass(kw_only=True, eq=False)
class Reconciling(NotServing):
    """The daemon has just started and has not accounted for everything yet."""

    reason = "RECONCILING"

    waiting_for: str

    def __str__(self) -> str:
        return f"cannot grant yet: starting, waiting for {self.waiting_for}; try again in a moment"


@dataclass(kw_only=True, eq=False)
class StoreReadOnly(NotServing):
    """The store cannot be written; nothing new is promised."""

    reason = "STORE_READ_ONLY"

    cause: str

    def __str__(self) -> str:
        return (
            f"cannot promise: the store cannot be written ({self.cause}); "
            "free space on the state directory's disk, grants resume by themselves"
        )


@dataclass(kw_only=True, eq=False)
class GenerationMismatch(GpudError):
    """The caller speaks of an earlier life of the reservation."""

    reason = "GENERATION_MISMATCH"

    name: str
    given: int
    current: int

    def __str__(self) -> str:
        return (
            f"cannot act on {self.name}: generation {self.given} was given, {self.current} is "
            "current; read it again (`gpuctl reservations`)"
        )


@dataclass(kw_only=True, eq=False)
class WrongState(GpudError):
    """The thing exists, but not in a state for this."""

    reason = "WRONG_STATE"

    name: str
    state: str
    advice: str

    def __str__(self) -> str:
        return f"cannot do this to {self.name}: it is {self.state}; {self.advice}"


@dataclass(kw_only=True, eq=False)
class ModelFileInvalid(GpudError):
    """The model's file is missing, incomplete, unsafe or not what it should be."""

    reason = "MODEL_FILE_INVALID"

    model: str
    path: str
    problem: str

    def __str__(self) -> str:
        return f"cannot load {self.model}: {self.path}: {self.problem}"


@dataclass(kw_only=True, eq=False)
class EngineMissing(GpudError):
    """The engine's program is not on this host, or is not what it should be."""

    reason = "ENGINE_MISSING"

    engine: str
    program: str
    problem: str

    def __str__(self) -> str:
        return (
            f"cannot start {self.engine}: {self.program}: {self.problem}; "
            f"install it or set [engines.{self.engine}] in the configuration"
        )


@dataclass(kw_only=True, eq=False)
class EngineFailed(GpudError):
    """An engine that does not do what it should; `output_tail` holds its last lines."""

    instance: str
    phase: str
    output_tail: tuple[str, ...]

    def __str__(self) -> str:
        last = f"; its last lines: {' | '.join(self.output_tail[-5:])}" if self.output_tail else ""
        return f"{self.summary}{last}"


@dataclass(kw_only=True, eq=False)
class EngineExited(EngineFailed):
    """The engine ended while it was loading, or while it served, unasked."""

    reason = "ENGINE_EXITED"

    exit_text: str
    meaning: str

    @property
    def summary(self) -> str:
        """How it ended, and what that means."""
        why = f" ({self.meaning})" if self.meaning else ""
        if self.phase == "READY":
            return f"cannot keep {self.instance}: the engine {self.exit_text} while it served{why}"
        return (
            f"cannot bring up {self.instance}: the engine {self.exit_text} in phase "
            f"{self.phase}{why}"
        )


@dataclass(kw_only=True, eq=False)
class EngineNotReady(EngineFailed):
    """The engine lives, but does not get on; `limit_seconds` where time was what it lacked."""

    reason = "ENGINE_NOT_READY"

    problem: str
    limit_seconds: float | None = None

    @property
    def summary(self) -> str:
        """What it did not do, and for how long."""
        limit = f" within {self.limit_seconds:g} s" if self.limit_seconds is not None else ""
        return f"cannot bring up {self.instance}: {self.problem}{limit} in phase {self.phase}"


@dataclass(kw_only=True, eq=False)
class LoadCancelled(GpudError):
    """Somebody unloaded it while it was loading."""

    reason = "LOAD_CANCELLED"

    instance: str
    phase: str

    def __str__(self) -> str:
        return f"cannot finish loading {self.instance}: it was unloaded in phase {self.phase}"


@dataclass(kw_only=True, eq=False)
class FootprintExceeded(GpudError):
    """The engine took more than its promise; it was stopped before others could be hurt."""

    reason = "FOOTPRINT_EXCEEDED"

    instance: str
    device: str
    promised_bytes: int
    measured_bytes: int

    def __str__(self) -> str:
        return (
            f"cannot keep {self.instance}: it takes {format_size(self.measured_bytes)} on "
            f"{self.device}, promised were {format_size(self.promised_bytes)}; "
            "load it with a smaller context_length, or report the model's architecture"
        )


@dataclass(kw_only=True, eq=False)
class InstanceLost(GpudError):
    """After a restart of the daemon the instance was not as its record says."""

    reason = "INSTANCE_LOST"

    instance: str
    cause: str

    def __str__(self) -> str:
        return f"cannot keep {self.instance}: {self.cause}; load it again (`gpuctl load`)"
