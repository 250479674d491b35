"""The driver seam: one way to find devices and to read them, whatever they are.

Drivers block, may hang in the kernel, and live only in the sampling process (helper.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from gpud.devices.snapshot import DeviceInfo, DeviceKind, ProcessUse, Readings

NVML, HOST, SIMULATED = "nvml", "host", "simulated"


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
class DeviceLost(DriverError):
    """The driver says that the device is gone."""

    uuid: str
    reason: str

    def __str__(self) -> str:
        return f"cannot read {self.uuid}: {self.reason}"


class Driver(Protocol):
    """Finds and reads devices of one sort. Every method blocks."""

    def devices(self) -> tuple[DeviceInfo, ...]:
        """What is there now; cheap when nothing changed, as it is asked at each process list.

        Raises DriverUnavailable.
        """
        ...

    def readings(self, uuid: str) -> Readings:
        """The cheap fields of one device, each None where refused. Raises DeviceLost."""
        ...

    def processes(self, uuid: str) -> tuple[ProcessUse, ...] | None:
        """Who uses the device; None where the driver refuses to say. Raises DeviceLost."""
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

    A number stays with its UUID while the daemon lives, through restarts of the sampling process:
    a device that appears later gets the next free one.
    """

    def __init__(self, known: Iterable[DeviceInfo] = ()) -> None:
        self._indices = {info.uuid: info.index for info in known if info.index is not None}
        self._next = max(self._indices.values(), default=-1) + 1

    def index(self, uuid: str) -> int:
        """The number of this device, given now if it has none yet; its alias is `gpu{number}`."""
        if uuid not in self._indices:
            self._indices[uuid] = self._next
            self._next += 1
        return self._indices[uuid]
