"""S5: a promise made and taken back, against the nearest thing that others use for it.

With etcd a promise is a lease, a transaction that puts a key under it unless somebody has that
key, and the end of the lease: three calls, all durable before their answers. With gpud it is
Reserve and Release. Both sides have one node, a Unix socket, the same disk, the same kind of
client, and the same core; etcd is told nothing of bytes, so it checks less.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from gpud.v1 import reservations_pb2 as pb
from gpud.v1 import reservations_pb2_grpc
from tests.bench import etcd
from tests.bench.calls import Burst, Call, burst
from tests.bench.measure import Bar, Result, Unit
from tests.bench.servers import Server, gpud, on_first_core, on_other_cores

S5 = Bar(must=0.5, aim=1.0, at_least=True)
CLIENTS = 64
PROMISES = 20 * CLIENTS
RESERVED_BYTES = 2**20
TTL_SECONDS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One burst: what came of it, and the server's CPU seconds per promise."""

    done: Burst
    cpu_seconds: float


async def measure(folder: Path, rounds: int) -> list[Result]:
    """Both in turn, after one round that only warms up."""
    version = etcd.version(etcd.find())
    async with AsyncExitStack() as stack:
        with on_first_core():
            ours = await stack.enter_async_context(gpud(folder / "gpud"))
            other = await stack.enter_async_context(etcd.etcd(folder / "etcd"))
        with on_other_cores():
            calls = (ours, _promise(ours)), (other, _lease(other))
            found = [
                [await _side(server, call) for server, call in calls] for _ in range(rounds + 1)
            ]
    return [_result(found[1:], version)]


def _promise(server: Server) -> Call:
    """Reserve and Release."""
    stub = reservations_pb2_grpc.ReservationServiceStub(server.channel)
    request = pb.ReserveRequest(bytes=RESERVED_BYTES, owner="bench")

    async def call() -> None:
        made = await stub.Reserve(request)
        await stub.Release(pb.ReleaseRequest(name=made.reservation.name))

    return call


def _lease(server: Server) -> Call:
    """LeaseGrant, Txn, LeaseRevoke."""
    client, numbers = etcd.Client(server.channel), itertools.count()
    value = b"owner=bench bytes=%d" % RESERVED_BYTES

    async def call() -> None:
        key = b"reservations/%d" % next(numbers)
        await client.let_go(await client.hold(key, value, TTL_SECONDS))

    return call


async def _side(server: Server, call: Call) -> Side:
    before = server.cpu_seconds()
    done = await burst(call, PROMISES, CLIENTS)
    return Side(done=done, cpu_seconds=(server.cpu_seconds() - before) / PROMISES)


def _result(rounds: Sequence[Sequence[Side]], version: str) -> Result:
    details: dict[str, float | str] = {"etcd_version": version}
    for index, name in enumerate(("gpud", "etcd")):
        sides = [each[index] for each in rounds]
        details |= {
            f"{name}_p50_seconds": statistics.median(each.done.p50 for each in sides),
            f"{name}_p99_seconds": statistics.median(each.done.p99 for each in sides),
            f"{name}_cpu_seconds": statistics.median(each.cpu_seconds for each in sides),
        }
    return Result(
        row="S5",
        quantity=f"Reserve+Release per second, {CLIENTS} clients ÷ etcd's lease",
        unit=Unit.PER_SECOND,
        rounds=tuple((ours.done.per_second, other.done.per_second) for ours, other in rounds),
        bar=S5,
        details=details,
    )
