"""Clients that reserve, renew, release and look, all on the same promises at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from gpud.v1 import devices_pb2, node_pb2
from gpud.v1 import reservations_pb2 as pb
from tests.proof.concurrent.history import (
    Call,
    Devices,
    Entry,
    Get,
    History,
    List,
    Operation,
    Refused,
    Release,
    Renew,
    Reserve,
    Seen,
)
from tests.running import Api, Gpud, refusal_of

MIB = 2**20
CLIENTS = 8
LARGEST_BYTES = 2500 * MIB
LONG_TTL_SECONDS = 3600
SHORT_TTL_SECONDS = 1
CALL_LIMIT_SECONDS = 30.0
# One name of so many is left to expire, and of so many claimed generations one is wrong.
SHORT_LEASES = 0.03
WRONG_GENERATIONS = 0.05
# What clients do, out of a hundred: more is asked for than there is, so that much is refused.
MIX = {"reserve": 34, "release": 26, "renew": 14, "get": 20, "devices": 5, "list": 1}
# Clients speak of as many as this, the newest, so that several meet at the same one; one that has
# ended is spoken of a little longer.
REMEMBERED = 40
FORGOTTEN_ONCE_ENDED = 0.7


class Clients:
    """A number of operations by eight clients, each on a connection of its own."""

    def __init__(self, gpud: Gpud, seed: int) -> None:
        self._gpud = gpud
        self._seed = seed
        self._chance = random.Random(seed)
        self._operations: list[Operation] = []
        self._names: list[tuple[str, int]] = []  # the newest, with their generations
        self._capacities: dict[str, int] = {}
        self._aliases: dict[str, str] = {}

    async def run(self, count: int) -> History:
        """All of it; then one last look at everything, and the journal."""
        async with contextlib.AsyncExitStack() as stack:
            apis = [
                await stack.enter_async_context(_connected(self._gpud)) for _ in range(CLIENTS)
            ]
            await self._look_at_cards(apis[0])
            left = iter(range(count))
            async with asyncio.TaskGroup() as tasks:
                for number, api in enumerate(apis):
                    chance = random.Random(f"{self._seed}/{number}")
                    tasks.create_task(self._one(api, chance, left))
            await self._do(apis[0].reservations.ListReservations, *_list())
            await self._do(apis[0].devices.ListDevices, *self._devices())
            journal = await _journal(apis[0])
        return History(
            capacities=self._capacities,
            aliases=self._aliases,
            operations=tuple(self._operations),
            journal=journal,
        )

    async def _look_at_cards(self, api: Api) -> None:
        shown = await api.devices.ListDevices(devices_pb2.ListDevicesRequest())
        for device in shown.devices:
            if device.kind == devices_pb2.DEVICE_KIND_SIMULATED:
                capacity = device.memory_total_bytes - device.reserve_bytes
                self._capacities[device.name] = capacity
                self._aliases[device.name] = device.alias

    async def _one(self, api: Api, chance: random.Random, left: Any) -> None:
        kinds, weights = zip(*MIX.items(), strict=True)
        for _ in left:
            (kind,) = chance.choices(kinds, weights)
            if kind == "list":
                await self._do(api.reservations.ListReservations, *_list())
            elif kind == "devices":
                await self._do(api.devices.ListDevices, *self._devices())
            elif kind == "reserve" or not self._names:
                await self._do(api.reservations.Reserve, *self._reserve(chance))
            else:
                stub = getattr(api.reservations, _METHODS[kind])
                await self._do(stub, *_about(kind, chance.choice(self._names), chance))

    async def _do(
        self,
        method: Callable[..., Awaitable[Any]],
        request: Any,
        told: Callable[[Any], Call],
    ) -> None:
        """Call, and note what came between which moments."""
        begin_ns = time.monotonic_ns()
        answer: Any
        try:
            answer = await method(request, timeout=CALL_LIMIT_SECONDS)
        except grpc.aio.AioRpcError as error:
            answer = refused(error)
        end_ns = time.monotonic_ns()
        call = told(answer)
        self._operations.append(Operation(begin_ns=begin_ns, end_ns=end_ns, call=call))
        self._learn(call)

    def _learn(self, call: Call) -> None:
        if not isinstance(call, Reserve | Release) or isinstance(call.answer, Refused):
            return
        known = (call.answer.name, call.answer.generation)
        if isinstance(call, Reserve):
            self._names = [*self._names[1 - REMEMBERED :], known]
        elif known in self._names and self._chance.random() < FORGOTTEN_ONCE_ENDED:
            self._names.remove(known)

    def _reserve(self, chance: random.Random) -> tuple[Any, Callable[[Any], Call]]:
        size = chance.randrange(1, LARGEST_BYTES)
        count = chance.choice((1, 1, 1, 2))
        named = chance.random() < 0.3
        devices = tuple(chance.sample(sorted(self._capacities), 2)) if named else ()
        short = chance.random() < SHORT_LEASES
        request = pb.ReserveRequest(
            bytes=size,
            device_count=count,
            devices=devices,
            ttl=Duration(seconds=SHORT_TTL_SECONDS if short else LONG_TTL_SECONDS),
            owner="prover",
        )
        return request, lambda answer: Reserve(
            bytes=size, count=count, devices=devices, answer=_seen(answer)
        )

    def _devices(self) -> tuple[Any, Callable[[Any], Call]]:
        def told(answer: devices_pb2.ListDevicesResponse) -> Call:
            cards = [each for each in answer.devices if each.name in self._capacities]
            return Devices(answer={each.name: each.granted_bytes for each in cards})

        return devices_pb2.ListDevicesRequest(), told


_METHODS = {"renew": "Renew", "release": "Release", "get": "GetReservation"}


@contextlib.asynccontextmanager
async def _connected(gpud: Gpud) -> AsyncIterator[Api]:
    """A connection of its own: grpc would put all channels to one address onto one."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(gpud.address, options=options) as channel:
        yield Api(channel)


