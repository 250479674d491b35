"""The history and forecasts of a whole daemon, through restarts and with a past that it read."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from gpud.v1 import forecast_pb2, history_pb2, node_pb2, telemetry_pb2
from gpud.v1 import reservations_pb2 as r
from tests.end_to_end.driving import load
from tests.running import GIB, Api, Gpud, calling
from tests.telemetry.history.seeding import seed

HOUR = 3600
# What a P106-100 can promise of its 6 GB.
ROOM = 6375342080 - 512 * 2**20


async def past(api: Api, *fields: str, **asked: Any) -> history_pb2.QueryHistoryResponse:
    request = history_pb2.QueryHistoryRequest(subjects=["gpu0"], fields=fields, **asked)
    return await api.telemetry.QueryHistory(request)


async def snapshots(api: Api, count: int) -> None:
    """Until so many more were taken."""
    async with asyncio.timeout(60):
        call = api.telemetry.WatchSnapshots(telemetry_pb2.WatchSnapshotsRequest())
        async for _ in call:
            count -= 1
            if count < 0:
                break
        call.cancel()


async def events(api: Api, type_: str) -> list[node_pb2.Event]:
    answer = await api.node.ListEvents(node_pb2.ListEventsRequest(type=type_))
    return list(answer.events)


async def test_it_outlives_restarts_and_what_cannot_be_read(gpud: Callable[..., Gpud]) -> None:
    daemon = gpud(cards=1, interval="20ms")
    daemon.start()
    begun = time.time()
    async with calling(daemon) as api:
        await snapshots(api, 5)
        before = (await past(api, "power_watts")).series[0].points
    daemon.stop()
    daemon.start()
    async with calling(daemon) as api:
        await snapshots(api, 3)
        answer = await past(api, "power_watts")
        (series,) = answer.series
        assert (series.alias, series.unit, answer.step.seconds) == ("gpu0", "watts", 1)
        assert series.points[0].time == before[0].time
        assert sum(p.count for p in series.points) > sum(p.count for p in before[:-1])
        assert abs(answer.oldest_time.seconds - begun) < 60
    daemon.stop()
    (daemon.state / "history.db").write_bytes(b"rubbish" * 1000)
    daemon.start()
    async with calling(daemon) as api:
        (told,) = await events(api, "history.unreadable")
        assert told.reason.endswith("history.db.unreadable")
        await snapshots(api, 3)
        assert (await past(api, "power_watts")).series


async def test_a_disk_that_takes_no_history_takes_promises(gpud: Callable[..., Gpud]) -> None:
    daemon = gpud(cards=1)
    daemon.start()
    daemon.stop()
    (daemon.state / "history.db").unlink()
    (daemon.state / "history.db").mkdir()
    daemon.start()
    async with calling(daemon) as api:
        (told,) = await events(api, "history.paused")
        assert "unable to open" in told.reason
        asked = r.ReserveRequest(bytes=GIB, device_count=1, owner="me")
        granted = (await api.reservations.Reserve(asked)).reservation
        assert granted.state == r.RESERVATION_STATE_GRANTED
        await snapshots(api, 3)
        assert (await past(api, "memory_used_bytes")).series[0].points


@pytest.fixture
async def seeded(gpud: Callable[..., Gpud]) -> Gpud:
    """One whose first card has leaked for 7 h and is nearly full, and whose second has none."""
    daemon = gpud(cards=2)
    scenario = daemon.directory / "scenario.json"
    daemon.devices = f'scenario = "{scenario}"'
    pace = 0.6 * GIB / HOUR
    now = int(ROOM - 1.3 * GIB)
    foreign = [{"pid": 2**22, "bytes": now}]
    scenario.write_text(json.dumps({"gpu0": {"temperature_celsius": 60, "foreign": foreign}}))
    daemon.start()
    daemon.stop()
    (daemon.state / "history.db").unlink()

    def used(before: int) -> float:
        return int(now - pace * before)

    course = {
        "memory_used_bytes": used,
        "foreign_bytes": used,
        "charged_bytes": lambda _: 0,
        "observed_bytes": lambda _: 0,
        "grantable_bytes": lambda before: ROOM - used(before),
        "temperature_celsius": lambda before: 60 + before % 3,
    }
    seed(daemon.state, time.time(), 7 * HOUR, 10, gpu0=course)
    return daemon.start()


async def forecasts(api: Api, **asked: Any) -> dict[str, forecast_pb2.Forecast]:
    answer = await api.telemetry.GetForecast(forecast_pb2.GetForecastRequest(**asked))
    return {f"{each.alias} {each.field}": each for each in answer.forecasts}


async def test_a_leak_is_foretold_and_a_lease_that_ends_counts(seeded: Gpud) -> None:
    async with calling(seeded) as api:
        hours = await past(api, "memory_used_bytes", window=Duration(seconds=6 * HOUR))
        (series,) = hours.series
        values = [point.mean for point in series.points]
        assert len(values) > 300
        assert values == sorted(values)

        told = (await forecasts(api))["gpu0 memory_used_bytes"]
        assert told.expected - told.now == pytest.approx(0.6 * GIB, rel=0.1)
        assert told.low <= told.expected <= told.high
        assert told.past_coverage >= told.confidence == 0.8
        assert told.method == "drift"
        assert not told.HasField("reaches_limit_time")

        lease = r.ReserveRequest(bytes=GIB, devices=["gpu0"], owner="me")
        lease.ttl.seconds = 50 * 60
        held = (await api.reservations.Reserve(lease)).reservation
        full = (await forecasts(api))["gpu0 memory_used_bytes"]
        ((change),) = full.known
        assert (change.subject, change.bytes) == (held.name, -GIB)
        # 0.3 GiB are left, and half an hour takes them.
        left = full.reaches_limit_time.seconds - time.time()
        assert left == pytest.approx(1800, abs=300)


@pytest.mark.engine
async def test_engines_are_kept_by_instance_and_by_model(
    modelled: Callable[..., Gpud], llama_server: Path
) -> None:
    fast = '[engine_metrics]\ninterval = "100ms"\n'
    daemon = modelled(llama_server, extra=fast).start()
    async with calling(daemon) as api:
        loaded = await load(api)
        subjects = [loaded.name, "tiny"]

        async def kept() -> dict[str, list[float]]:
            """By subject, the requests that run, as far as anything is kept yet."""
            asked = history_pb2.QueryHistoryRequest(subjects=subjects, fields=["requests_running"])
            try:
                answer = await api.telemetry.QueryHistory(asked)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.NOT_FOUND  # noqa: PT017 (it goes on)
                return {}
            return {each.subject: [p.last for p in each.points] for each in answer.series}

        async with asyncio.timeout(60):
            while set(told := await kept()) != {loaded.name, "models/tiny"}:
                await snapshots(api, 1)
        assert set(told["models/tiny"]) == {0}
        assert len(told[loaded.name]) >= 1


async def test_too_short_a_past_is_told_with_numbers(seeded: Gpud) -> None:
    async with calling(seeded) as api:
        told = await forecasts(api, horizon=Duration(seconds=24 * HOUR), devices=["gpu0"])
        assert set(told) == {"gpu0 memory_used_bytes", "gpu0 temperature_celsius"}
        memory = told["gpu0 memory_used_bytes"]
        assert "not enough history: have " in memory.refusal
        assert "need 5d to look 24h ahead" in memory.refusal
        assert not memory.HasField("expected")
        heat = (await forecasts(api))["gpu0 temperature_celsius"]
        assert 58 <= heat.low <= heat.expected <= heat.high <= 64
