"""The shared daemon, left as each test found it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gpud.v1 import reservations_pb2 as pb
from tests.running import Api


@pytest.fixture(autouse=True)
async def _nothing_left_reserved(api: Api) -> AsyncIterator[None]:
    yield
    # Those that wait first, or they would be granted by the release of the others.
    for state in (pb.RESERVATION_STATE_QUEUED, pb.RESERVATION_STATE_GRANTED):
        listed = await api.reservations.ListReservations(
            pb.ListReservationsRequest(states=[state], page_size=1000)
        )
        for each in listed.reservations:
            await api.reservations.Release(pb.ReleaseRequest(name=each.name))
