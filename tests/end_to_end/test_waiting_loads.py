"""Loads that wait for their bytes, run inside a standing share, and end with the node's drain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from gpud.v1 import devices_pb2, node_pb2
from gpud.v1 import instances_pb2 as pb
from gpud.v1 import reservations_pb2 as reservations
from tests.end_to_end.driving import (
    PATIENCE_SECONDS,
    books,
    load,
    load_messages,
    reaches,
    unload,
)
from tests.running import GIB, Api, Gpud, calling, refused, refused_stream

Code = grpc.StatusCode
MakeGpud = Callable[..., Gpud]
VOICE = '[reservations.voice]\nowner = "voice@home"\ndevices = ["gpu1"]\nbytes = "4GiB"\n'


async def block(api: Api, device: str = "gpu0") -> reservations.Reservation:
    """A device, alone."""
    asked = reservations.ReserveRequest(
        bytes=1, devices=[device], sharing=reservations.SHARING_EXCLUSIVE
    )
    return (await api.reservations.Reserve(asked)).reservation


def loading(wait_seconds: float, **fields: Any) -> pb.LoadModelRequest:
    wait = Duration()
    wait.FromMilliseconds(int(wait_seconds * 1000))
    return pb.LoadModelRequest(model="tiny", devices=["gpu0"], max_wait=wait, **fields)


async def waits(stream: Any) -> pb.LoadModelResponse:
    """The message that says that it waits."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for told in stream:
            if told.detail.startswith("waits"):
                found: pb.LoadModelResponse = told
                return found
    raise AssertionError("it did not wait")


async def states(api: Api) -> list[int]:
    listed = await api.reservations.ListReservations(reservations.ListReservationsRequest())
    return [each.state for each in listed.reservations]


async def instance(api: Api, name: str) -> pb.Instance:
    return (await api.instances.GetInstance(pb.GetInstanceRequest(name=name))).instance


async def test_a_load_waits_shows_its_place_and_comes_in(stubbed: MakeGpud) -> None:
    daemon = stubbed().start()
    async with calling(daemon) as api:
        blocker = await block(api)
        first = api.instances.LoadModel(loading(60))
        told = await waits(first)
        second = api.instances.LoadModel(loading(60, owner="bert"))
        assert told.phase == pb.LOAD_PHASE_ALLOCATE
        assert "waits, 0 before it" in told.detail
        assert f"{blocker.name} has it exclusively" in told.detail
        assert "waits, 1 before it" in (await waits(second)).detail

        shown = await instance(api, told.instance.name)
        assert shown.state == pb.INSTANCE_STATE_RESERVING
        assert (shown.queue_position, shown.pid) == (1, 0)
        assert "has it exclusively" in shown.wait_reason
        got = await api.reservations.GetReservation(
            reservations.GetReservationRequest(name=shown.reservation)
        )
        assert got.reservation.state == reservations.RESERVATION_STATE_QUEUED
        assert got.reservation.instance == shown.name
        # It is the instance's, and ends with it.
        ended = reservations.ReleaseRequest(name=shown.reservation)
        refusal = await refused(api.reservations.Release(ended))
        assert f"`gpuctl unload {shown.name.removeprefix('instances/')}`" in refusal.message

        await api.reservations.Release(reservations.ReleaseRequest(name=blocker.name))
        ready = await reaches(api, shown.name, pb.INSTANCE_STATE_READY)
        assert not ready.HasField("queue_position")
        assert ready.reservation == shown.reservation
        async with asyncio.timeout(PATIENCE_SECONDS):
            last = [message async for message in second][-1]
        assert last.phase == pb.LOAD_PHASE_READY
        assert (await books(api))["gpu0"][0] == 2 * ready.footprint.total_bytes


async def test_one_that_is_unloaded_while_it_waits_leaves_nothing(stubbed: MakeGpud) -> None:
    daemon = stubbed().start()
    async with calling(daemon) as api:
        blocker = await block(api)
        stream = api.instances.LoadModel(loading(60))
        told = await waits(stream)
        stopped = (await unload(api, instance=told.instance.name))[-1]
        assert stopped.phase == pb.UNLOAD_PHASE_STOPPED
        refusal = await refused_stream(stream)
        assert (refusal.code, refusal.reason) == (Code.ABORTED, "LOAD_CANCELLED")
        assert sorted(await states(api)) == [
            reservations.RESERVATION_STATE_GRANTED,  # the blocker
            reservations.RESERVATION_STATE_RELEASED,
        ]
        await api.reservations.Release(reservations.ReleaseRequest(name=blocker.name))
        assert (await books(api))["gpu0"] == (0, 0)

        # One that waits in vain is refused with what is in its way.
        await block(api)
        refusal = await refused_stream(api.instances.LoadModel(loading(0.3)))
        assert refusal.code in {Code.RESOURCE_EXHAUSTED, Code.FAILED_PRECONDITION}
        assert "has it exclusively" in refusal.message
        assert reservations.RESERVATION_STATE_QUEUED not in await states(api)


async def test_one_that_waits_is_gone_with_the_daemon_that_knew_it(stubbed: MakeGpud) -> None:
    daemon = stubbed().start()
    async with calling(daemon) as api:
        blocker = await block(api)
        told = await waits(api.instances.LoadModel(loading(60)))
    daemon.restart()
    async with calling(daemon) as api:
        await reaches(api, told.instance.name, pb.INSTANCE_STATE_FAILED)
        await api.reservations.Release(reservations.ReleaseRequest(name=blocker.name))
        assert (await books(api))["gpu0"] == (0, 0)
        assert reservations.RESERVATION_STATE_QUEUED not in await states(api)


