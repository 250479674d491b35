"""Snapshots: numbered, thinned by interval, dropped ones counted, narrowed to devices."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

from google.protobuf.duration_pb2 import Duration

from gpud.v1 import telemetry_pb2 as pb
from tests.running import Api

PATIENCE_SECONDS = 60.0
SAMPLING_MILLISECONDS = 50


async def watch(api: Api, count: int, **asked: Any) -> list[pb.Snapshot]:
    found: list[pb.Snapshot] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        call = api.telemetry.WatchSnapshots(pb.WatchSnapshotsRequest(**asked))
        async for message in call:
            found.append(message.snapshot)
            if len(found) == count:
                break
    call.cancel()
    return found


def milliseconds(value: int) -> Duration:
    made = Duration()
    made.FromMilliseconds(value)
    return made


async def test_a_snapshot_has_every_device_and_the_host(api: Api) -> None:
    snapshot = (await api.telemetry.GetSnapshot(pb.GetSnapshotRequest())).snapshot
    assert [each.alias for each in snapshot.devices] == ["gpu0", "gpu1", "gpu2", "gpu3", "host"]
    assert snapshot.host.memory_total_bytes > snapshot.host.memory_available_bytes > 0
    card = snapshot.devices[0]
    assert card.sample.memory_used_bytes + card.free_bytes == card.memory_total_bytes
    assert card.sample.HasField("temperature_celsius")
    assert snapshot.dropped_count == 0


async def test_a_reading_that_a_card_lacks_is_absent_and_not_zero(api: Api) -> None:
    snapshot = (await api.telemetry.GetSnapshot(pb.GetSnapshotRequest(devices=["host"]))).snapshot
    (host,) = snapshot.devices
    assert not host.sample.HasField("power_watts")
    assert not host.sample.HasField("fan_percent")


async def test_without_an_interval_every_snapshot_comes(api: Api) -> None:
    """On a machine so busy that one is dropped on the way, that is told, and the next come."""
    in_a_row, last = 1, None
    async with asyncio.timeout(PATIENCE_SECONDS):
        call = api.telemetry.WatchSnapshots(pb.WatchSnapshotsRequest())
        async for message in call:
            now = message.snapshot
            if last is None:
                assert now.dropped_count == 0
            else:
                passed_over = now.sequence - last.sequence - 1
                assert now.dropped_count - last.dropped_count == passed_over
                in_a_row = 1 if passed_over else in_a_row + 1
            last = now
            if in_a_row == 6:
                break
    call.cancel()


async def test_an_interval_thins_and_what_was_passed_over_is_counted(api: Api) -> None:
    found = await watch(api, 3, interval=milliseconds(16 * SAMPLING_MILLISECONDS))
    gaps = [
        after.time.ToMilliseconds() - before.time.ToMilliseconds()
        for before, after in pairwise(found)
    ]
    assert min(gaps) >= 14 * SAMPLING_MILLISECONDS
    passed_over = found[-1].sequence - found[0].sequence - 2
    assert found[-1].dropped_count == passed_over > 0


async def test_an_interval_below_the_sampler_does_not_speed_it(api: Api) -> None:
    found = await watch(api, 6, interval=milliseconds(1))
    spent = found[-1].time.ToMilliseconds() - found[0].time.ToMilliseconds()
    # The first may be late, and the second in time.
    assert spent >= 4 * SAMPLING_MILLISECONDS * 0.9


async def test_devices_narrow_by_alias_uuid_and_name(api: Api) -> None:
    (whole,) = await watch(api, 1)
    third = whole.devices[2]
    asked = ["gpu1", third.name, whole.devices[0].name.removeprefix("devices/")]
    (snapshot,) = await watch(api, 1, devices=asked)
    assert [each.alias for each in snapshot.devices] == ["gpu0", "gpu1", "gpu2"]
    got = await api.telemetry.GetSnapshot(pb.GetSnapshotRequest(devices=["gpu3"]))
    assert [each.alias for each in got.snapshot.devices] == ["gpu3"]


async def test_a_thousandfold_reader_that_does_not_read_hurts_nobody(api: Api) -> None:
    calls = [api.telemetry.WatchSnapshots(pb.WatchSnapshotsRequest()) for _ in range(50)]
    assert len(await watch(api, 5)) == 5
    for call in calls:
        call.cancel()
