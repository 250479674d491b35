"""Waiting for bytes: the answer, the place, the watch, the limits, and clients that vanish."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc

from gpud.v1 import node_pb2
from gpud.v1 import reservations_pb2 as pb
from tests.rpc.asking import (
    PATIENCE_SECONDS,
    WHOLE,
    got,
    micros,
    release,
    reserve,
    span,
    until,
    wait,
)
from tests.running import GIB, Api, Gpud, calling, refused, refused_stream

Code = grpc.StatusCode


# The answer and the place.


async def test_the_answer_says_that_it_waits_where_and_for_what(api: Api) -> None:
    blocker = await reserve(api)
    made = await wait(api, GIB, owner="anna", priority=pb.PRIORITY_BATCH, ttl=span(30))
    assert (made.queue_position, made.generation, list(made.grants)) == (1, 1, [])
    assert "1 GiB on gpu3" in made.wait_reason
    assert "granted 5.44 GiB" in made.wait_reason
    assert abs(micros(made.wait_until_time) - micros(made.create_time) - 60_000_000) < 1000
    assert not made.HasField("expire_time")
    assert dict(made.environment) == {}
    # When the one in its way ends, unless that is renewed.
    assert abs(micros(made.expected_time) - micros(blocker.expire_time)) < 1000

    await release(api, blocker.name)
    granted = await until(api, made.name, pb.RESERVATION_STATE_GRANTED)
    assert (granted.generation, granted.grants[0].bytes) == (2, GIB)
    assert not granted.HasField("queue_position")
    assert (granted.wait_reason, granted.HasField("wait_until_time")) == ("", False)
    assert granted.expire_time.ToMicroseconds() > granted.create_time.ToMicroseconds() + 29e6
    assert granted.environment["GPUD_RESERVATION"] == granted.name.removeprefix("reservations/")


async def test_three_classes_wait_in_their_order(api: Api) -> None:
    blocker = await reserve(api)
    made = {}
    for priority in (pb.PRIORITY_BATCH, pb.PRIORITY_CRITICAL, pb.PRIORITY_NORMAL):
        made[priority] = (await wait(api, priority=priority)).name
    listed = await api.reservations.ListReservations(
        pb.ListReservationsRequest(states=[pb.RESERVATION_STATE_QUEUED])
    )
    places = {each.priority: each.queue_position for each in listed.reservations}
    assert places == {pb.PRIORITY_CRITICAL: 1, pb.PRIORITY_NORMAL: 2, pb.PRIORITY_BATCH: 3}
    first, second = made[pb.PRIORITY_CRITICAL], made[pb.PRIORITY_NORMAL]
    assert f"kept for {first}" in (await got(api, second)).wait_reason
    assert not (await got(api, second)).HasField("expected_time")
    for priority in (pb.PRIORITY_CRITICAL, pb.PRIORITY_NORMAL, pb.PRIORITY_BATCH):
        await release(api, blocker.name)
        blocker = await until(api, made[priority], pb.RESERVATION_STATE_GRANTED)


async def test_the_same_request_id_waits_once(api: Api) -> None:
    blocker = await reserve(api)
    first = await wait(api, GIB, request_id="wait-once")
    again = await wait(api, GIB, request_id="wait-once")
    assert (again.name, again.queue_position) == (first.name, 1)
    await release(api, blocker.name)
    granted = await until(api, first.name, pb.RESERVATION_STATE_GRANTED)
    assert await reserve(api, GIB, request_id="wait-once", max_wait=span(60)) == granted


async def test_a_dry_run_says_that_it_would_wait_and_does_not(api: Api) -> None:
    await reserve(api)
    told = await wait(api, GIB, validate_only=True)
    assert told.state == pb.RESERVATION_STATE_QUEUED
    listed = await api.reservations.ListReservations(
        pb.ListReservationsRequest(states=[pb.RESERVATION_STATE_QUEUED])
    )
    assert list(listed.reservations) == []


async def test_what_can_never_fit_does_not_wait(api: Api) -> None:
    refusal = await refused(
        api.reservations.Reserve(
            pb.ReserveRequest(bytes=WHOLE + 1, devices=["gpu3"], max_wait=span(60))
        )
    )
    assert (refusal.code, refusal.reason) == (Code.RESOURCE_EXHAUSTED, "VRAM_INSUFFICIENT")
    assert "ask for less per device" in refusal.message


# Watching.


async def test_a_watch_tells_the_wait_the_grant_and_the_end(api: Api) -> None:
    blocker = await reserve(api)
    ahead = await wait(api)
    made = await wait(api, GIB)
    watch = api.reservations.WatchReservation(pb.WatchReservationRequest(name=made.name))
    async with asyncio.timeout(PATIENCE_SECONDS):
        told = aiter(watch)
        seen = (await anext(told)).reservation
        assert (seen.state, seen.queue_position) == (pb.RESERVATION_STATE_QUEUED, 2)
        await release(api, ahead.name)
        while seen.queue_position == 2:
            seen = (await anext(told)).reservation
        assert (seen.state, seen.queue_position) == (pb.RESERVATION_STATE_QUEUED, 1)
        await release(api, blocker.name)
        while seen.state == pb.RESERVATION_STATE_QUEUED:
            seen = (await anext(told)).reservation
        assert seen.state == pb.RESERVATION_STATE_GRANTED
        await release(api, made.name)
        rest = [each.reservation.state async for each in told]
    assert rest == [pb.RESERVATION_STATE_RELEASED]


async def test_what_has_ended_is_told_once(api: Api) -> None:
    made = await reserve(api, GIB)
    await release(api, made.name)
    watch = api.reservations.WatchReservation(pb.WatchReservationRequest(name=made.name))
    async with asyncio.timeout(PATIENCE_SECONDS):
        states = [each.reservation.state async for each in watch]
    assert states == [pb.RESERVATION_STATE_RELEASED]


async def test_nobody_is_watched_whom_nobody_knows(api: Api) -> None:
    watch = api.reservations.WatchReservation(
        pb.WatchReservationRequest(name="reservations/nobody")
    )
    refusal = await refused_stream(watch)
    assert (refusal.code, refusal.reason) == (Code.NOT_FOUND, "RESERVATION_NOT_FOUND")


async def test_a_wait_in_vain_ends_expired(api: Api) -> None:
    await reserve(api)
    made = await wait(api, GIB, max_wait=span(0.3))
    ended = await until(api, made.name, pb.RESERVATION_STATE_EXPIRED)
    assert ended.state_reason == "waited 0.3 s for its bytes"
    waited = ended.end_time.ToMicroseconds() - ended.create_time.ToMicroseconds()
    assert waited >= 300_000
    assert not ended.HasField("expire_time")


# Clients that vanish.


async def test_a_client_that_vanishes_mid_wait_leaves_nothing(running: Gpud, api: Api) -> None:
    await reserve(api)
    async with grpc.aio.insecure_channel(running.address) as channel:
        gone = Api(channel)
        made = await wait(gone, GIB, max_wait=span(0.5))
        watch = gone.reservations.WatchReservation(pb.WatchReservationRequest(name=made.name))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await anext(aiter(watch))
    ended = await until(api, made.name, pb.RESERVATION_STATE_EXPIRED)
    assert list(ended.grants) == []


async def test_a_wait_that_nobody_follows_is_granted_and_its_lease_ends(
    running: Gpud, api: Api
) -> None:
    blocker = await reserve(api)
    async with grpc.aio.insecure_channel(running.address) as channel:
        made = await wait(Api(channel), GIB, ttl=span(1))
    await release(api, blocker.name)
    ended = await until(api, made.name, pb.RESERVATION_STATE_EXPIRED)
    assert ended.state_reason == "expired"
    # In the journal, for whoever looks too late sees it granted no more.
    told = await api.node.ListEvents(node_pb2.ListEventsRequest(subject=made.name))
    assert [each.type for each in told.events][:2] == [
        "reservation.expired",
        "reservation.granted",
    ]
    await reserve(api)  # all of it is free again


# Explain.


async def test_explain_tells_the_holders_and_changes_nothing(api: Api) -> None:
    holder = await reserve(api, owner="voice", ttl=span(300))
    await wait(api, owner="chat")
    before = await state_of_the_world(api)
    asked = pb.ExplainRequest(bytes=GIB, devices=["gpu3", "gpu2"], device_count=1)
    told = await api.reservations.Explain(asked)
    assert (told.fits, told.reason, told.queue_ahead, told.can_wait) == (True, "", 1, True)
    assert told.summary == "fits now: 1 GiB on gpu2, NORMAL"
    second, first = told.devices
    assert (first.alias, first.fits, first.grantable_bytes) == ("gpu3", False, 0)
    assert "kept for" in first.rule
    assert (first.holders[0].owner, first.holders[0].reservation) == ("voice", holder.name)
    assert first.holders[0].until_time == holder.expire_time
    assert {each.owner for each in first.holders} == {"voice", "reserve"}
    assert (second.alias, second.fits, second.rule) == ("gpu2", True, "")

    never = await api.reservations.Explain(pb.ExplainRequest(bytes=40 * GIB))
    assert (never.fits, never.reason, never.can_wait) == (False, "VRAM_INSUFFICIENT", False)
    assert len(never.devices) == 4
    assert "it holds 5.44 GiB at most; ask for less per device" in never.devices[0].remedy
    assert await state_of_the_world(api) == before


async def state_of_the_world(api: Api) -> tuple[list[str], int]:
    listed = await api.reservations.ListReservations(pb.ListReservationsRequest(page_size=1000))
    events = await api.node.ListEvents(node_pb2.ListEventsRequest(page_size=1))
    names = [f"{each.name} {each.state} {each.generation}" for each in listed.reservations]
    return names, events.events[0].sequence


async def test_explain_refuses_as_reserve_does(api: Api) -> None:
    refusal = await refused(api.reservations.Explain(pb.ExplainRequest(bytes=0)))
    assert (refusal.code, refusal.fields) == (Code.INVALID_ARGUMENT, ("bytes",))
    refusal = await refused(
        api.reservations.Explain(pb.ExplainRequest(bytes=1, devices=["gpu99"]))
    )
    assert refusal.code is Code.NOT_FOUND


# Policies, each on a daemon of its own.


async def test_limits_say_which_and_how_many(gpud: Callable[..., Gpud]) -> None:
    limits = {"GPUD_POLICY__MAX_QUEUE": "2", "GPUD_POLICY__MAX_QUEUE_PER_OWNER": "1"}
    daemon = gpud(environment=limits).start()
    async with calling(daemon) as api:
        blocker = await reserve(api, owner="anna")
        first = await wait(api, owner="anna")
        asked = pb.ReserveRequest(bytes=GIB, devices=["gpu3"], max_wait=span(60), owner="anna")
        refusal = await refused(api.reservations.Reserve(asked))
        assert (refusal.code, refusal.reason) == (Code.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
        assert refusal.metadata["limit"] == "1"
        assert "policy.max_queue_per_owner" in refusal.message
        await wait(api, owner="bert")
        asked.owner = "carl"
        refusal = await refused(api.reservations.Reserve(asked))
        assert (refusal.code, refusal.reason) == (Code.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert refusal.metadata["limit"] == "2"
        await release(api, first.name)
        await wait(api, owner="carl")
        await release(api, blocker.name)


def preempting(grace: str) -> dict[str, str]:
    return {
        "GPUD_POLICY__PREEMPTION": "true",
        "GPUD_POLICY__PREEMPTION_MIN_TENURE": "0s",
        "GPUD_POLICY__PREEMPTION_GRACE": grace,
    }


async def test_preemption_is_told_before(gpud: Callable[..., Gpud]) -> None:
    daemon = gpud(environment=preempting("10m")).start()
    async with calling(daemon) as api:
        victim = await reserve(api, ttl=span(3600), priority=pb.PRIORITY_BATCH, preemptible=True)
        watch = api.reservations.WatchReservation(pb.WatchReservationRequest(name=victim.name))
        told = aiter(watch)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert not (await anext(told)).reservation.HasField("preemption_notice")
            waits = await wait(api, 4 * GIB)
            seen = (await anext(told)).reservation
            assert seen.state == pb.RESERVATION_STATE_GRANTED
            assert seen.preemption_notice.by == waits.name
            stream = api.reservations.KeepAlive()
            await stream.write(pb.KeepAliveRequest(name=victim.name))
            answer = await stream.read()
            assert answer.preemption_notice == seen.preemption_notice
            await stream.done_writing()


async def test_preemption_is_seen_through(gpud: Callable[..., Gpud]) -> None:
    daemon = gpud(environment=preempting("600ms")).start()
    async with calling(daemon) as api:
        victim = await reserve(api, priority=pb.PRIORITY_BATCH, preemptible=True)
        waits = await wait(api, 4 * GIB)
        ended = await until(api, victim.name, pb.RESERVATION_STATE_REVOKED)
        assert ended.generation == victim.generation + 1
        assert waits.name in ended.state_reason
        # Whoever waits was promised it by its notice, given as it came.
        spared = ended.end_time.ToMicroseconds() - waits.create_time.ToMicroseconds()
        assert spared >= 600_000
        await until(api, waits.name, pb.RESERVATION_STATE_GRANTED)
        refusal = await refused(
            api.reservations.Renew(pb.RenewRequest(name=victim.name, generation=1))
        )
        assert (refusal.code, refusal.reason) == (Code.ABORTED, "GENERATION_MISMATCH")


VOICE = '[reservations.voice]\nowner = "voice@home"\ndevices = ["gpu2"]\nbytes = "{size}"\n'


async def standing(api: Api) -> None:
    """Wait until the share is durably held."""
    asked = node_pb2.WatchEventsRequest(subject="reservations/voice", after_sequence=0)
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for _ in api.node.WatchEvents(asked):
            return


def place_of(told: pb.Reservation) -> tuple[object, ...]:
    """All but the words, in which other programs' bytes are counted."""
    when = (told.create_time.ToNanoseconds(), told.wait_until_time.ToNanoseconds())
    return (told.name, told.state, told.generation, told.priority, told.queue_position, *when)