async def test_a_load_into_a_standing_share_takes_none_of_the_device(stubbed: MakeGpud) -> None:
    daemon = stubbed(models=VOICE).start()
    async with calling(daemon) as api:
        held = node_pb2.WatchEventsRequest(subject="reservations/voice", after_sequence=0)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await anext(aiter(api.node.WatchEvents(held)))
        before = await books(api)
        assert before["gpu1"] == (4 * GIB, 0)
        made = await load(api, device="gpu1", reservation="reservations/voice")
        got = await api.reservations.GetReservation(
            reservations.GetReservationRequest(name=made.reservation)
        )
        assert got.reservation.within == "reservations/voice"
        assert got.reservation.grants[0].bytes == made.footprint.total_bytes
        assert await books(api) == before

        ended = reservations.ReleaseRequest(name="reservations/voice")
        refusal = await refused(api.reservations.Release(ended))
        assert refusal.code is Code.FAILED_PRECONDITION
        codes = {"nobody": Code.NOT_FOUND, made.reservation: Code.FAILED_PRECONDITION}
        for name, code in codes.items():
            asked = pb.LoadModelRequest(model="tiny", reservation=name)
            assert (await refused_stream(api.instances.LoadModel(asked))).code is code
        alone = pb.LoadModelRequest(
            model="tiny", reservation="voice", sharing=reservations.SHARING_EXCLUSIVE
        )
        refusal = await refused_stream(api.instances.LoadModel(alone))
        assert refusal.code is Code.INVALID_ARGUMENT
        elsewhere = pb.LoadModelRequest(model="tiny", reservation="voice", devices=["gpu0"])
        refusal = await refused_stream(api.instances.LoadModel(elsewhere))
        assert "reservations/voice holds nothing on it" in refusal.message

        await unload(api, instance=made.name)
        assert await books(api) == before


async def test_the_drain_stops_every_instance_and_resume_lets_new_ones_in(
    stubbed: MakeGpud,
) -> None:
    daemon = stubbed().start()
    async with calling(daemon) as api:
        running = [await load(api, device=device) for device in ("gpu0", "gpu1")]
        blocker = await block_rest(api)
        waiting = await waits(api.instances.LoadModel(loading(60)))
        drained = await api.node.DrainNode(
            node_pb2.DrainNodeRequest(stop_instances=True, reason="move", owner="anna")
        )
        assert drained.node.state == node_pb2.NODE_STATE_DRAINING
        for each in (*running, waiting.instance):
            ended = await reaches(api, each.name, pb.INSTANCE_STATE_STOPPED)
            assert not ended.failure.reason
        node = (await api.node.GetNode(node_pb2.GetNodeRequest())).node
        assert "0 instances run, 1 owner holds reservations" in node.state_reason
        refusal = await refused_stream(api.instances.LoadModel(loading(0)))
        assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "DEVICE_UNAVAILABLE")
        assert "the node is draining (move)" in refusal.message

        await api.reservations.Release(reservations.ReleaseRequest(name=blocker.name))
        assert {held for held, _ in (await books(api)).values()} == {0}
        resumed = await api.node.ResumeNode(node_pb2.ResumeNodeRequest(owner="anna"))
        assert resumed.node.state == node_pb2.NODE_STATE_READY
        assert (await load_messages(api, device="gpu0"))[-1].phase == pb.LOAD_PHASE_READY


async def block_rest(api: Api) -> reservations.Reservation:
    """All that is left of gpu0."""
    device = await api.devices.GetDevice(devices_pb2.GetDeviceRequest(name="gpu0"))
    asked = reservations.ReserveRequest(bytes=device.device.grantable_bytes, devices=["gpu0"])
    return (await api.reservations.Reserve(asked)).reservation


async def test_an_instance_that_may_go_goes_for_a_higher_class(stubbed: MakeGpud) -> None:
    policy = {
        "GPUD_POLICY__PREEMPTION": "true",
        "GPUD_POLICY__PREEMPTION_GRACE": "4s",
        "GPUD_POLICY__PREEMPTION_MIN_TENURE": "0s",
        "GPUD_POLICY__PREEMPTION_RATIO": "1000",
    }
    daemon = stubbed(environment=policy).start()
    async with calling(daemon) as api:
        made = await load(
            api, device="gpu0", preemptible=True, priority=reservations.PRIORITY_BATCH
        )
        blocker = await block_rest(api)
        asked = reservations.ReserveRequest(
            bytes=made.footprint.total_bytes, devices=["gpu0"], max_wait=Duration(seconds=60)
        )
        waiting = (await api.reservations.Reserve(asked)).reservation
        assert waiting.state == reservations.RESERVATION_STATE_QUEUED
        ended = await reaches(api, made.name, pb.INSTANCE_STATE_STOPPED)
        assert not ended.failure.reason
        async with asyncio.timeout(PATIENCE_SECONDS):
            watched = reservations.WatchReservationRequest(name=waiting.name)
            async for told in api.reservations.WatchReservation(watched):
                if told.reservation.state == reservations.RESERVATION_STATE_GRANTED:
                    break
        events = await api.node.ListEvents(
            node_pb2.ListEventsRequest(subject=made.reservation, page_size=100)
        )
        types = [each.type for each in events.events][::-1]
        assert types.index("reservation.preemption_notice") < types.index("reservation.releasing")
        assert types[-1] == "reservation.released"
        await api.reservations.Release(reservations.ReleaseRequest(name=blocker.name))
