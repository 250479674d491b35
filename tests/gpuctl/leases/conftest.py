"""A daemon of this host, that grants at once and renews whatever it is asked to."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpud.v1 import node_pb2 as n
from gpud.v1 import reservations_pb2 as r
from tests.fakes.daemon import FakeDaemon
from tests.gpuctl import samples

NAME = "reservations/r-4m2k"


def kept(state: int = r.RESERVATION_STATE_GRANTED, **more: object) -> r.KeepAliveResponse:
    return r.KeepAliveResponse(name=NAME, generation=1, state=state, **more)


def granted(ttl_seconds: float = 60.0, **changes: object) -> r.Reservation:
    """Renewed at each third of its ttl; an answer that takes longer is told as a fault."""
    made = samples.reservation(**changes)
    made.ttl.FromNanoseconds(int(ttl_seconds * 1e9))
    return made


def seen(reservation: r.Reservation) -> r.WatchReservationResponse:
    return r.WatchReservationResponse(reservation=reservation)


@pytest.fixture(autouse=True)
def _scripted(daemon: FakeDaemon) -> None:
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    daemon.answers.update(
        GetNode=n.GetNodeResponse(node=samples.node(boot_id=boot_id)),
        Reserve=r.ReserveResponse(reservation=granted()),
        GetReservation=r.GetReservationResponse(reservation=granted()),
        WatchReservation=[seen(granted()), FakeDaemon.HANG],
        KeepAlive=kept(),
        AttachProcess=r.AttachProcessResponse(reservation=granted()),
        Release=r.ReleaseResponse(reservation=granted(state=r.RESERVATION_STATE_RELEASED)),
    )