async def test_the_line_and_the_standing_shares_survive_sigkill(gpud: Callable[..., Gpud]) -> None:
    daemon = gpud(extra=VOICE.format(size="2GiB")).start()
    async with calling(daemon) as api:
        await standing(api)
        voice = await until(api, "reservations/voice", pb.RESERVATION_STATE_GRANTED)
        assert (voice.standing, voice.kind, voice.owner) == (
            True, pb.RESERVATION_KIND_HELD, "voice@home",
        )  # fmt: skip
        blocker = await reserve(api, ttl=span(600))
        waits = [
            await wait(api, priority=priority, max_wait=span(600))
            for priority in (pb.PRIORITY_BATCH, pb.PRIORITY_CRITICAL)
        ]
        before = [place_of(await got(api, each.name)) for each in waits]
        refusal = await refused(api.reservations.Release(pb.ReleaseRequest(name=voice.name)))
        assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "WRONG_STATE")
        assert "[reservations.voice]" in refusal.message
    daemon.restart()
    async with calling(daemon) as api:
        assert [place_of(await got(api, each.name)) for each in waits] == before
        assert await got(api, voice.name) == voice
        await release(api, blocker.name)
        granted = await until(api, waits[1].name, pb.RESERVATION_STATE_GRANTED)
        assert granted.generation == 2
    daemon.extra = VOICE.format(size="3GiB")
    daemon.restart()
    async with calling(daemon) as api:
        async with asyncio.timeout(PATIENCE_SECONDS):
            asked = pb.WatchReservationRequest(name=voice.name)
            async for told in api.reservations.WatchReservation(asked):
                if told.reservation.grants[0].bytes == 3 * GIB:
                    break
        assert (await got(api, waits[1].name)).state == pb.RESERVATION_STATE_GRANTED
    daemon.extra = ""
    daemon.restart()
    async with calling(daemon) as api:
        await until(api, voice.name, pb.RESERVATION_STATE_RELEASED)
        await reserve(api, 5 * GIB, devices=["gpu2"])
