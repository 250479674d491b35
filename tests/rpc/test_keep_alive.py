"""KeepAlive: one stream for several leases, and what ends it."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from gpud.v1 import reservations_pb2 as pb
from tests.rpc.asking import (
    PATIENCE_SECONDS,
    got,
    release,
    reserve,
    span,
    until,
    wait,
)
from tests.running import GIB, Api, Gpud, refusal_of

Code = grpc.StatusCode


async def test_one_stream_keeps_several_alive_each_by_its_own_terms(api: Api) -> None:
    first = await reserve(api, GIB, ttl=span(200))
    second = await reserve(api, GIB, ttl=span(300))
    stream = api.reservations.KeepAlive()
    async with asyncio.timeout(PATIENCE_SECONDS):
        for asked in (
            pb.KeepAliveRequest(name=first.name),
            pb.KeepAliveRequest(name=second.name, generation=1, ttl=span(500)),
            pb.KeepAliveRequest(name=first.name),
        ):
            await stream.write(asked)
        answers = [await stream.read() for _ in range(3)]
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
    assert [each.name for each in answers] == [first.name, second.name, first.name]
    assert {each.state for each in answers} == {pb.RESERVATION_STATE_GRANTED}
    assert {each.generation for each in answers} == {1}
    kept = [await got(api, each.name) for each in (first, second)]
    assert kept[0].expire_time == answers[2].expire_time
    assert kept[0].expire_time.ToMicroseconds() > first.expire_time.ToMicroseconds()
    assert kept[1].expire_time == answers[1].expire_time
    assert (kept[0].ttl.seconds, kept[1].ttl.seconds) == (200, 500)


async def test_one_that_ended_or_waits_is_told_and_the_stream_goes_on(api: Api) -> None:
    ended = await reserve(api, GIB)
    await release(api, ended.name)
    lives = await reserve(api)
    waits = await wait(api, GIB)
    stream = api.reservations.KeepAlive()
    async with asyncio.timeout(PATIENCE_SECONDS):
        told = {}
        for each in (ended, waits, lives):
            await stream.write(pb.KeepAliveRequest(name=each.name))
            told[each.name] = await stream.read()
        await stream.done_writing()
    assert told[ended.name].state == pb.RESERVATION_STATE_RELEASED
    assert told[waits.name].state == pb.RESERVATION_STATE_QUEUED
    assert told[lives.name].state == pb.RESERVATION_STATE_GRANTED
    has_end = {
        each.name: told[each.name].HasField("expire_time") for each in (ended, waits, lives)
    }
    assert has_end == {ended.name: False, waits.name: False, lives.name: True}


@pytest.mark.parametrize(
    ("name", "generation", "code", "reason"),
    [
        ("", 7, Code.ABORTED, "GENERATION_MISMATCH"),
        ("reservations/nobody", None, Code.NOT_FOUND, "RESERVATION_NOT_FOUND"),
        ("reservations/", None, Code.INVALID_ARGUMENT, "OPTION_INVALID"),
    ],
)
async def test_what_is_wrong_ends_the_stream_and_nothing_else(
    api: Api, name: str, generation: int | None, code: Code, reason: str
) -> None:
    made = await reserve(api, GIB, ttl=span(300))
    stream = api.reservations.KeepAlive()
    # Not by an iterator, nor one more: a client that writes once it was refused says "internal".
    async with asyncio.timeout(PATIENCE_SECONDS):
        await stream.write(pb.KeepAliveRequest(name=made.name))
        assert (await stream.read()).name == made.name
        wrong = pb.KeepAliveRequest(name=name or made.name, generation=generation, ttl=span(500))
        await stream.write(wrong)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
    refusal = refusal_of(caught.value)
    assert (refusal.code, refusal.reason) == (code, reason)
    assert (await got(api, made.name)).ttl.seconds == 300


async def test_a_client_that_vanishes_mid_keep_alive_leaves_nothing(
    running: Gpud, api: Api
) -> None:
    made = await reserve(api, ttl=span(300))
    async with grpc.aio.insecure_channel(running.address) as channel:
        stream = Api(channel).reservations.KeepAlive()
        async with asyncio.timeout(PATIENCE_SECONDS):
            for ttl in (300, 300, 1):
                await stream.write(pb.KeepAliveRequest(name=made.name, ttl=span(ttl)))
                answer = await stream.read()
    ended = await until(api, made.name, pb.RESERVATION_STATE_EXPIRED)
    assert ended.end_time.ToMicroseconds() >= answer.expire_time.ToMicroseconds()
