"""S2, S3, S4: what a durable promise costs, beyond the call and the disk that it waits for.

Every Reserve takes 1 MiB of eight simulated cards that hold 1.1 million of them, and each burst's
promises are released before the next one, outside of what is timed.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from gpud.v1 import reservations_pb2 as pb
from gpud.v1 import reservations_pb2_grpc
from tests.bench.answering import empty_call
from tests.bench.calls import Burst, Call, burst
from tests.bench.compiler import compile_library
from tests.bench.measure import Bar, Result, Unit
from tests.bench.servers import Server, gpud, on_first_core, on_other_cores

S2 = Bar(must=1.6, aim=1.25)
S3 = Bar(must=2.0, aim=1.15)
S4_SPEED = Bar(must=0.5, aim=0.85, at_least=True)
S4_COMMITS = Bar(must=0.2, aim=0.08)

ALONE_CALLS = 200
MANY_CLIENTS = 64
MANY_CALLS = 20 * MANY_CLIENTS
RESERVED_BYTES = 2**20
APPENDED = b"\0" * 120
SLOW_DISK_MICROSECONDS = 3000
SLOW_DISK_SOURCE = Path(__file__).with_name("slow_disk.c")


async def measure(folder: Path, rounds: int) -> list[Result]:
    """One client, many clients, and many on a slow disk."""
    async with AsyncExitStack() as stack:
        with on_first_core():
            server = await stack.enter_async_context(gpud(folder / "gpud"))
        with on_other_cores():
            alone = await _rounds(server, rounds, ALONE_CALLS, 1)
            many = await _rounds(server, rounds, MANY_CALLS, MANY_CLIENTS)
    return [*_alone(alone), *_together(many), *(await _on_slow_disk(folder / "slow", rounds))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One right after the other: empty calls, appends that the disk confirmed, promises."""

    empty: Burst
    append_seconds: tuple[float, ...]
    paced_seconds: tuple[float, ...]  # appends with an empty call before each
    reserve: Burst

    @property
    def append_p50(self) -> float:
        """Median of an append with its fdatasync."""
        return statistics.median(self.append_seconds)

    @property
    def paced_p50(self) -> float:
        """Median of an append to a disk that was idle for as long as a call takes."""
        return statistics.median(self.paced_seconds)


async def _rounds(server: Server, count: int, calls: int, clients: int) -> list[Round]:
    """So many rounds, after one that only warms up."""
    empty, floor = empty_call(server), server.folder / "floor"
    found = []
    for _ in range(count + 1):
        each = Round(
            empty=await burst(empty, calls, clients),
            append_seconds=_append(floor, ALONE_CALLS),
            paced_seconds=await _append_between(empty, floor, ALONE_CALLS),
            reserve=await reserve(server, calls, clients),
        )
        await release(server, each.reserve)
        found.append(each)
    return found[1:]


async def reserve(server: Server, count: int, clients: int) -> Burst:
    """Promises; `release` takes them back, outside of the time."""
    stub = reservations_pb2_grpc.ReservationServiceStub(server.channel)
    request = pb.ReserveRequest(bytes=RESERVED_BYTES, owner="bench")
    return await burst(lambda: stub.Reserve(request), count, clients)


async def release(server: Server, reserved: Burst) -> None:
    """Take back what a burst made."""
    stub = reservations_pb2_grpc.ReservationServiceStub(server.channel)
    names = iter([answer.reservation.name for answer in reserved.answers])
    count = len(reserved.answers)
    await burst(lambda: stub.Release(pb.ReleaseRequest(name=next(names))), count, MANY_CLIENTS)


def _append(path: Path, count: int) -> tuple[float, ...]:
    """The least that a durable promise can cost: a line that the disk confirms."""
    spans = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for _ in range(count):
            began = time.perf_counter()
            os.write(descriptor, APPENDED)
            os.fdatasync(descriptor)
            spans.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
    return tuple(spans)


async def _append_between(call: Call, path: Path, count: int) -> tuple[float, ...]:
    """Appends at the pace of calls: a disk that has rested, as before a promise, is slower."""
    spans: list[float] = []
    for _ in range(count):
        await call()
        spans += _append(path, 1)
    return tuple(spans)


