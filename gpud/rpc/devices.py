"""DeviceService."""

from __future__ import annotations

from typing import Any

from gpud.rpc import messages, paging
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
        return devices_pb2.GetDeviceResponse(
            device=self._view.devices((sample,), processes=True)[0]
        )
