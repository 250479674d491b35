"""Two clients for the last 4 GiB of a device, 1000 times: exactly one wins each time."""

from __future__ import annotations

import asyncio
from collections import Counter

import grpc

from gpud.v1 import devices_pb2
from gpud.v1 import reservations_pb2 as pb
from tests.running import GIB, Api, Gpud, calling, refusal_of

ROUNDS = 1000
LAST = 4 * GIB


async def ask(api: Api, owner: str) -> pb.Reservation | str:
    """The promise, or the reason of the refusal."""
    request = pb.ReserveRequest(bytes=LAST, devices=["gpu0"], owner=owner)
    try:
        return (await api.reservations.Reserve(request)).reservation
    except grpc.aio.AioRpcError as error:
        return refusal_of(error).reason


async def test_exactly_one_of_two_wins_each_time(running: Gpud) -> None:
    winners: Counter[str] = Counter()
    async with calling(running) as first, calling(running) as second:
        gpu0 = await first.devices.GetDevice(devices_pb2.GetDeviceRequest(name="gpu0"))
        # What is left over is less than another 4 GiB.
        assert LAST <= gpu0.device.grantable_bytes < 2 * LAST
        for round_ in range(ROUNDS):
            pair = [ask(first, "first"), ask(second, "second")]
            if round_ % 2:
                pair.reverse()
            ends = await asyncio.gather(*pair)
            won = [end for end in ends if isinstance(end, pb.Reservation)]
            assert [end for end in ends if isinstance(end, str)] == ["VRAM_INSUFFICIENT"]
            winners[won[0].owner] += 1
            await first.reservations.Release(pb.ReleaseRequest(name=won[0].name))
        after = await first.devices.GetDevice(devices_pb2.GetDeviceRequest(name="gpu0"))
    assert after.device.granted_bytes == 0
    assert sum(winners.values()) == ROUNDS
    assert set(winners) == {"first", "second"}  # the race is one


async def test_many_clients_share_what_there_is_and_no_more(running: Gpud) -> None:
    async with calling(running) as api:
        call = api.reservations.Reserve
        ask = pb.ReserveRequest(bytes=GIB, devices=["gpu1"])
        ends = await asyncio.gather(*(call(ask) for _ in range(50)), return_exceptions=True)
        won = [end.reservation for end in ends if not isinstance(end, BaseException)]
        gpu1 = await api.devices.GetDevice(devices_pb2.GetDeviceRequest(name="gpu1"))
        assert len(won) == (gpu1.device.memory_total_bytes - gpu1.device.reserve_bytes) // GIB
        assert gpu1.device.granted_bytes == len(won) * GIB
        for each in won:
            await api.reservations.Release(pb.ReleaseRequest(name=each.name))