def _alone(rounds: Sequence[Round]) -> list[Result]:
    return [
        Result(
            row="S2",
            quantity="Reserve p50, 1 client ÷ (empty call + append)",
            unit=Unit.MICROSECONDS,
            rounds=tuple((each.reserve.p50, each.empty.p50 + each.append_p50) for each in rounds),
            bar=S2,
            details=_latencies(rounds)
            | {"append_p50_seconds": statistics.median(each.append_p50 for each in rounds)},
        ),
        Result(
            row="S2",
            quantity="  ÷ (empty call + append at the pace of calls)",
            unit=Unit.MICROSECONDS,
            rounds=tuple((each.reserve.p50, each.empty.p50 + each.paced_p50) for each in rounds),
            bar=Bar(),
            details={"append_p50_seconds": statistics.median(each.paced_p50 for each in rounds)},
        ),
    ]


def _together(rounds: Sequence[Round]) -> list[Result]:
    return [
        Result(
            row="S3",
            quantity=f"Reserve p50, {MANY_CLIENTS} clients ÷ empty call",
            unit=Unit.MICROSECONDS,
            rounds=tuple((each.reserve.p50, each.empty.p50) for each in rounds),
            bar=S3,
            details=_latencies(rounds),
        ),
        Result(
            row="S4",
            quantity=f"Reserve/s, {MANY_CLIENTS} clients ÷ empty calls/s",
            unit=Unit.PER_SECOND,
            rounds=tuple((each.reserve.per_second, each.empty.per_second) for each in rounds),
            bar=S4_SPEED,
        ),
    ]


def _latencies(rounds: Sequence[Round]) -> dict[str, float]:
    return {
        f"{kind}_{name}_seconds": statistics.median(
            getattr(getattr(each, kind), name) for each in rounds
        )
        for kind in ("empty", "reserve")
        for name in ("p50", "p99")
    }


async def _on_slow_disk(folder: Path, rounds: int) -> list[Result]:
    """What a disk of 3 ms costs a promise; every sync counts, not only commits.

    One client alone has a commit for each promise: what sharing one is worth shows against that.
    """
    folder.mkdir(parents=True)
    library, count = folder / "slow_disk.so", folder / "syncs"
    compile_library(SLOW_DISK_SOURCE, library)
    environment = {
        "LD_PRELOAD": str(library),
        "SLOW_DISK_MICROSECONDS": str(SLOW_DISK_MICROSECONDS),
        "SLOW_DISK_COUNT": str(count),
    }
    async with AsyncExitStack() as stack:
        with on_first_core():
            server = await stack.enter_async_context(
                gpud(folder / "gpud", environment=environment)
            )
        with on_other_cores():
            found = [await _slow_round(server, count) for _ in range(rounds)]
    return [
        Result(
            row="S4",
            quantity=f"disk waits per Reserve, {MANY_CLIENTS} clients, 3 ms disk",
            unit=Unit.CALLS,
            rounds=tuple((float(each.syncs), float(MANY_CALLS)) for each in found),
            bar=S4_COMMITS,
            details={
                "reserve_p50_seconds": statistics.median(each.many.p50 for each in found),
                "reserve_p99_seconds": statistics.median(each.many.p99 for each in found),
            },
        ),
        Result(
            row="S4",
            quantity=f"  Reserve/s there, {MANY_CLIENTS} clients ÷ one, a commit each",
            unit=Unit.PER_SECOND,
            rounds=tuple((each.many.per_second, each.alone.per_second) for each in found),
            bar=Bar(),
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowRound:
    """On the slow disk: many clients and how often the disk was waited for, then one client."""

    many: Burst
    syncs: int
    alone: Burst


async def _slow_round(server: Server, count: Path) -> SlowRound:
    before = count.stat().st_size
    many = await reserve(server, MANY_CALLS, MANY_CLIENTS)
    syncs = count.stat().st_size - before
    await release(server, many)
    alone = await reserve(server, ALONE_CALLS, 1)
    await release(server, alone)
    return SlowRound(many=many, syncs=syncs, alone=alone)
