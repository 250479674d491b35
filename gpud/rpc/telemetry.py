"""TelemetryService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from gpud.devices.snapshot import Snapshot
from gpud.errors import Reconciling
from gpud.rpc import messages
from gpud.rpc.view import View
from gpud.v1 import telemetry_pb2, telemetry_pb2_grpc

MAX_INTERVAL_SECONDS = 3600.0
# The sampler's ticks come a little early and a little late; a follower that asks for their very
# interval gets each of them.
_JITTER = 0.1


class Telemetry(telemetry_pb2_grpc.TelemetryServiceServicer):
    """What the devices show, now and as it changes."""

    def __init__(self, view: View) -> None:
        self._view = view

    async def GetSnapshot(
        self, request: telemetry_pb2.GetSnapshotRequest, context: Any
    ) -> telemetry_pb2.GetSnapshotResponse:
        """The newest snapshot."""
        latest = self._view.snapshots.latest
        if latest is None:
            raise Reconciling(waiting_for="the first sample")
        asked = messages.checked_devices(request.devices, latest)
        return telemetry_pb2.GetSnapshotResponse(
            snapshot=self._told(latest, asked, processes=request.include_processes)
        )

    async def WatchSnapshots(
        self, request: telemetry_pb2.WatchSnapshotsRequest, context: Any
    ) -> AsyncIterator[telemetry_pb2.WatchSnapshotsResponse]:
        """Each snapshot, or the newest once per interval."""
        interval = messages.checked_span("interval", request, 0.0, MAX_INTERVAL_SECONDS) or 0.0
        asked = messages.checked_devices(request.devices, self._view.snapshots.latest)
        last: Snapshot | None = None
        dropped = 0
        async for _, value in self._view.snapshots.follow():
            if last is not None:
                if value.boottime - last.boottime < interval * (1 - _JITTER):
                    continue
                dropped += value.sequence - last.sequence - 1
            last = value
            told = self._told(value, asked, processes=request.include_processes, dropped=dropped)
            yield telemetry_pb2.WatchSnapshotsResponse(snapshot=told)

    def _told(
        self, value: Snapshot, asked: tuple[str, ...], *, processes: bool, dropped: int = 0
    ) -> telemetry_pb2.Snapshot:
        samples = [s for s in value.samples if not asked or s.info.uuid in asked]
        devices = self._view.devices(samples, processes=processes)
        return messages.snapshot(value, devices, dropped)
