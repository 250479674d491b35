"""TelemetryService."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from gpud.errors import Reconciling
from gpud.rpc import forecast_messages, history_messages, messages
from gpud.rpc.alerts import AlertMethods
from gpud.rpc.delivery import Delivery, Follower
from gpud.rpc.telling import Asked, Own, Told
from gpud.rpc.view import View
from gpud.telemetry.seen import Seen
from gpud.v1 import forecast_pb2, history_pb2, telemetry_pb2, telemetry_pb2_grpc

MAX_INTERVAL_SECONDS = 3600.0


class Telemetry(AlertMethods, telemetry_pb2_grpc.TelemetryServiceServicer):
    """What the devices show, now and as it changes."""

    def __init__(self, view: View, seen: Seen) -> None:
        super().__init__(view, seen.alerts)
        self._view = view
        self._seen = seen
        self._told = Told(view, secrets.token_hex(4))
        self._delivery = Delivery(view.snapshots, view.clock)

    async def GetSnapshot(
        self, request: telemetry_pb2.GetSnapshotRequest, context: Any
    ) -> telemetry_pb2.GetSnapshotResponse:
        """The newest snapshot."""
        latest = self._view.snapshots.latest
        if latest is None:
            raise Reconciling(waiting_for="the first sample")
        devices = messages.checked_devices(request.devices, latest)
        asked = Asked(devices=devices, processes=request.include_processes)
        return telemetry_pb2.GetSnapshotResponse(snapshot=self._told.message(latest, asked))

    async def WatchSnapshots(
        self, request: telemetry_pb2.WatchSnapshotsRequest, context: Any
    ) -> AsyncIterator[telemetry_pb2.WatchSnapshotsResponse]:
        """Each snapshot, or the newest once per interval; as bytes, made once for all alike."""
        interval = messages.checked_span("interval", request, 0.0, MAX_INTERVAL_SECONDS) or 0.0
        devices = messages.checked_devices(request.devices, self._view.snapshots.latest)
        asked = Asked(devices=tuple(sorted(devices)), processes=request.include_processes)
        after = self._told.resumed(request, self._view.snapshots.latest)
        follower = Follower(interval_seconds=interval, after_sequence=after or 0)
        is_first = True
        async with aclosing(self._delivery.follow(follower)) as snapshots:
            async for snapshot in snapshots:
                missed = snapshot.sequence - after - 1 if is_first and after is not None else None
                own = Own(dropped_count=follower.dropped_count, missed_count=missed)
                yield self._told.encoded(snapshot, asked, own, fresh=is_first)
                is_first = False

    async def QueryHistory(
        self, request: history_pb2.QueryHistoryRequest, context: Any
    ) -> history_pb2.QueryHistoryResponse:
        """What was, in steps."""
        history, latest = self._seen.history, self._view.snapshots.latest
        known = await history.subjects()
        asked = history_messages.asked(request, known, latest, self._view.clock.now().wall)
        found = await history.query(asked)
        # Tens of thousands of points: not on the loop.
        return await asyncio.to_thread(history_messages.answer, found, known, asked.end)

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
