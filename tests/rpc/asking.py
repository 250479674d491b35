"""Reservations as clients ask for them, wait for them and give them back."""

from __future__ import annotations

import asyncio
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gpud.devices.simulated import load_cards
from gpud.units import MIB
from gpud.v1 import reservations_pb2 as pb
from tests.running import GIB, Api

PATIENCE_SECONDS = 60.0
# All that one of the simulated cards grants.
WHOLE = load_cards()["p106-100"].memory_total_mib * MIB - GIB // 2
HERE: dict[str, Any] = {"devices": ["gpu3"]}


def span(seconds: float) -> Duration:
    made = Duration()
    made.FromMicroseconds(int(seconds * 1e6))
    return made


def micros(time: Timestamp) -> int:
    return time.ToMicroseconds()


async def reserve(api: Api, size: int = WHOLE, **fields: Any) -> pb.Reservation:
    asked = pb.ReserveRequest(bytes=size, **{**HERE, **fields})
    return (await api.reservations.Reserve(asked)).reservation


async def wait(api: Api, size: int = WHOLE, **fields: Any) -> pb.Reservation:
    made = await reserve(api, size, **{"max_wait": span(60), **fields})
    assert made.state == pb.RESERVATION_STATE_QUEUED
    return made


async def got(api: Api, name: str) -> pb.Reservation:
    answer = await api.reservations.GetReservation(pb.GetReservationRequest(name=name))
    return answer.reservation


async def release(api: Api, name: str) -> pb.Reservation:
    return (await api.reservations.Release(pb.ReleaseRequest(name=name))).reservation


async def until(api: Api, name: str, *states: int) -> pb.Reservation:
    """The reservation once it is in one of the states."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        watch = api.reservations.WatchReservation(pb.WatchReservationRequest(name=name))
        async for told in watch:
            if told.reservation.state in states:
                found: pb.Reservation = told.reservation
                return found
    raise AssertionError("the watch ended")
