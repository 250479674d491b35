"""Every method × whoever may call: the whole table, on a real daemon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from gpud.access.identity import Role
from gpud.access.rights import RIGHTS
from gpud.v1 import (
    instances_pb2,
    node_pb2,
    node_pb2_grpc,
    reservations_pb2,
    reservations_pb2_grpc,
    telemetry_pb2,
    telemetry_pb2_grpc,
)
from tests.access.fleet import ROLES, TOKEN, Fleet, bearer, fleet, free_port, me, uri
from tests.proof.record import record
from tests.running import GIB, ghostly, refusal_of

Code = grpc.StatusCode
DENIED = {Code.PERMISSION_DENIED, Code.UNAUTHENTICATED}
SOCKETS = ("viewer", "operator", "admin")
LIMIT_SECONDS = 60.0

pytestmark = pytest.mark.proof
# What grpc.aio's client says, instead of the answer, where it was refused before it had written.
CLIENTS_OWN = "Internal error from Core"
# What answers an empty request with nothing, for as long as nothing happens.
FIRST = {
    "gpud.v1.NodeService/WatchEvents": node_pb2.WatchEventsRequest(after_sequence=0),
}
Call = Any


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("fleet")) as made:
        yield made


async def only(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def outcome(
    channel: grpc.aio.Channel, method: str, body: bytes = b"", metadata: Any = ()
) -> tuple[grpc.StatusCode, str]:
    """Code and reason of a call of any shape: on the wire they are all streams of messages."""
    body = body or (FIRST[method].SerializeToString() if method in FIRST else b"")
    call: Call = channel.stream_stream(f"/{method}")(
        only(body), timeout=LIMIT_SECONDS, metadata=metadata
    )
    try:
        async for _ in call:
            call.cancel()
            return Code.OK, ""
        return await call.code(), ""
    except grpc.aio.AioRpcError as error:
        if error.details() == CLIENTS_OWN:
            return await outcome(channel, method, body, metadata)
        return error.code(), refusal_of(error).reason


@dataclass
class Cells:
    """Cells of the table that were tried, and those that were not as the table says."""

    tried: int = 0
    wrong: int = 0

    def count(self, wrong: dict[str, Any]) -> None:
        self.tried += len(RIGHTS)
        self.wrong += len(wrong)


@pytest.fixture(scope="module")
def cells() -> Iterator[Cells]:
    made, began = Cells(), time.monotonic()
    yield made
    asked = len(RIGHTS) * (len(ROLES) + len(SOCKETS) + 1)
    record("R13 each method × each caller: cells", asked, made.tried, made.wrong,
           time.monotonic() - began)  # fmt: skip


def expected(method: str, role: str) -> bool:
    return bool(role) and Role[role.upper()] >= RIGHTS[method]


@pytest.mark.parametrize("name", ROLES)
async def test_every_method_with_every_certificate(place: Fleet, cells: Cells, name: str) -> None:
    wrong = {}
    async with place.certified(name) as channel:
        for method in sorted(RIGHTS):
            code, reason = await outcome(channel, method)
            told = (code, reason)
            if not ROLES[name]:
                right = told == (Code.UNAUTHENTICATED, "IDENTITY_MISSING")
            elif expected(method, ROLES[name]):
                right = code not in DENIED
            else:
                right = told == (Code.PERMISSION_DENIED, "ROLE_MISSING")
            if not right:
                wrong[method] = told
    cells.count(wrong)
    assert wrong == {}, repr(wrong)


@pytest.mark.parametrize("role", SOCKETS)
async def test_every_method_at_every_socket(place: Fleet, cells: Cells, role: str) -> None:
    wrong = {}
    async with place.local(role) as channel:
        for method in sorted(RIGHTS):
            told = await outcome(channel, method)
            right = (told[0] not in DENIED) == expected(method, role)
            if not right:
                wrong[method] = told
    cells.count(wrong)
    assert wrong == {}, repr(wrong)


async def test_every_method_over_plain_loopback(tmp_path: Path, cells: Cells) -> None:
    """Anybody of this host may come by there: a viewer, unless the settings say otherwise."""
    wrong = {}
    gpud, address = ghostly(tmp_path), f"127.0.0.1:{free_port()}"
    gpud.server = f'listen = "{address}"\n'
    try:
        gpud.start()
        async with grpc.aio.insecure_channel(address) as channel:
            for method in sorted(RIGHTS):
                told = await outcome(channel, method)
                if (told[0] not in DENIED) != expected(method, "viewer"):
                    wrong[method] = told
    finally:
        gpud.end()
    cells.count(wrong)
    assert wrong == {}, repr(wrong)


@pytest.mark.parametrize("role", ["viewer", "operator"])
async def test_a_method_that_there_is_not_is_denied(place: Fleet, role: str) -> None:
    async with place.local(role) as channel:
        for method in ("gpud.v1.NodeService/Explode", "x.y.Z/A"):
            assert await outcome(channel, method) == (Code.PERMISSION_DENIED, "ROLE_MISSING")


@pytest.fixture
async def annas(place: Fleet) -> AsyncIterator[reservations_pb2.Reservation]:
    """A promise of hers, asked for in another's name, which does not count."""
    async with place.certified("anna") as channel:
        stub = reservations_pb2_grpc.ReservationServiceStub(channel)
        made = (
            await stub.Reserve(reservations_pb2.ReserveRequest(bytes=GIB, owner=uri("bert")))
        ).reservation
        yield made
        await stub.Release(reservations_pb2.ReleaseRequest(name=made.name))


