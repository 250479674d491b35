"""Snapshots: numbered, thinned by interval, dropped ones counted, narrowed to devices."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import psutil
import pytest
from google.protobuf.duration_pb2 import Duration

from gpud.v1 import reservations_pb2
from gpud.v1 import telemetry_pb2 as pb
from tests.running import Api, Gpud

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


async def test_an_interval_thins_and_what_it_skips_was_not_lost(api: Api) -> None:
    found = await watch(api, 3, interval=milliseconds(16 * SAMPLING_MILLISECONDS))
    gaps = [
        after.time.ToMilliseconds() - before.time.ToMilliseconds()
        for before, after in pairwise(found)
    ]
    assert min(gaps) >= 14 * SAMPLING_MILLISECONDS
    assert found[-1].sequence - found[0].sequence > 2
    assert {each.dropped_count for each in found} == {0}


@pytest.mark.parametrize("interval", [Duration(), Duration(nanos=1)], ids=["0", "1 ns"])
async def test_no_interval_and_the_least_are_the_same(api: Api, interval: Duration) -> None:
    found = await watch(api, 6, interval=interval)
    numbers = [each.sequence for each in found]
    assert numbers == [*range(numbers[0], numbers[0] + 6)]


async def test_the_greatest_interval_brings_the_present_at_once(api: Api) -> None:
    assert len(await watch(api, 1, interval=Duration(seconds=3600))) == 1


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


async def test_one_who_comes_back_hears_how_many_it_missed(api: Api) -> None:
    (last,) = await watch(api, 1)
    await watch(api, 4)  # time goes by
    first, second = await watch(api, 2, after_sequence=last.sequence, epoch=last.epoch)
    assert first.epoch == last.epoch != ""
    assert first.missed_count == first.sequence - last.sequence - 1 > 0
    assert not second.HasField("missed_count")
    assert {first.dropped_count, second.dropped_count} == {0}


async def test_one_who_has_the_newest_is_not_sent_it_again(api: Api) -> None:
    newest = (await api.telemetry.GetSnapshot(pb.GetSnapshotRequest())).snapshot
    (first,) = await watch(api, 1, after_sequence=newest.sequence, epoch=newest.epoch)
    assert first.sequence > newest.sequence
    assert first.missed_count == first.sequence - newest.sequence - 1


@pytest.mark.parametrize(
    "asked", [{"after_sequence": 1, "epoch": "another"}, {"after_sequence": 2**62}]
)
async def test_a_number_of_another_life_says_nothing(api: Api, asked: dict[str, Any]) -> None:
    (first,) = await watch(api, 1, **asked)
    assert not first.HasField("missed_count")


async def test_all_who_ask_alike_are_told_alike_and_others_what_they_asked(api: Api) -> None:
    """What is put into bytes once for many, and each reader's own beside it."""
    alike, narrow, listed = [
        {each.sequence: each for each in found}
        for found in await asyncio.gather(
            watch(api, 8), watch(api, 8, devices=["gpu2"]), watch(api, 8, include_processes=True)
        )
    ]
    common = alike.keys() & narrow.keys() & listed.keys()
    assert common
    for number in common:
        (card,) = narrow[number].devices
        assert card == alike[number].devices[2]
        assert [each.alias for each in listed[number].devices] == [
            each.alias for each in alike[number].devices
        ]
    (again,) = await watch(api, 1, after_sequence=alike[min(common)].sequence)
    assert again.HasField("missed_count")
    assert len(again.devices) == 5  # the reader's own does not take the place of the rest


async def test_a_new_reader_sees_what_was_promised_just_now(api: Api) -> None:
    """Also between two snapshots, of which the newest has been sent to others already."""
    await watch(api, 1)
    request = reservations_pb2.ReserveRequest(bytes=2**30, devices=["gpu1"])
    made = (await api.reservations.Reserve(request)).reservation
    (told,) = await watch(api, 1, devices=["gpu1"])
    assert told.devices[0].granted_bytes >= 2**30
    await api.reservations.Release(reservations_pb2.ReleaseRequest(name=made.name))


async def test_fifty_that_stop_reading_cost_bounded_memory_and_hurt_nobody(
    running: Gpud, api: Api
) -> None:
    """Their windows fill up; what comes then is counted, not kept."""
    assert running.process is not None
    calls = [api.telemetry.WatchSnapshots(pb.WatchSnapshotsRequest()) for _ in range(50)]
    await asyncio.gather(*(call.read() for call in calls))
    server = psutil.Process(running.process.pid)
    await watch(api, 15)
    before = server.memory_info().rss
    assert len(await watch(api, 40)) == 40
    # 64 KiB of window a stream, and what gRPC holds of it.
    assert server.memory_info().rss - before < 16 * 2**20
    for call in calls:
        call.cancel()