def _about(
    kind: str, known: tuple[str, int], chance: random.Random
) -> tuple[Any, Callable[[Any], Call]]:
    """A call on one reservation, which somebody else may be ending."""
    name, generation = known
    if kind == "get":
        return pb.GetReservationRequest(name=name), lambda answer: Get(
            name=name, answer=_seen(answer)
        )
    claimed = chance.choice((None, generation))
    if chance.random() < WRONG_GENERATIONS:
        claimed = generation + chance.choice((-1, 1, 7))
    if kind == "renew":
        ttl = Duration(seconds=LONG_TTL_SECONDS + chance.randrange(1000))
        return pb.RenewRequest(name=name, generation=claimed, ttl=ttl), lambda answer: Renew(
            name=name, generation=claimed, answer=_seen(answer)
        )
    return pb.ReleaseRequest(name=name, generation=claimed), lambda answer: Release(
        name=name, generation=claimed, answer=_seen(answer)
    )


def _list() -> tuple[Any, Callable[[Any], Call]]:
    request = pb.ListReservationsRequest(states=[pb.RESERVATION_STATE_GRANTED], page_size=1000)

    def told(answer: pb.ListReservationsResponse) -> Call:
        assert not answer.next_page_token, "more than a page is no one moment"
        return List(answer=tuple(_reservation(each) for each in answer.reservations))

    return request, told


def _seen(answer: Any) -> Seen | Refused:
    return answer if isinstance(answer, Refused) else _reservation(answer.reservation)


def _reservation(told: pb.Reservation) -> Seen:
    return Seen(
        name=told.name,
        state=pb.ReservationState.Name(told.state).removeprefix("RESERVATION_STATE_"),
        generation=told.generation,
        grants=tuple((grant.device, grant.bytes) for grant in told.grants),
        expire_ns=told.expire_time.ToNanoseconds() if told.HasField("expire_time") else None,
    )


def refused(error: grpc.aio.AioRpcError) -> Refused:
    told = refusal_of(error)
    return Refused(code=told.code.name, reason=told.reason, facts=told.metadata)


async def _journal(api: Api) -> tuple[Entry, ...]:
    """All that booked or freed bytes, oldest first."""
    found: list[node_pb2.Event] = []
    token = ""
    while True:
        request = node_pb2.ListEventsRequest(type="reservation", page_size=1000, page_token=token)
        page = await api.node.ListEvents(request, timeout=CALL_LIMIT_SECONDS)
        found += page.events
        token = page.next_page_token
        if not token:
            break
    found.reverse()
    entries = [_entry(event) for event in found]
    return tuple(entry for entry in entries if entry is not None)


def _entry(event: node_pb2.Event) -> Entry | None:
    what = event.type.removeprefix("reservation.")
    if what == "granted":
        devices = tuple(f"devices/{uuid}" for uuid in event.details["devices"].split(","))
        wall_ns = event.time.ToNanoseconds()
        return Entry(name=event.subject, ending="", wall_ns=wall_ns, devices=devices)
    if what in {"released", "expired", "revoked"}:
        wall_ns = event.time.ToNanoseconds()
        return Entry(name=event.subject, ending=what.upper(), wall_ns=wall_ns)
    return None