async def test_what_somebody_makes_is_its_own_whatever_it_says(
    annas: reservations_pb2.Reservation,
) -> None:
    assert annas.owner == uri("anna")


CHANGES = {
    "Renew": reservations_pb2.RenewRequest,
    "KeepAlive": reservations_pb2.KeepAliveRequest,
    "Release": reservations_pb2.ReleaseRequest,
    "AttachProcess": reservations_pb2.AttachProcessRequest,
}


@pytest.mark.parametrize("method", CHANGES)
async def test_another_owner_changes_nothing_of_it(
    place: Fleet, annas: reservations_pb2.Reservation, method: str
) -> None:
    body = CHANGES[method](name=annas.name).SerializeToString()
    full = f"gpud.v1.ReservationService/{method}"
    async with place.certified("bert") as channel:
        assert await outcome(channel, full, body) == (Code.PERMISSION_DENIED, "NOT_OWNER")
    async with place.certified("anna") as channel:
        seen = reservations_pb2_grpc.ReservationServiceStub(channel)
        request = reservations_pb2.GetReservationRequest(name=annas.name)
        assert (await seen.GetReservation(request)).reservation == annas


async def test_each_caller_has_request_ids_of_its_own(place: Fleet) -> None:
    asked, made = reservations_pb2.ReserveRequest(bytes=GIB, request_id="one"), {}
    for name in ("anna", "bert"):
        async with place.certified(name) as channel:
            stub = reservations_pb2_grpc.ReservationServiceStub(channel)
            first, again = [(await stub.Reserve(asked)).reservation for _ in range(2)]
            assert first == again
            made[name] = first.name
            await stub.Release(reservations_pb2.ReleaseRequest(name=first.name))
    assert made["anna"] != made["bert"]


