"""`gpuctl drain` and `resume`: whether the node grants anything new."""

from __future__ import annotations

import time
from dataclasses import dataclass

import click

from gpuctl.client import Client, Stream
from gpuctl.commands.devices import device_aliases
from gpuctl.commands.instances import instance_columns
from gpuctl.commands.reservations import reservation_columns
from gpuctl.commands.status import LIVE_RESERVATIONS
from gpuctl.failures import EXIT_WAITED_OUT, Failure
from gpuctl.glance.words import is_over
from gpuctl.leases.streams import Inbox, LastingStream, Refused
from gpuctl.leases.waiting import next_of
from gpuctl.messages import duration, word
from gpuctl.options import command, span
from gpuctl.session import Session, request_id
from gpuctl.tables import Column
from gpuctl.units import span_text
from gpud.v1.instances_pb2 import Instance, ListInstancesRequest
from gpud.v1.node_pb2 import (
    DrainNodeRequest,
    GetNodeRequest,
    ListEventsRequest,
    Node,
    ResumeNodeRequest,
    WatchEventsRequest,
    WatchEventsResponse,
)
from gpud.v1.reservations_pb2 import (
    ListReservationsRequest,
    Reservation,
    ReservationState,
)

_COLUMNS: tuple[Column[Node], ...] = (
    Column(header="NODE", cell=lambda n: n.hostname),
    Column(header="STATE", cell=lambda n: word(n, "state")),
    Column(header="WHY", cell=lambda n: n.state_reason),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Left:
    """What still runs or holds memory on a node that is drained; what waits stays in its queue."""

    instances: list[Instance]
    reservations: list[Reservation]

    def __bool__(self) -> bool:
        return bool(self.instances or self.reservations)

    def text(self) -> str:
        """`2 instances and 1 reservation`."""
        counts = ((len(self.instances), "instance"), (len(self.reservations), "reservation"))
        return " and ".join(f"{n} {noun}{'' if n == 1 else 's'}" for n, noun in counts if n)


@command(named=False)
@click.option("--stop-instances", is_flag=True, help="Unload every instance as well.")
@click.option("--deadline", type=span, help="How long requests in flight may go on (default: 5s).")
@click.option("--reason", default="", help="Shown with the node and in refusals.")
@click.option("--wait", "wait_seconds", type=span, metavar="SPAN", help="Until nothing is left.")
def drain(
    session: Session,
    stop_instances: bool,
    deadline: float | None,
    reason: str,
    wait_seconds: float | None,
) -> None:
    """Grant nothing new on this node, across restarts, until `gpuctl resume`.

    Shows what still runs. With --wait it ends once nothing does, or with 124.
    """
    if deadline is not None and not stop_instances:
        raise click.UsageError("--deadline is about stopping: add --stop-instances")
    client, output = session.client, session.output
    request = DrainNodeRequest(
        request_id=request_id(),
        stop_instances=stop_instances,
        deadline=None if deadline is None else duration(deadline),
        reason=reason,
        owner=session.owner(),
    )
    node = client.call(client.node.DrainNode, request).node
    if wait_seconds is None:
        left = _left(client)
    else:
        left = _waited(client, wait_seconds)
        node = client.call(client.node.GetNode, GetNodeRequest()).node  # as it is by now
    output.one(node, _COLUMNS)
    if output.is_table:
        _show(session, left)
    if left and wait_seconds is not None:
        raise Failure(
            message=f"waited {span_text(wait_seconds)}; left are {left.text()}",
            exit_code=EXIT_WAITED_OUT,
            notes=("the node stays drained; `gpuctl drain --stop-instances` stops instances",),
        )


@command(named=False)
def resume(session: Session) -> None:
    """Grant again on a node that was drained."""
    client = session.client
    request = ResumeNodeRequest(request_id=request_id(), owner=session.owner())
    session.output.one(client.call(client.node.ResumeNode, request).node, _COLUMNS)


def _left(client: Client) -> _Left:
    listed = client.pages(client.instances.ListInstances, ListInstancesRequest())
    promised = client.pages(
        client.reservations.ListReservations, ListReservationsRequest(states=LIVE_RESERVATIONS)
    )
    return _Left(
        instances=[i for page in listed for i in page.instances if not is_over(i)],
        # A standing one stays by itself, and an instance's is its instance's.
        reservations=[
            reservation
            for page in promised
            for reservation in page.reservations
            if reservation.state != ReservationState.RESERVATION_STATE_QUEUED
            and not (reservation.standing or reservation.instance)
        ],
    )


def _waited(client: Client, wait_seconds: float) -> _Left:
    """What is left when nothing is, or the time has run out."""
    inbox: Inbox = Inbox()
    newest = client.call(client.node.ListEvents, ListEventsRequest(page_size=1)).events
    # What happens between the first look and the stream's begin is replayed.
    request = WatchEventsRequest(after_sequence=newest[0].sequence if newest else 0)

    def opened() -> Stream[WatchEventsResponse]:
        return client.follow(client.node.WatchEvents, request)

    def heed(answer: WatchEventsResponse) -> bool:
        inbox.put(answer)
        return False

    until = time.monotonic() + wait_seconds
    followed = LastingStream(inbox, opened, heed)
    followed.start()
    try:
        while left := _left(client):
            event = next_of(inbox, until)
            if isinstance(event, Refused):
                raise event.failure
            if event is None:
                break
            while not inbox.empty():  # many events, one look
                inbox.get()
    finally:
        followed.end()
    return left


def _show(session: Session, left: _Left) -> None:
    output = session.output
    aliases = device_aliases(session)
    if left.instances:
        columns = instance_columns(aliases)
        output.lines(["", *output.table(columns).lines(left.instances)])
    if left.reservations:
        lines = output.table(reservation_columns(session.now(), aliases)).lines(left.reservations)
        output.lines(["", *lines])
    if not left:
        output.lines(["", "nothing is left on it"])
