"""Wrong requests: refused with the right code, naming the field; and nothing has changed.

What can be wrong is told per field in `bad_input/`; here each of it is sent, method by method.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from gpud.v1 import devices_pb2, instances_pb2, models_pb2, node_pb2, telemetry_pb2
from gpud.v1 import reservations_pb2 as pb
from tests.proof.record import record
from tests.rpc.bad_input import values
from tests.rpc.bad_input.method import GIB, Method, World
from tests.rpc.bad_input.methods import methods
from tests.rpc.bad_input.values import Refused
from tests.running import Api, Gpud, Refusal, calling, ghostly, refusal_of

FILES: tuple[ModuleType, ...] = (
    devices_pb2, instances_pb2, models_pb2, node_pb2, pb, telemetry_pb2,
)  # fmt: skip
METHODS: dict[str, MethodDescriptor] = {
    method.full_name: method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
CASES = 20
# A list has little that can be wrong, and GetNode has no field at all.
FEW = {"GetNode": 5, "ListDevices": 15, "ListModels": 15, "ListOrphans": 15}
CALL_SECONDS = 60.0
PAST = -1.0  # over before it is sent; 0 would be no deadline
STANDING = """
[reservations.kept]
owner = "house"
bytes = "1GiB"
devices = ["gpu3"]
"""

Case = tuple[str, Message | bytes, Refused]
done: dict[str, list[str]] = {}  # by method: what went wrong

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpud]:
    """One of its own, which is asked for nothing but the wrong; with a share that is held."""
    gpud = ghostly(tmp_path_factory.mktemp("bad-input"))
    gpud.extra += STANDING
    began = time.monotonic()
    try:
        yield gpud.start()
    finally:
        gpud.end()
        wrong = sum(len(each) for each in done.values())
        title = f"R10 bad input: methods, {CASES} cases each"
        record(title, len(METHODS), len(done), wrong, time.monotonic() - began)


@pytest.fixture(autouse=True)
async def _nothing_left_reserved(api: Api) -> AsyncIterator[None]:
    """As elsewhere, but what is held cannot be released."""
    yield
    for each in await reservations(api):
        if each.state == pb.RESERVATION_STATE_GRANTED and not each.standing:
            await api.reservations.Release(pb.ReleaseRequest(name=each.name))


@pytest.fixture
async def world(running: Gpud, api: Api) -> World:
    """A lease, one that has ended, and what is held."""
    assert running.process is not None
    names = []
    for _ in range(2):
        answer = await api.reservations.Reserve(pb.ReserveRequest(bytes=GIB, devices=["gpu2"]))
        names.append(answer.reservation.name)
    await api.reservations.Release(pb.ReleaseRequest(name=names[1]))
    (held,) = [each.name for each in await reservations(api) if each.standing]
    return World(live=names[0], ended=names[1], held=held, gpud_pid=running.process.pid)


async def reservations(api: Api) -> list[pb.Reservation]:
    listed = await api.reservations.ListReservations(pb.ListReservationsRequest(page_size=1000))
    assert not listed.next_page_token
    return list(listed.reservations)


def cases(name: str, method: Method) -> Iterator[Case]:
    """All that is sent to a method."""
    make = method.request
    for field, wrong in method.fields.items():
        for label, value, told in wrong():
            yield f"{field}: {label}", make(**{**method.base, field: value}), told
    for label, fields, told in method.more:
        yield label, make(**fields), told
    yield from on_the_wire(METHODS[name])


def on_the_wire(method: MethodDescriptor) -> Iterator[Case]:
    """What is no request at all."""
    # grpc reads the one message of a unary call before any code of ours runs.
    garbage = values.invalid("message") if method.client_streaming else values.GARBAGE
    yield "no protobuf", b"\xff" * 64, garbage
    yield "cut off", b"\x0a\xff\xff\xff\xff\x0f", garbage
    yield "a number without end", b"\x08" + b"\xff" * 11, garbage
    yield "2 MiB", b"\x7a\x80\x80\x80\x01" + b"a" * 2**21, values.TOO_LARGE
    if not method.input_type.fields:
        return
    yield "field 0", b"\x00\x00", garbage
    text = next(
        (each for each in method.input_type.fields if each.type == FieldDescriptor.TYPE_STRING),
        None,
    )
    if text is not None:
        for label, body in (("no UTF-8", b"\xff\xfe"), ("a lone surrogate", b"\xed\xa0\x80")):
            key = bytes([text.number << 3 | 2, len(body)])
            yield f"{text.name}: {label}", key + body, garbage


@pytest.mark.parametrize("name", METHODS)
async def test_what_is_wrong_is_refused(running: Gpud, api: Api, world: World, name: str) -> None:
    method = methods(world)[name]
    before, logged = await books(api), len(running.log)
    wrong: list[str] = []
    count = 0
    for label, request, told in cases(name, method):
        count += 1
        refusal = await send(api, METHODS[name], request, CALL_SECONDS)
        if problem := mismatch(refusal, told):
            wrong.append(f"{label}: {problem}")
        if await books(api) != before:
            wrong.append(f"{label}: it changed something")
            before = await books(api)
    late = await send(api, METHODS[name], method.request(**method.harmless), PAST)
    if problem := mismatch(late, values.TOO_LATE):
        wrong.append(f"an expired deadline: {problem}")
    done[name] = wrong
    assert wrong == []
    assert await books(api) == before
    assert count + 1 >= FEW.get(METHODS[name].name, CASES)
    assert "Traceback" not in running.log[logged:]
    assert "rpc.bug" not in running.log[logged:]


def test_no_method_and_no_field_is_left_out() -> None:
    known = methods(World(live="r-1", ended="r-2", held="r-3", gpud_pid=2))
    assert known.keys() == METHODS.keys()
    for name, method in known.items():
        assert method.request.DESCRIPTOR is METHODS[name].input_type
        told = method.fields.keys() | method.free
        there = {each.name for each in METHODS[name].input_type.fields}
        assert told == there, f"{name}: say what may not come in {told ^ there}"
        assert not method.fields.keys() & method.free


def mismatch(refusal: Refusal | None, told: Refused) -> str:
    """What is not as it must be; empty when all is."""
    if refusal is None:
        return "it was not refused"
    if refusal.code not in told.codes or refusal.reason != told.reason:
        return f"{refusal.code.name} {refusal.reason}: {refusal.message[:200]}"
    if "Traceback" in refusal.message:
        return "it shows a traceback"
    if told.field and (told.field,) != refusal.fields:
        return f"it blames {refusal.fields}, not {told.field}: {refusal.message[:200]}"
    if told.field and (
        refusal.metadata.get("field") != told.field or told.field not in refusal.message
    ):
        return f"its facts or words do not name {told.field}: {refusal.message[:200]}"
    return ""


async def send(
    api: Api, method: MethodDescriptor, request: Message | bytes, timeout: float
) -> Refusal | None:
    """How a call, of whatever kind, ends: with a refusal, or None."""
    body = request if isinstance(request, bytes) else request.SerializeToString()
    kind = "stream" if method.client_streaming else "unary"
    kind += "_stream" if method.server_streaming else "_unary"
    call = getattr(api.channel, kind)(
        f"/{method.containing_service.full_name}/{method.name}",
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    asked = once(body) if method.client_streaming else body
    try:
        answer = call(asked, timeout=timeout)
        if not method.server_streaming:
            await answer
        elif await answer.read() is not grpc.aio.EOF:
            answer.cancel()
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    return None


async def once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def books(api: Api) -> tuple[Any, ...]:
    """All that a request may have changed: promises, instances, the node, each device's bytes."""
    loaded = await api.instances.ListInstances(instances_pb2.ListInstancesRequest(page_size=1000))
    node = (await api.node.GetNode(node_pb2.GetNodeRequest())).node
    shown = await api.devices.ListDevices(devices_pb2.ListDevicesRequest())
    return (
        [each.SerializeToString(deterministic=True) for each in await reservations(api)],
        [each.SerializeToString(deterministic=True) for each in loaded.instances],
        (node.state, node.state_reason),
        [(each.granted_bytes, each.leaked_bytes, each.cordoned) for each in shown.devices],
    )


async def test_a_method_that_is_not_there(running: Gpud) -> None:
    async with calling(running) as api:
        call = api.channel.unary_unary("/gpud.v1.ReservationService/Steal")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("since", [Timestamp(seconds=-(2**60)), Timestamp(nanos=-5)])
async def test_a_strange_moment_is_no_bug_of_ours(api: Api, since: Timestamp) -> None:
    answer = await api.node.ListEvents(node_pb2.ListEventsRequest(since=since, page_size=1))
    assert answer.events
