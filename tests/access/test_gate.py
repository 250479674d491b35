"""The gate tells each change however its call ends: answered, refused, left, broken."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from gpud.access.access import Access
from gpud.access.audit import Audit, AuditEntry
from gpud.access.denied import Denied
from gpud.access.doors import Door, DoorKind
from gpud.access.identity import DEED, Role
from gpud.access.mint import Mint
from gpud.clock import SystemClock
from gpud.errors import ReservationNotFound
from gpud.rpc.gate import Gate
from gpud.settings import Config
from gpud.v1 import instances_pb2, reservations_pb2

RESERVATIONS, INSTANCES = "gpud.v1.ReservationService", "gpud.v1.InstanceService"
OPERATORS = Door(kind=DoorKind.SOCKET, label="unix:operator.sock", role=Role.OPERATOR)


class Scribe(Access):
    """Keeps what is recorded."""

    def __init__(self, directory: Path) -> None:
        clock = SystemClock()
        config = Config()
        audit = Audit(config.audit, directory, clock)
        super().__init__(config, Mint(clock, "here"), audit, clock, print)
        self.lines: list[AuditEntry] = []
        self.decided: list[bool] = []

    def record(self, entry: AuditEntry, *, decided: bool) -> None:
        self.lines.append(entry)
        self.decided.append(decided)


class Wire:
    """The context of a call, as far as the gate asks it; its message is `request`."""

    def __init__(self, request: Any = None) -> None:
        self.request = request
        self.code: grpc.StatusCode | None = None

    async def read(self) -> Any:
        return self.request

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def peer(self) -> str:
        return "unix:"

    async def abort_with_status(self, status: Any) -> None:
        self.code = status.code
        raise grpc.aio.AbortError


# ruff: noqa: N802 — methods are named by the contract
class Methods:
    """A service whose methods decide, and then take as long as they are let."""

    def __init__(self) -> None:
        self.decided, self.answered = asyncio.Event(), asyncio.Event()

    async def Reserve(self, request: Any, context: Any) -> Any:
        DEED.get().subject = "reservations/r-1"
        self.decided.set()
        await self.answered.wait()
        reservation = reservations_pb2.Reservation(name="reservations/r-1")
        return reservations_pb2.ReserveResponse(reservation=reservation)

    async def Release(self, request: Any, context: Any) -> Any:
        raise ReservationNotFound(name=request.name)

    async def Renew(self, request: Any, context: Any) -> Any:
        raise ZeroDivisionError

    async def AttachProcess(self, request: Any, context: Any) -> Any:
        await _cancelled()

    async def UnloadModel(self, request: Any, context: Any) -> AsyncIterator[Any]:
        await _cancelled()
        yield None

    async def LoadModel(self, request: Any, context: Any) -> AsyncIterator[Any]:
        instance = instances_pb2.Instance(name="instances/tiny-1")
        yield instances_pb2.LoadModelResponse(instance=instance)
        self.decided.set()
        await self.answered.wait()


async def _cancelled() -> None:
    """Wait for what somebody else gave up."""
    shared = asyncio.get_running_loop().create_future()
    shared.cancel()
    await shared


@pytest.fixture
def scribe(tmp_path: Path) -> Scribe:
    return Scribe(tmp_path)


@pytest.fixture
def methods() -> Methods:
    return Methods()


def guarded(scribe: Scribe, method: Any, service: str) -> Any:
    """A method behind the gate; what comes over the wire is its request as it is."""
    name = method.__name__
    stream = inspect.isasyncgenfunction(method)
    make = grpc.unary_stream_rpc_method_handler if stream else grpc.unary_unary_rpc_method_handler
    handler = make(method, request_deserializer=lambda each: each)
    made = Gate(OPERATORS, scribe).handler(f"{service}/{name}", handler)
    call = made.stream_stream if stream else made.stream_unary
    return lambda **request: call(None, Wire(SimpleNamespace(**request)))


def told(scribe: Scribe) -> list[tuple[str, str, str]]:
    return [(line.method, line.subject, line.outcome) for line in scribe.lines]


async def test_what_was_answered(scribe: Scribe, methods: Methods) -> None:
    methods.answered.set()
    await guarded(scribe, methods.Reserve, RESERVATIONS)()
    assert told(scribe) == [("ReservationService/Reserve", "reservations/r-1", "OK")]


async def test_what_was_decided_for_a_caller_who_left(scribe: Scribe, methods: Methods) -> None:
    reserve = guarded(scribe, methods.Reserve, RESERVATIONS)
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(reserve())
        await methods.decided.wait()
        call.cancel()
    assert told(scribe) == [("ReservationService/Reserve", "reservations/r-1", "CANCELLED")]
    assert scribe.lines[0].reason == "CLIENT_LEFT"
    assert scribe.decided == [True]  # and so is told, however often she leaves


async def test_what_was_decided_is_told_however_often(tmp_path: Path) -> None:
    audit = Audit(Config().audit, tmp_path, SystemClock())
    left = AuditEntry(
        wall=0.0, name="anna", role="operator", proof="token", origin="here",
        method="ReservationService/Reserve", outcome="CANCELLED", reason="CLIENT_LEFT",
    )  # fmt: skip
    assert all(audit.record(left, decided=True) for _ in range(20))
    assert [audit.record(left, decided=False) for _ in range(6)] == [True] * 5 + [False]
    await audit.close()


async def test_a_stream_whose_caller_left(scribe: Scribe, methods: Methods) -> None:
    stream = guarded(scribe, methods.LoadModel, INSTANCES)(model="tiny")
    await anext(stream)
    await stream.aclose()
    assert told(scribe) == [("InstanceService/LoadModel", "instances/tiny-1", "CANCELLED")]


async def test_a_stream_to_its_end_names_what_it_made(scribe: Scribe, methods: Methods) -> None:
    methods.answered.set()
    stream = guarded(scribe, methods.LoadModel, INSTANCES)(model="tiny")
    assert len([each async for each in stream]) == 1
    assert told(scribe) == [("InstanceService/LoadModel", "instances/tiny-1", "OK")]


@pytest.mark.parametrize(("method", "outcome"), [("Release", "NOT_FOUND"), ("Renew", "INTERNAL")])
async def test_what_was_refused_or_broke(
    scribe: Scribe, methods: Methods, method: str, outcome: str
) -> None:
    with pytest.raises(grpc.aio.AbortError):
        await guarded(scribe, getattr(methods, method), RESERVATIONS)(name="reservations/x")
    assert told(scribe) == [(f"ReservationService/{method}", "reservations/x", outcome)]


async def test_calls_are_counted_however_they_end(scribe: Scribe, methods: Methods) -> None:
    methods.answered.set()
    await guarded(scribe, methods.Reserve, RESERVATIONS)()
    for method in (methods.Release, methods.Renew):
        with pytest.raises(grpc.aio.AbortError):
            await guarded(scribe, method, RESERVATIONS)(name="reservations/x")
    async for _ in guarded(scribe, methods.LoadModel, INSTANCES)(model="tiny"):
        pass
    methods.answered.clear()
    stream = guarded(scribe, methods.LoadModel, INSTANCES)(model="tiny")
    await anext(stream)
    await stream.aclose()
    counted = {each.method: (each.kind, dict(each.codes)) for each in scribe.calls.called()}
    assert counted == {
        "Reserve": ("unary", {"OK": 1}),
        "Release": ("unary", {"NOT_FOUND": 1}),
        "Renew": ("unary", {"INTERNAL": 1}),
        "LoadModel": ("server_stream", {"OK": 1, "CANCELLED": 1}),
    }
    assert scribe.calls.called()[0].seconds.cumulative()[-1] == 2


async def test_invented_methods_fill_neither_log_nor_audit(scribe: Scribe) -> None:
    names = [f"x.y.Z/Method{number}" for number in range(1000)]
    logged = sum(scribe.may_log("anna", name, "ROLE_MISSING") for name in names)
    assert logged == 5


async def test_a_stream_that_is_cut_in_the_midst_of_a_message_is_told_so(
    scribe: Scribe, methods: Methods
) -> None:
    """gRPC tells a client nothing of a handler that is cancelled while it sends."""
    stream = guarded(scribe, methods.LoadModel, INSTANCES)(model="tiny")
    task = asyncio.current_task()
    assert task is not None
    await anext(stream)  # and it is being sent
    assert scribe.deny(Denied(names=frozenset({"operator"}))) == 1
    assert not task.cancelling()
    with pytest.raises(grpc.aio.AbortError):
        await anext(stream)
    assert [line.reason for line in scribe.lines] == ["ACCESS_WITHDRAWN"]


async def test_a_stream_that_is_cut_and_takes_no_more_is_ended_at_the_second_look(
    scribe: Scribe, methods: Methods
) -> None:
    stream = guarded(scribe, methods.LoadModel, INSTANCES)(model="tiny")
    taken = asyncio.Event()

    async def send() -> None:
        async for _ in stream:
            taken.set()
            await asyncio.Event().wait()  # a client that has closed its window

    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(send())
        await taken.wait()
        scribe.deny(Denied(names=frozenset({"operator"})))
        scribe.end_late()
        assert not sending.cancelling()
        scribe.end_late()
        assert sending.cancelling()


async def test_what_waited_for_something_that_was_given_up_is_a_bug_and_is_answered(
    scribe: Scribe, methods: Methods
) -> None:
    """To gRPC a stray cancellation looks like the client's own, who would then wait for ever."""
    with pytest.raises(grpc.aio.AbortError):
        await guarded(scribe, methods.AttachProcess, RESERVATIONS)(name="reservations/r-1")
    with pytest.raises(grpc.aio.AbortError):
        async for _ in guarded(scribe, methods.UnloadModel, INSTANCES)(name="instances/tiny-1"):
            pass
    assert told(scribe) == [
        ("ReservationService/AttachProcess", "reservations/r-1", "INTERNAL"),
        ("InstanceService/UnloadModel", "instances/tiny-1", "INTERNAL"),
    ]