async def drained(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


async def test_at_a_socket_for_users_nobody_calls_without_a_name(tmp_path: Path) -> None:
    method = "gpud.v1.NodeService/GetNode"
    with fleet(tmp_path, "users_only = true\n") as place:
        async with place.local("operator") as channel:
            told = await outcome(channel, method)
            assert told == (Code.UNAUTHENTICATED, "IDENTITY_MISSING")
            ours = bearer(place.minted())
            assert await outcome(channel, method, b"", ours) == (Code.OK, "")
            stub: Any = telemetry_pb2_grpc.TelemetryServiceStub(channel)
            watch = stub.WatchSnapshots(telemetry_pb2.WatchSnapshotsRequest(), metadata=ours)
            await watch.read()
            place.denied.write_text(f"{me()}\n")
            with pytest.raises(grpc.aio.AioRpcError) as cut:
                await asyncio.wait_for(drained(watch), LIMIT_SECONDS)
            assert refusal_of(cut.value).reason == "ACCESS_WITHDRAWN"
            assert (await outcome(channel, method, b"", ours))[1] == "ACCESS_WITHDRAWN"


async def test_an_admin_acts_for_another_and_the_journal_says_so(place: Fleet) -> None:
    async with place.certified("root") as channel:
        stub = reservations_pb2_grpc.ReservationServiceStub(channel)
        asked = reservations_pb2.ReserveRequest(bytes=GIB, owner="carl")
        made = (await stub.Reserve(asked)).reservation
        assert made.owner == "carl"
        ended = await stub.Release(reservations_pb2.ReleaseRequest(name=made.name))
        assert ended.reservation.state_reason == f"released by {uri('root')}"
        events = await journal(channel, made.name)
    assert [(each.type, each.actor) for each in events] == [
        ("reservation.released", uri("root")), ("reservation.granted", uri("root")),
    ]  # fmt: skip
    assert events[1].details["owner"] == "carl"


async def journal(channel: grpc.aio.Channel, subject: str) -> list[Any]:
    asked = node_pb2.ListEventsRequest(subject=subject)
    answer = await node_pb2_grpc.NodeServiceStub(channel).ListEvents(asked)  # type: ignore[attr-defined]
    return list(answer.events)


async def test_nobody_loads_into_a_share_of_another(place: Fleet) -> None:
    body = instances_pb2.LoadModelRequest(model="ghost", reservation="kept").SerializeToString()
    async with place.certified("anna") as channel:
        told = await outcome(channel, "gpud.v1.InstanceService/LoadModel", body)
    assert told == (Code.PERMISSION_DENIED, "NOT_OWNER")


# Tokens.


async def test_a_minted_token_names_the_user_and_the_socket_gives_the_right(place: Fleet) -> None:
    for role in ("viewer", "operator", "admin"):
        async with place.local(role) as channel:
            stub: Any = node_pb2_grpc.NodeServiceStub(channel)
            told = await stub.GetNode(node_pb2.GetNodeRequest(), metadata=bearer(place.minted()))
            assert told.caller.name == me()
            assert node_pb2.Role.Name(told.caller.role) == f"ROLE_{role.upper()}"
            assert told.caller.proof == "user"


@pytest.mark.parametrize("where", ["certificate", "socket"])
async def test_a_configured_token_is_a_right_of_its_own(place: Fleet, where: str) -> None:
    opened = place.certified("nobody") if where == "certificate" else place.local("viewer")
    async with opened as channel:
        ours = bearer(TOKEN)
        assert (await outcome(channel, "gpud.v1.ReservationService/Reserve", b"", ours))[0] == (
            Code.INVALID_ARGUMENT
        )
        told = await outcome(channel, "gpud.v1.NodeService/DrainNode", b"", ours)
        assert told == (Code.PERMISSION_DENIED, "ROLE_MISSING")


async def test_tokens_that_are_refused(place: Fleet) -> None:
    method = "gpud.v1.NodeService/GetNode"
    token = place.minted()
    forged = token[:-2] + ("aa" if token[-2:] != "aa" else "bb")
    async with place.local("admin") as channel:
        for each in (forged, "gpud_wrong", "x"):
            told = await outcome(channel, method, b"", bearer(each))
            assert told == (Code.UNAUTHENTICATED, "IDENTITY_MISSING")
    # Replayed where it was not minted for.
    async with place.certified("anna") as channel:
        told = await outcome(channel, method, b"", bearer(token))
        assert told == (Code.UNAUTHENTICATED, "IDENTITY_MISSING")
