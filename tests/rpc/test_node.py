"""The node, its journal, its health, and tools that only know its reflection."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from gpud.clock import BOOT_ID_PATH
from gpud.v1 import node_pb2
from gpud.v1 import reservations_pb2 as pb
from tests.running import GIB, Api, Gpud

SERVICES = [
    f"gpud.v1.{noun}Service"
    for noun in ("Device", "Instance", "Model", "Node", "Reservation", "Telemetry")
]
PATIENCE_SECONDS = 60.0


async def test_the_node_says_who_it_is(api: Api) -> None:
    node = (await api.node.GetNode(node_pb2.GetNodeRequest())).node
    assert node.state == node_pb2.NODE_STATE_READY
    assert node.hostname == os.uname().nodename
    assert node.boot_id == BOOT_ID_PATH.read_text().strip()
    assert node.policy.strict_allocation
    assert node.sampling_interval.ToMilliseconds() == 50


# The journal.


async def churn(api: Api, rounds: int) -> None:
    for _ in range(rounds):
        made = await api.reservations.Reserve(pb.ReserveRequest(bytes=1, owner="churn"))
        await api.reservations.Release(pb.ReleaseRequest(name=made.reservation.name))


async def read_events(api: Api, count: int, **asked: Any) -> list[node_pb2.Event]:
    found: list[node_pb2.Event] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        call = api.node.WatchEvents(node_pb2.WatchEventsRequest(**asked))
        async for message in call:
            found.append(message.event)
            if len(found) == count:
                break
    call.cancel()
    return found


async def newest(api: Api) -> int:
    answer = await api.node.ListEvents(node_pb2.ListEventsRequest(page_size=1))
    return answer.events[0].sequence


async def test_a_watch_that_is_cut_again_and_again_misses_nothing(api: Api) -> None:
    begin = last = await newest(api)
    rounds = 40
    found: list[node_pb2.Event] = []

    def churned() -> list[str]:
        """On a busy machine devices may have something to tell as well."""
        return [each.type for each in found if each.type.startswith("reservation.")]

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(churn(api, rounds))
        while len(churned()) < 2 * rounds:
            left = 2 * rounds - len(churned())
            found += await read_events(api, min(9, left), after_sequence=last)
            last = found[-1].sequence
    assert [each.sequence for each in found] == [*range(begin + 1, begin + 1 + len(found))]
    assert churned() == ["reservation.granted", "reservation.released"] * rounds


async def test_without_a_sequence_only_what_is_new_comes(api: Api) -> None:
    await churn(api, 2)
    async with asyncio.timeout(PATIENCE_SECONDS):
        call = api.node.WatchEvents(node_pb2.WatchEventsRequest(type="reservation"))
        reading = call.__aiter__()
        first = asyncio.ensure_future(anext(reading))
        made = ""
        while not first.done():  # until the watch stands, what is told may come before it
            made = (await api.reservations.Reserve(pb.ReserveRequest(bytes=1))).reservation.name
            await asyncio.wait([first], timeout=0.05)
        assert (await first).event.type == "reservation.granted"
        assert made.startswith("reservations/")
    call.cancel()


async def test_events_are_narrowed_by_type_subject_and_moment(api: Api) -> None:
    made = (await api.reservations.Reserve(pb.ReserveRequest(bytes=GIB, owner="o"))).reservation
    (told,) = await read_events(api, 1, subject=made.name, after_sequence=0)
    assert (told.type, told.actor) == ("reservation.granted", "o")
    assert told.details["bytes"] == str(GIB)
    again = await api.node.ListEvents(
        node_pb2.ListEventsRequest(type="reservation", since=told.time)
    )
    assert [each.sequence for each in again.events] == [told.sequence]


# Health and reflection.


@pytest.mark.parametrize("name", ["", *SERVICES])
async def test_health_answers_for_each_service(api: Api, name: str) -> None:
    stub = health_pb2_grpc.HealthStub(api.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_health_knows_no_other_service(api: Api) -> None:
    stub = health_pb2_grpc.HealthStub(api.channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(health_pb2.HealthCheckRequest(service="gpud.v1.NoService"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_the_services(api: Api, version: str) -> None:
    call = api.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    requests = [reflection_pb2.ServerReflectionRequest(list_services="")]
    async for answer in call(iter(requests)):
        names = {each.name for each in answer.list_services_response.service}
        assert {*SERVICES, "grpc.health.v1.Health"} <= names


async def buf_curl(running: Gpud, method: str, body: str, cache: Path) -> tuple[int, str, str]:
    """buf knows nothing of gpud but what reflection tells it."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("buf")), "curl",
        "--protocol", "grpc", "--http2-prior-knowledge", "--unix-socket", str(running.socket),
        "--data", body, f"http://localhost/gpud.v1.{method}",
        env={**os.environ, "HOME": str(cache), "BUF_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE_SECONDS):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_buf_curl_reads_and_reserves(running: Gpud, api: Api, tmp_path: Path) -> None:
    code, out, err = await buf_curl(running, "NodeService/GetNode", "{}", tmp_path)
    assert code == 0, err
    assert json.loads(out)["node"]["state"] == "NODE_STATE_READY"

    body = json.dumps({"bytes": str(GIB), "devices": ["gpu0"], "ttl": "60s"})
    code, out, err = await buf_curl(running, "ReservationService/Reserve", body, tmp_path)
    assert code == 0, err
    name = json.loads(out)["reservation"]["name"]
    got = await api.reservations.GetReservation(pb.GetReservationRequest(name=name))
    assert got.reservation.grants[0].bytes == GIB

    code, out, err = await buf_curl(
        running, "ReservationService/Reserve", '{"bytes": -1}', tmp_path
    )
    assert code != 0
    assert json.loads(err)["code"] == "invalid_argument"
