"""What can be done from the screen: a question first, then the call, in a thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gpuctl.client import Client
from gpuctl.messages import known
from gpuctl.session import Session, request_id
from gpuctl.tables import clean
from gpuctl.top.shown.told import Told
from gpuctl.units import size_text
from gpud.v1.alerts_pb2 import AcknowledgeAlertRequest
from gpud.v1.devices_pb2 import CordonDeviceRequest, Device, UncordonDeviceRequest
from gpud.v1.instances_pb2 import Instance, UnloadModelRequest
from gpud.v1.reservations_pb2 import ReleaseRequest, Reservation

_REASON = "by gpuctl top"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """`question` is answered first; `do` blocks, tells what came of it, and raises Failure."""

    question: str
    consequence: str
    do: Callable[[], str]

    @property
    def asked(self) -> str:
        """The question, without anything that a terminal would obey."""
        return clean(self.question)


class Actions:
    """By the key that means them. None: that key means nothing for this noun."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def _client(self) -> Client:
        return self._session.client

    def cordon(self, told: Told, name: str) -> Action | None:
        """Takes a device out of use, or back into it."""
        device = told.device(name)
        if device is None:
            return None
        if device.cordoned:
            return Action(
                question=f"Uncordon {device.alias}?",
                consequence="It is granted on again.",
                do=lambda: self._uncordon(device),
            )
        return Action(
            question=f"Cordon {device.alias}?",
            consequence="Nothing new is granted on it, across restarts; what it carries stays.",
            do=lambda: self._cordon(device),
        )

    def unload(self, told: Told, name: str) -> Action | None:
        """Stops an instance."""
        instance = told.instance(name)
        if instance is None:
            return None
        used = known(instance, "measured_bytes")
        gives = f"{size_text(used)} come back" if used else "its promise ends"
        return Action(
            question=f"Unload {instance.name}?",
            consequence=f"Requests in flight have 5 s; then its engine is stopped and {gives}.",
            do=lambda: self._unload(instance),
        )

    def release(self, told: Told, name: str) -> Action | None:
        """Ends a reservation, or its waiting."""
        held = next((each for each in told.reservations if each.name == name), None)
        if held is None:
            return None
        total = size_text(sum(grant.bytes for grant in held.grants))
        return Action(
            question=f"Release {held.name} of {held.owner}?",
            consequence=f"{total} are given back once its processes are gone."
            if held.grants
            else "It waits no longer.",
            do=lambda: self._release(held),
        )

    def acknowledge(self, told: Told, name: str) -> Action | None:
        """Takes an alert on."""
        alert = next((each for each in told.alerts if each.name == name), None)
        if alert is None:
            return None
        return Action(
            question=f"Acknowledge {alert.rule} of {alert.alias or alert.subject}?",
            consequence="Nobody is sent it again while it lasts, unless it grows graver.",
            do=lambda: self._acknowledge(alert.name),
        )

    def _cordon(self, device: Device) -> str:
        request = CordonDeviceRequest(
            request_id=request_id(),
            name=device.name,
            reason=_REASON,
            owner=self._session.owner(),
        )
        self._client.call(self._client.devices.CordonDevice, request)
        return f"{device.alias} is cordoned"

    def _uncordon(self, device: Device) -> str:
        request = UncordonDeviceRequest(
            request_id=request_id(), name=device.name, owner=self._session.owner()
        )
        self._client.call(self._client.devices.UncordonDevice, request)
        return f"{device.alias} is granted on again"

    def _unload(self, instance: Instance) -> str:
        request = UnloadModelRequest(
            request_id=request_id(), instance=instance.name, owner=self._session.owner()
        )
        freed = None
        with self._client.stream(self._client.instances.UnloadModel, request) as steps:
            for step in steps:
                freed = known(step, "freed_bytes")
        back = "" if freed is None else f": {size_text(freed)} came back"
        return f"{instance.name} is unloaded{back}"

    def _release(self, held: Reservation) -> str:
        request = ReleaseRequest(
            request_id=request_id(), name=held.name, generation=held.generation
        )
        self._client.call(self._client.reservations.Release, request)
        return f"{held.name} is released"

    def _acknowledge(self, name: str) -> str:
        request = AcknowledgeAlertRequest(
            request_id=request_id(), name=name, comment=_REASON, owner=self._session.owner()
        )
        self._client.call(self._client.telemetry.AcknowledgeAlert, request)
        return f"{name} is acknowledged"
