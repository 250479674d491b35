"""Pure: what gpud said last, and the names that its parts have on the screen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gpud.v1.alerts_pb2 import Alert
from gpud.v1.devices_pb2 import Device
from gpud.v1.history_pb2 import Series
from gpud.v1.instances_pb2 import Instance
from gpud.v1.node_pb2 import Node
from gpud.v1.reservations_pb2 import Reservation, ReservationState
from gpud.v1.telemetry_pb2 import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Focus:
    """More of the one noun that is looked at closely; a device with its processes."""

    name: str
    device: Device | None = None
    series: tuple[Series, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """All of it, of about one moment. `problems`: which lists could not be read, and why."""

    node: Node
    snapshot: Snapshot
    instances: tuple[Instance, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    alerts: tuple[Alert, ...] = ()
    problems: tuple[str, ...] = ()
    focus: Focus | None = None

    @property
    def devices(self) -> list[Device]:
        """As the snapshot has them."""
        return list(self.snapshot.devices)

    @property
    def holders(self) -> list[Reservation]:
        """Who has bytes."""
        queued = ReservationState.RESERVATION_STATE_QUEUED
        return [each for each in self.reservations if each.state != queued]

    @property
    def queue(self) -> list[Reservation]:
        """Who waits for bytes, the next one first."""
        queued = ReservationState.RESERVATION_STATE_QUEUED
        waiting = [each for each in self.reservations if each.state == queued]
        return sorted(waiting, key=lambda each: each.queue_position)

    def device(self, name: str) -> Device | None:
        """With its processes where it is the one that is looked at."""
        if self.focus is not None and self.focus.device is not None and self.focus.name == name:
            return self.focus.device
        return next((each for each in self.snapshot.devices if each.name == name), None)

    def instance(self, name: str) -> Instance | None:
        """None: it is listed no more."""
        return next((each for each in self.instances if each.name == name), None)

    def aliases(self, names: Iterable[str]) -> str:
        """`gpu0,gpu1` for the names of devices."""
        known = {device.name: device.alias for device in self.snapshot.devices}
        return ",".join(known.get(name) or name.removeprefix("devices/") for name in names)
