"""The driver seam: one way to find devices and to read them, whatever they are.

Drivers block, may hang in the kernel, and live only in the sampling process (helper.py).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from gpud.devices.snapshot import DeviceInfo, DeviceKind, ProcessUse, Readings

NVML, HOST, SIMULATED = "nvml", "host", "simulated"
# Why a device is lost that a driver knew before.
NO_LONGER_LISTED = "the driver no longer lists it"


class DriverError(Exception):
    """What a driver can meet; it ends in the sampling process and never reaches a client."""


@dataclass(kw_only=True, eq=False)
class DriverUnavailable(DriverError):
    """There is no such driver here, or it refuses to start; its devices do not exist for now.

    `is_absent`: it is not installed, which is no fault of a host without such devices.
    """

    driver: str
    reason: str
    is_absent: bool = False

    def __str__(self) -> str:
        return f"cannot use the {self.driver} driver: {self.reason}"


@dataclass(kw_only=True, eq=False)
class DriverOutdated(DriverError):
    """There are devices that an open driver does not see: it must be opened in a new process."""

    driver: str
    added: tuple[str, ...]

    def __str__(self) -> str:
        return f"the {self.driver} driver must be opened anew to see {', '.join(self.added)}"


# A reason of DeviceLost, after which it is not gone for good.
NEEDS_RESET = "it needs a reset before it can be read again"


@dataclass(kw_only=True, eq=False)
class DeviceLost(DriverError):
    """The driver says that the device is gone."""

    uuid: str
    reason: str

    def __str__(self) -> str:
        return f"cannot read {self.uuid}: {self.reason}"


@dataclass(kw_only=True, eq=False)
class ListRefused(DriverError):
    """The driver did not tell a device's processes this time; it may the next."""

    uuid: str
    reason: str

    def __str__(self) -> str:
        return f"cannot list the processes of {self.uuid} this time: {self.reason}"


class ModeRefusal(enum.Enum):
    """Why a device did not take a compute mode."""

    NOT_PERMITTED = "not permitted"  # setting it is root's alone
    NOT_SUPPORTED = "not supported"
    LOST = "lost"
    NO_ANSWER = "no answer"  # it may still take it
    FAILED = "failed"


@dataclass(kw_only=True, eq=False)
class ComputeModeRefused(DriverError):
    """The driver does not set that compute mode on this device."""

    uuid: str
    mode: str
    why: ModeRefusal
    detail: str = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"cannot set {self.uuid} to {self.mode}: {self.why.value}{detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeOutcome:
    """What became of setting a compute mode: what the device showed right after, and the refusal.

    Only `shown` is proof: a driver may accept what it does not apply, and one that refuses may be
    in that mode already. None: it could not be read.
    """

    shown: str | None = None
    refusal: ModeRefusal | None = None
    detail: str = ""


# Told the UUID of a device before that is asked anything: so it is known who does not answer.
Asking = Callable[[str], None]


def unheard(uuid: str) -> None:
    """Nobody wants to know who is asked."""


class Driver(Protocol):
    """Finds and reads devices of one sort. Every method blocks."""

    def devices(self, asking: Asking = unheard) -> tuple[DeviceInfo, ...]:
        """What is there now; cheap when nothing changed, as it is asked at each process list.

        `asking` hears of each device whose call may not come back. Raises DriverUnavailable,
        DriverOutdated.
        """
        ...

    def readings(self, uuid: str) -> Readings:
        """The fields of one device, each None where refused; what is dear to read may be older.

        Raises DeviceLost.
        """
        ...

    def processes(self, uuid: str) -> tuple[ProcessUse, ...] | None:
        """Who uses the device, all of them; None where the driver never says.

        Raises DeviceLost, ListRefused.
        """
        ...

    def alarms(self) -> tuple[tuple[str, int], ...]:
        """Errors reported since the last call, each as (UUID, Xid), whichever device it is of.

        Raises nothing. May be called by several threads.
        """
        ...

    def set_compute_mode(self, uuid: str, mode: str) -> None:
        """Set it to a mode as in Readings.compute_mode. Raises ComputeModeRefused.

        Called on a thread of its own, beside the other methods.
        """
        ...

    def close(self) -> None:
        """Let go of the driver."""
        ...


def driver_name(kind: DeviceKind) -> str:
    """The driver that devices of this kind come from."""
    match kind:
        case DeviceKind.GPU | DeviceKind.MIG:
            return NVML
        case DeviceKind.SIMULATED:
            return SIMULATED
        case DeviceKind.HOST:
            return HOST


class Aliases:
    """Gives each accelerator its number, in the order of discovery.

    A number stays with its UUID while the daemon lives, through restarts of the sampling process,
    and goes to no other: a device that appears later gets the next one. `given` are the numbers
    that were given before.
    """

    def __init__(self, given: Mapping[str, int] = MappingProxyType({})) -> None:
        self._indices = dict(given)
        self._next = max(self._indices.values(), default=-1) + 1

    def index(self, uuid: str) -> int:
        """The number of this device, given now if it has none yet; its alias is `gpu{number}`."""
        if uuid not in self._indices:
            self._indices[uuid] = self._next
            self._next += 1
        return self._indices[uuid]
