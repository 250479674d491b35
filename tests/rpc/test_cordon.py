"""Cordons and the drain of the node, as clients meet them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gpud.v1 import devices_pb2, node_pb2
from gpud.v1 import reservations_pb2 as pb
from tests.running import GIB, Api, Gpud, calling, refused

Code = grpc.StatusCode
PATIENCE_SECONDS = 60.0


@pytest.fixture(autouse=True)
async def _nothing_left_cordoned(api: Api) -> AsyncIterator[None]:
    yield
    await api.devices.UncordonDevice(devices_pb2.UncordonDeviceRequest(name="gpu0"))
    await api.node.ResumeNode(node_pb2.ResumeNodeRequest())


async def cordon(api: Api, name: str = "gpu0", **fields: str) -> devices_pb2.Device:
    asked = devices_pb2.CordonDeviceRequest(name=name, **fields)
    return (await api.devices.CordonDevice(asked)).device


async def uncordon(api: Api, name: str = "gpu0", **fields: str) -> devices_pb2.Device:
    asked = devices_pb2.UncordonDeviceRequest(name=name, **fields)
    return (await api.devices.UncordonDevice(asked)).device


def reserving(size: int = GIB, **fields: object) -> pb.ReserveRequest:
    return pb.ReserveRequest(bytes=size, devices=["gpu0"], **fields)


async def events(api: Api, type_: str, since: int) -> list[node_pb2.Event]:
    asked = node_pb2.ListEventsRequest(type=type_, page_size=100)
    told = (await api.node.ListEvents(asked)).events
    return [each for each in told if each.sequence > since][::-1]


async def newest(api: Api) -> int:
    told = await api.node.ListEvents(node_pb2.ListEventsRequest(page_size=1))
    return told.events[0].sequence


async def granted(api: Api, name: str) -> pb.Reservation:
    async with asyncio.timeout(PATIENCE_SECONDS):
        watch = api.reservations.WatchReservation(pb.WatchReservationRequest(name=name))
        async for told in watch:
            if told.reservation.state == pb.RESERVATION_STATE_GRANTED:
                found: pb.Reservation = told.reservation
                return found
    raise AssertionError("the watch ended")


async def waiting(api: Api) -> pb.Reservation:
    answer = await api.reservations.Reserve(reserving(max_wait=Duration(seconds=60)))
    assert answer.reservation.state == pb.RESERVATION_STATE_QUEUED
    return answer.reservation


async def test_a_cordoned_device_says_so_and_grants_nothing(api: Api) -> None:
    held = (await api.reservations.Reserve(reserving())).reservation
    told = await cordon(api, reason="fan broken", owner="anna")
    assert (told.cordoned, told.cordon_reason, told.granted_bytes) == (True, "fan broken", GIB)
    refusal = await refused(api.reservations.Reserve(reserving()))
    assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "DEVICE_UNAVAILABLE")
    assert "gpu0: cordoned (fan broken); `gpuctl uncordon gpu0` ends that" in refusal.message
    # Whoever is there stays, and other devices go on.
    renewed = await api.reservations.Renew(pb.RenewRequest(name=held.name))
    assert renewed.reservation.state == pb.RESERVATION_STATE_GRANTED
    other = await api.reservations.Reserve(pb.ReserveRequest(bytes=GIB))
    assert "p106-100-0" not in other.reservation.grants[0].device
    explained = await api.reservations.Explain(pb.ExplainRequest(bytes=GIB, devices=["gpu0"]))
    assert "cordoned (fan broken)" in explained.devices[0].rule


async def test_lifting_it_lets_in_who_waits(api: Api) -> None:
    await cordon(api)
    made = await waiting(api)
    assert "gpu0: cordoned" in made.wait_reason
    told = await uncordon(api)
    assert (told.cordoned, told.cordon_reason) == (False, "")
    assert (await granted(api, made.name)).grants[0].bytes == GIB


async def test_it_is_told_once_with_who_and_why(api: Api) -> None:
    begin = await newest(api)
    for _ in range(2):
        await cordon(api, reason="fan", owner="anna", request_id="cordon-once")
    await cordon(api, name="devices/gpu0", reason="fan", owner="bert")
    for _ in range(2):
        await uncordon(api, owner="carl")
    told = [*await events(api, "device.cordoned", begin),
            *await events(api, "device.uncordoned", begin)]  # fmt: skip
    assert [(each.type, each.actor) for each in told] == [
        ("device.cordoned", "anna"),
        ("device.uncordoned", "carl"),
    ]
    assert told[0].reason == "fan"
    assert told[0].subject == (await uncordon(api)).name
    # A request that comes late a second time does not cordon it again.
    assert not (await cordon(api, reason="fan", owner="anna", request_id="cordon-once")).cordoned
    refusal = await refused(
        api.devices.CordonDevice(
            devices_pb2.CordonDeviceRequest(name="gpu0", reason="x", request_id="cordon-once")
        )
    )
    assert (refusal.code, refusal.fields) == (Code.INVALID_ARGUMENT, ("request_id",))


@pytest.mark.parametrize("method", ["CordonDevice", "UncordonDevice"])
async def test_a_device_that_nobody_knows(api: Api, method: str) -> None:
    asked = getattr(devices_pb2, f"{method}Request")
    refusal = await refused(getattr(api.devices, method)(asked(name="gpu99")))
    assert (refusal.code, refusal.reason) == (Code.NOT_FOUND, "DEVICE_NOT_FOUND")


async def test_a_drained_node_grants_nothing_anywhere_and_says_so(api: Api) -> None:
    begin = await newest(api)
    held = (await api.reservations.Reserve(reserving())).reservation
    for _ in range(2):
        answer = await api.node.DrainNode(node_pb2.DrainNodeRequest(reason="move", owner="anna"))
        assert answer.node.state == node_pb2.NODE_STATE_DRAINING
    # Told by who gave the order alone, not again by the next tick.
    health = health_pb2_grpc.HealthStub(api.channel)
    watched = health.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_SECONDS)
    while (await watched.read()).status != health_pb2.HealthCheckResponse.NOT_SERVING:
        pass
    watched.cancel()
    node = (await api.node.GetNode(node_pb2.GetNodeRequest())).node
    assert node.state == node_pb2.NODE_STATE_DRAINING
    assert node.state_reason == (
        "drained by anna (move): 0 instances run, 1 owner holds reservations; "
        "`gpuctl resume` ends that"
    )
    refusal = await refused(api.reservations.Reserve(pb.ReserveRequest(bytes=1)))
    assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "DEVICE_UNAVAILABLE")
    assert "the node is draining (move); `gpuctl resume` ends that" in refusal.message
    made = await waiting(api)
    for _ in range(2):
        answer = await api.node.ResumeNode(node_pb2.ResumeNodeRequest(owner="bert"))
        assert answer.node.state == node_pb2.NODE_STATE_READY
    assert (await granted(api, made.name)).name == made.name
    assert (await api.reservations.Renew(pb.RenewRequest(name=held.name))).reservation
    told = [*await events(api, "node.draining", begin), *await events(api, "node.resumed", begin)]
    assert [each.actor for each in told] == ["anna", "bert"]


async def test_both_survive_sigkill(gpud: Callable[..., Gpud]) -> None:
    daemon = gpud(cards=2).start()
    async with calling(daemon) as api:
        await cordon(api, reason="fan", owner="anna")
        made = await waiting(api)
        await api.node.DrainNode(node_pb2.DrainNodeRequest(reason="move", owner="bert"))
    daemon.restart()
    async with calling(daemon) as api:
        node = (await api.node.GetNode(node_pb2.GetNodeRequest())).node
        assert node.state == node_pb2.NODE_STATE_DRAINING
        assert "drained by bert (move)" in node.state_reason
        await api.node.ResumeNode(node_pb2.ResumeNodeRequest())
        device = await api.devices.GetDevice(devices_pb2.GetDeviceRequest(name="gpu0"))
        assert (device.device.cordoned, device.device.cordon_reason) == (True, "fan")
        other = await api.reservations.Reserve(pb.ReserveRequest(bytes=GIB))
        assert other.reservation.grants[0].device != device.device.name
        await uncordon(api)
        await granted(api, made.name)
    daemon.restart()
    async with calling(daemon) as api:
        device = await api.devices.GetDevice(devices_pb2.GetDeviceRequest(name="gpu0"))
        assert not device.device.cordoned
