"""The journal as a client reads it: where it begins, what is gone, which call an event is of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from gpud.v1 import devices_pb2
from gpud.v1 import node_pb2 as pb
from tests.running import Api, Gpud, calling, refusal_of, refused_stream

PATIENCE_SECONDS = 60.0
LARGE = "x" * 256


async def listed(api: Api, **asked: Any) -> pb.ListEventsResponse:
    return await api.node.ListEvents(pb.ListEventsRequest(**asked))


async def cordon_and_back(api: Api, request_id: str = "") -> None:
    cordon = devices_pb2.CordonDeviceRequest(name="gpu0", reason=LARGE, request_id=request_id)
    await api.devices.CordonDevice(cordon)
    await api.devices.UncordonDevice(devices_pb2.UncordonDeviceRequest(name="gpu0"))


@pytest.fixture
async def small(gpud: Callable[..., Gpud]) -> AsyncIterator[Api]:
    """Of a daemon that keeps the least there is, and has let go of its first events."""
    daemon = gpud(cards=1, extra='[events]\nmax_bytes = "64KiB"\n').start()
    async with calling(daemon) as api, asyncio.timeout(PATIENCE_SECONDS):
        while (await listed(api, page_size=1)).oldest_sequence == 1:
            await cordon_and_back(api)
        # Two commits without an event: what is to go has gone.
        for label in ("one", "two"):
            nothing = devices_pb2.UncordonDeviceRequest(name="gpu0", request_id=label)
            await api.devices.UncordonDevice(nothing)
        yield api


async def test_what_is_gone_is_refused_with_where_the_journal_begins(small: Api) -> None:
    begins = (await listed(small, page_size=1)).oldest_sequence
    refusal = await refused_stream(small.node.WatchEvents(pb.WatchEventsRequest(after_sequence=1)))
    assert refusal.code is grpc.StatusCode.OUT_OF_RANGE
    assert refusal.reason == "EVENTS_PRUNED"
    told = int(refusal.metadata["oldest_sequence"])
    assert told >= begins
    assert f"after_sequence {told - 1}" in refusal.message
    # As the refusal advises, and from wherever it begins.
    for after in (told - 1, 0):
        stream = small.node.WatchEvents(pb.WatchEventsRequest(after_sequence=after))
        assert (await stream.read()).event.sequence == told
        stream.cancel()
    answer = await listed(small, page_size=1000, until=Timestamp(seconds=2**33))
    assert answer.events[-1].sequence == answer.oldest_sequence
    assert answer.events[-1].time == answer.oldest_time


async def test_what_is_beyond_the_newest_is_refused_and_not_waited_for(api: Api) -> None:
    newest = (await listed(api, page_size=1)).events[0].sequence
    beyond = pb.WatchEventsRequest(after_sequence=newest + 1000)
    refusal = await refused_stream(api.node.WatchEvents(beyond))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "OPTION_INVALID")
    assert f"{newest + 1000} is beyond the newest event, {newest}" in refusal.message
    # The newest itself is where most begin.
    stream = api.node.WatchEvents(pb.WatchEventsRequest(after_sequence=newest))
    await cordon_and_back(api)
    assert (await stream.read()).event.sequence == newest + 1
    stream.cancel()


async def test_moments_part_what_was_from_what_came(api: Api) -> None:
    await cordon_and_back(api)
    newest, before = (await listed(api, page_size=2)).events
    found = (await listed(api, until=newest.time, page_size=1)).events
    assert found[0].sequence == before.sequence or before.time == newest.time
    assert not (await listed(api, until=Timestamp(seconds=1))).events
    same = Timestamp(seconds=7)
    assert not (await listed(api, since=same, until=same)).events
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await listed(api, since=Timestamp(seconds=9), until=same)
    refusal = refusal_of(caught.value)
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("until",))
    assert "2 s before `since`" in refusal.message


async def test_the_events_of_a_call_are_found_by_its_request_id(api: Api) -> None:
    await cordon_and_back(api, request_id="find-me")
    (told,) = (await listed(api, request_id="find-me")).events
    assert (told.type, told.method) == ("device.cordoned", "DeviceService/CordonDevice")
    assert told.caller == told.actor != ""
    followed = api.node.WatchEvents(pb.WatchEventsRequest(request_id="find-me", after_sequence=0))
    assert (await followed.read()).event == told
    followed.cancel()
    assert not (await listed(api, request_id="find")).events


async def test_fifty_that_take_no_events_hurt_nobody(api: Api) -> None:
    """They keep their place: each gets all of it when it goes on."""
    begin = (await listed(api, page_size=1)).events[0].sequence
    asked = pb.WatchEventsRequest(after_sequence=begin)
    stopped = [api.node.WatchEvents(asked) for _ in range(50)]
    for _ in range(40):
        await cordon_and_back(api)
    for stream in stopped:
        numbers = [(await stream.read()).event.sequence for _ in range(80)]
        assert numbers == [*range(begin + 1, begin + 81)]
        with suppress(asyncio.CancelledError):
            stream.cancel()
