"""DeviceService."""

from __future__ import annotations

from typing import Any

from gpud.devices.snapshot import Sample
from gpud.ledger.books import Cordon
from gpud.rpc import messages, paging
from gpud.rpc.reservations import call_of
from gpud.rpc.view import View
from gpud.v1 import devices_pb2, devices_pb2_grpc


class Devices(devices_pb2_grpc.DeviceServiceServicer):
    """What the newest snapshot shows, with the durable promises."""

    def __init__(self, view: View) -> None:
        self._view = view

    async def ListDevices(
        self, request: devices_pb2.ListDevicesRequest, context: Any
    ) -> devices_pb2.ListDevicesResponse:
        """All devices, GPUs first, in their order."""
        snapshot = self._view.snapshots.latest
        samples = snapshot.samples if snapshot is not None else ()
        order = {sample.info.uuid: f"{at:06d}" for at, sample in enumerate(samples)}
        shown, token = paging.page(samples, lambda each: order[each.info.uuid], request)
        return devices_pb2.ListDevicesResponse(
            devices=self._view.devices(shown, processes=request.include_processes),
            next_page_token=token,
        )

    async def GetDevice(
        self, request: devices_pb2.GetDeviceRequest, context: Any
    ) -> devices_pb2.GetDeviceResponse:
        """One device, its processes included."""
        name = messages.checked_name("name", request.name, "devices")
        sample = messages.checked_device("name", name, self._view.snapshots.latest)
        return devices_pb2.GetDeviceResponse(device=self._told(sample))

    async def CordonDevice(
        self, request: devices_pb2.CordonDeviceRequest, context: Any
    ) -> devices_pb2.CordonDeviceResponse:
        """No new grants on it; what it carries stays."""
        told = await self._cordon("CordonDevice", request, request.reason)
        return devices_pb2.CordonDeviceResponse(device=told)

    async def UncordonDevice(
        self, request: devices_pb2.UncordonDeviceRequest, context: Any
    ) -> devices_pb2.UncordonDeviceResponse:
        """Grants again, to those that wait first."""
        told = await self._cordon("UncordonDevice", request, None)
        return devices_pb2.UncordonDeviceResponse(device=told)

    async def _cordon(
        self,
        method: str,
        request: devices_pb2.CordonDeviceRequest | devices_pb2.UncordonDeviceRequest,
        reason: str | None,
    ) -> devices_pb2.Device:
        """`reason` None lifts the cordon."""
        promises, latest = self._view.promises, self._view.snapshots.latest
        name = messages.checked_name("name", request.name, "devices")
        call = call_of(method, request.request_id, name, reason)
        known = promises.requests.find(call)
        if known is not None:  # of a device that the first time may have had forgotten
            uuid = known.result
            sample = latest.find(uuid) if latest is not None else None
        else:
            sample = messages.checked_device("name", name, latest)
            uuid = sample.info.uuid
        actor = messages.acting_for(request.owner)
        cordon = self._cordon_of(uuid, reason, actor) if reason is not None else None
        await promises.cordon(uuid, cordon, actor, call)
        if sample is None:
            return devices_pb2.Device(name=f"devices/{uuid}")
        return self._told(sample)

    def _cordon_of(self, uuid: str, reason: str, actor: str) -> Cordon:
        known = self._view.promises.durable.cordons.get(uuid)
        return Cordon(
            # Said again without a reason, the first one stands.
            reason=messages.checked_text("reason", reason) or (known.reason if known else ""),
            actor=actor,
            wall=self._view.clock.now().wall,
        )

    def _told(self, sample: Sample) -> devices_pb2.Device:
        return self._view.devices((sample,), processes=True)[0]
