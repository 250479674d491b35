"""A release that finds another one under way is answered no sooner than that one is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from gpud.v1 import reservations_pb2 as pb
from tests.bench.compiler import compile_library
from tests.running import GIB, Api, Gpud, calling

SLOW_DISK = Path(__file__).parents[1] / "bench" / "slow_disk.c"
DISK_MICROSECONDS = 50_000


async def test_whoever_is_told_released_sees_it_released(
    gpud: Callable[..., Gpud], tmp_path: Path
) -> None:
    """Answered from memory, it was shown GRANTED again afterwards, and was after a crash."""
    library = tmp_path / "slow_disk.so"
    compile_library(SLOW_DISK, library)
    slow = {"LD_PRELOAD": str(library), "SLOW_DISK_MICROSECONDS": str(DISK_MICROSECONDS)}
    daemon = gpud(cards=1, environment=slow).start()
    async with calling(daemon) as api:
        made = (await api.reservations.Reserve(pb.ReserveRequest(bytes=GIB))).reservation
        request = pb.ReleaseRequest(name=made.name)
        async with asyncio.TaskGroup() as tasks:
            both = [tasks.create_task(release(api, request)) for _ in range(2)]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            got = await api.reservations.GetReservation(pb.GetReservationRequest(name=made.name))
    told = {task.result().reservation.state for task in both}
    assert told == {pb.RESERVATION_STATE_RELEASED}
    assert got.reservation.state == pb.RESERVATION_STATE_RELEASED


async def release(api: Api, request: pb.ReleaseRequest) -> pb.ReleaseResponse:
    answer: pb.ReleaseResponse = await api.reservations.Release(request)
    return answer
