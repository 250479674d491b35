"""TelemetryService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from gpud.devices.snapshot import Snapshot
from gpud.errors import Reconciling
from gpud.rpc import forecast_messages, history_messages, messages
from gpud.rpc.alerts import AlertMethods
from gpud.rpc.view import View
from gpud.telemetry.seen import Seen
from gpud.v1 import forecast_pb2, history_pb2, telemetry_pb2, telemetry_pb2_grpc

MAX_INTERVAL_SECONDS = 3600.0
# The sampler's ticks come a little early and a little late; a follower that asks for their very
# interval gets each of them.
_JITTER = 0.1


class Telemetry(AlertMethods, telemetry_pb2_grpc.TelemetryServiceServicer):
    """What the devices show, now and as it changes."""

    def __init__(self, view: View, seen: Seen) -> None:
        super().__init__(view, seen.alerts)
        self._view = view
        self._seen = seen

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

    async def QueryHistory(
        self, request: history_pb2.QueryHistoryRequest, context: Any
    ) -> history_pb2.QueryHistoryResponse:
        """What was, in steps."""
        history, latest = self._seen.history, self._view.snapshots.latest
        known = await history.subjects()
        asked = history_messages.asked(request, known, latest, self._view.clock.now().wall)
        found = await history.query(asked)
        # Tens of thousands of points: not on the loop.
        return await asyncio.to_thread(history_messages.answer, found, known)

    async def GetForecast(
        self, request: forecast_pb2.GetForecastRequest, context: Any
    ) -> forecast_pb2.GetForecastResponse:
        """Memory and temperature over a horizon."""
        low, high = forecast_messages.MIN_HORIZON_SECONDS, forecast_messages.MAX_HORIZON_SECONDS
        horizon = messages.checked_span("horizon", request, low, high)
        horizon = forecast_messages.DEFAULT_HORIZON_SECONDS if horizon is None else horizon
        latest = self._view.snapshots.latest
        if latest is None:
            raise Reconciling(waiting_for="the first sample")
        asked = messages.checked_devices(request.devices, latest)
        samples = [s for s in latest.samples if not asked or s.info.uuid in asked]
        found = await self._seen.forecasts.forecast(samples, horizon)
        return forecast_messages.answer(found, self._view.clock.now().wall, horizon)

    def _told(
        self, value: Snapshot, asked: tuple[str, ...], *, processes: bool, dropped: int = 0
    ) -> telemetry_pb2.Snapshot:
        samples = [s for s in value.samples if not asked or s.info.uuid in asked]
        devices = self._view.devices(samples, processes=processes)
        return messages.snapshot(value, devices, dropped)
