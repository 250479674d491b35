"""S17: what a call costs beside ten thousand promises, against what it costs beside ten.

Two daemons, one with many and one with few promises, are called in turn. A page of a hundred needs
a hundred to show, so for the lists the small one holds a hundred and ten.
"""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from gpud.v1 import reservations_pb2 as pb
from gpud.v1 import reservations_pb2_grpc
from tests.bench.calls import Burst, burst
from tests.bench.measure import Bar, Result, Unit
from tests.bench.reserving import RESERVED_BYTES, release, reserve
from tests.bench.servers import Server, gpud, on_first_core, on_other_cores

S17 = Bar(must=2.0, aim=1.1)
FEW = 10
MANY = 10_000
PAGE = 100
CALLS = 100
FILLING_CLIENTS = 64

Sides = tuple[Server, Server]
Timed = Callable[[Server], Awaitable[Burst]]


async def measure(folder: Path, rounds: int) -> list[Result]:
    """Reserve, then lists: the first page, and one from the middle."""
    async with AsyncExitStack() as stack:
        with on_first_core():
            many = await stack.enter_async_context(gpud(folder / "many"))
            few = await stack.enter_async_context(gpud(folder / "few"))
        sides = (many, few)
        with on_other_cores():
            await reserve(many, MANY, FILLING_CLIENTS)
            await reserve(few, FEW, 1)
            reserving = await _rounds(sides, _reserve_once, rounds)
            await reserve(few, PAGE, 1)
            listing = await _rounds(sides, _list_first, rounds)
            going_on = await _rounds(sides, _list_next, rounds)
    return [
        _result("Reserve p50", reserving),
        _result(f"ListReservations p50, first {PAGE}", listing),
        _result(f"ListReservations p50, {PAGE // 10} further on", going_on),
    ]


async def _rounds(sides: Sides, timed: Timed, rounds: int) -> list[tuple[Burst, Burst]]:
    """Both in turn, after one round that only warms up."""
    found = []
    for _ in range(rounds + 1):
        many, few = [await timed(server) for server in sides]
        found.append((many, few))
    return found[1:]


async def _reserve_once(server: Server) -> Burst:
    done = await reserve(server, CALLS, 1)
    await release(server, done)
    return done


async def _list_first(server: Server) -> Burst:
    return await _list(server, pb.ListReservationsRequest(page_size=PAGE, states=[_GRANTED]))


async def _list_next(server: Server) -> Burst:
    """The page after a shorter one: with a token."""
    stub = reservations_pb2_grpc.ReservationServiceStub(server.channel)
    first = pb.ListReservationsRequest(page_size=PAGE // 10, states=[_GRANTED])
    token = (await stub.ListReservations(first)).next_page_token
    request = pb.ListReservationsRequest(page_size=PAGE, page_token=token, states=[_GRANTED])
    return await _list(server, request)


async def _list(server: Server, request: pb.ListReservationsRequest) -> Burst:
    stub = reservations_pb2_grpc.ReservationServiceStub(server.channel)
    done = await burst(lambda: stub.ListReservations(request), CALLS)
    shown = {len(answer.reservations) for answer in done.answers}
    if shown != {PAGE}:
        raise RuntimeError(f"a page of {PAGE} showed {sorted(shown)} promises")
    return done


def _result(quantity: str, rounds: list[tuple[Burst, Burst]]) -> Result:
    return Result(
        row="S17",
        quantity=f"{quantity}, {MANY} promises ÷ few",
        unit=Unit.MICROSECONDS,
        rounds=tuple((many.p50, few.p50) for many, few in rounds),
        bar=S17,
        details={
            f"{name}_p99_seconds": statistics.median(each[index].p99 for each in rounds)
            for index, name in enumerate(("many", "few"))
        }
        | {"reserved_bytes": RESERVED_BYTES},
    )


_GRANTED = pb.RESERVATION_STATE_GRANTED
