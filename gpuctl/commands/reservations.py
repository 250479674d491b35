"""`gpuctl reserve`, `renew`, `release` and `reservations`: promises of memory under leases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from gpuctl.commands.demand import demand_fields, demand_options, wait
from gpuctl.commands.devices import device_aliases
from gpuctl.commands.status import LIVE_RESERVATIONS
from gpuctl.failures import Failure, repeatable
from gpuctl.messages import duration, known, seconds_of, word
from gpuctl.options import GENERATION, command, enum_choice, enum_number, qualified, span
from gpuctl.session import Session, request_id
from gpuctl.tables import Column
from gpuctl.units import compact_size, span_text
from gpud.v1.reservations_pb2 import (
    ListReservationsRequest,
    ReleaseRequest,
    RenewRequest,
    Reservation,
    ReservationState,
    ReserveRequest,
)

# Behind every place, for one that waits and does not tell its own yet.
_LAST_PLACE = 2**31


def _grants(reservation: Reservation, aliases: dict[str, str]) -> str:
    return ",".join(
        f"{aliases.get(grant.device, grant.device.removeprefix('devices/'))}:"
        f"{compact_size(grant.bytes)}"
        for grant in reservation.grants
    )


def _expires(reservation: Reservation, now: float) -> str:
    """How long the lease still runs, or the request still waits.

    `-` for one that has ended or never does by itself.
    """
    queued = reservation.state == ReservationState.RESERVATION_STATE_QUEUED
    granted = reservation.state == ReservationState.RESERVATION_STATE_GRANTED
    field = "wait_until_time" if queued else "expire_time"
    if not (queued or granted) or not reservation.HasField(field):
        return "-"
    left = seconds_of(getattr(reservation, field)) - now
    return span_text(left) if left > 0 else "over"


def _state(reservation: Reservation) -> str:
    """With its place, while it waits: QUEUED 2."""
    position = known(reservation, "queue_position")
    state = word(reservation, "state")
    return f"{state} {position}" if position is not None else state


def _asked(reservation: Reservation) -> str:
    """What a request that waits would take: `2x12G` for each of its shapes."""
    return " else ".join(
        f"{f'{shape.device_count}x' if shape.device_count > 1 else ''}{compact_size(shape.bytes)}"
        for shape in reservation.shapes
    )


def _for(reservation: Reservation) -> str:
    """The instance or the standing reservation it belongs to."""
    return reservation.instance or reservation.within.removeprefix("reservations/")


def _expected(reservation: Reservation, now: float) -> str:
    if not reservation.HasField("expected_time"):
        return "-"
    return span_text(max(0.0, seconds_of(reservation.expected_time) - now))


def _kind(reservation: Reservation) -> str:
    return "STANDING" if reservation.standing else word(reservation, "kind")


def _enforcement(reservation: Reservation) -> str:
    return ",".join(dict.fromkeys(word(grant, "enforcement") for grant in reservation.grants))


def _why(reservation: Reservation) -> str:
    """What it waits for, what it is about to end for, what ails its devices, or why it ended."""
    why = reservation.wait_reason or reservation.state_reason
    if not reservation.HasField("preemption_notice"):
        return why
    ends = f"ends for {reservation.preemption_notice.by}"
    return f"{ends}; {why}" if why else ends


def _in_line(reservation: Reservation) -> tuple[bool, int]:
    """Behind all others those that wait, in the order of their places."""
    queued = reservation.state == ReservationState.RESERVATION_STATE_QUEUED
    place = known(reservation, "queue_position") if queued else 0
    return queued, _LAST_PLACE if place is None else place


def reservation_columns(now: float, aliases: dict[str, str]) -> tuple[Column[Reservation], ...]:
    """The columns of a reservation; `aliases` gives devices the short names people know."""
    return (
        Column(header="RESERVATION", cell=lambda r: r.name.removeprefix("reservations/")),
        Column(header="STATE", cell=_state),
        Column(header="GRANTS", cell=lambda r: _grants(r, aliases) or _asked(r)),
        Column(header="EXPIRES", cell=lambda r: _expires(r, now), right=True),
        Column(header="PRIORITY", cell=lambda r: word(r, "priority"), drops=True),
        Column(header="OWNER", cell=lambda r: r.owner, shrinks=True, keeps_end=True),
        Column(header="FOR", cell=_for, shrinks=True),
        Column(header="KIND", cell=_kind, wide=True),
        Column(header="SHARING", cell=lambda r: word(r, "sharing"), wide=True),
        Column(header="ENFORCEMENT", cell=_enforcement, wide=True),
        Column(header="PREEMPTIBLE", cell=lambda r: "yes" if r.preemptible else "no", wide=True),
        Column(header="EXPECTED", cell=lambda r: _expected(r, now), right=True, wide=True),
        Column(header="GENERATION", cell=lambda r: str(r.generation), right=True, wide=True),
        Column(header="LABELS", cell=lambda r: _pairs(dict(r.labels)), wide=True),
        Column(header="ENVIRONMENT", cell=lambda r: _pairs(dict(r.environment)), wide=True),
        Column(header="WHY", cell=_why, wide=True),
    )


def _pairs(values: dict[str, str]) -> str:
    return " ".join(f"{key}={values[key]}" for key in sorted(values))


def _columns(session: Session) -> tuple[Column[Reservation], ...]:
    aliases = device_aliases(session) if session.output.is_table else {}
    return reservation_columns(session.now(), aliases)


@command()
@demand_options
@click.option("--wait", "wait_seconds", type=wait, metavar="SPAN", help="Wait for it so long.")
@click.option("--request-id", "given_id", metavar="ID", help="The same id, the same reservation.")
@click.option(
    "--dry-run", "--validate-only", "dry_run", is_flag=True,
    help="Decide and answer, but promise nothing.",
)  # fmt: skip
def reserve(
    session: Session, wait_seconds: float | None, given_id: str | None, dry_run: bool, **asked: Any
) -> None:
    """Promise memory on one or more devices to an owner, under a lease.

    With --wait it queues until there is room, and ends with 124 when the time has run out. Ctrl-C
    leaves the queue.
    """
    request = ReserveRequest(
        request_id=given_id or request_id(),
        validate_only=dry_run,
        **demand_fields(session, asked, wait_seconds),
    )
    client = session.client
    with repeatable(request.request_id):
        if request.HasField("max_wait") and not dry_run:
            answer = _waited_for(session, request)
        else:
            answer = client.call(client.reservations.Reserve, request).reservation
    session.output.one(answer, _columns(session), width=session.output.room)


def _waited_for(session: Session, request: ReserveRequest) -> Reservation:
    from gpuctl.leases.signals import ENDING, caught
    from gpuctl.leases.streams import Inbox
    from gpuctl.leases.telling import Telling
    from gpuctl.leases.waiting import Asking

    inbox: Inbox = Inbox()
    with caught(inbox, ENDING):
        return Asking(session.client, request, inbox, Telling(now=session.now)).obtain()


@command()
@click.argument("reservation")
@click.option("--ttl", type=span, help="From now (default: what it was reserved with).")
@click.option("--generation", type=GENERATION, help="Refuse if it has moved on since.")
def renew(session: Session, reservation: str, ttl: float | None, generation: int | None) -> None:
    """Put off the end of a lease."""
    request = RenewRequest(
        request_id=request_id(),
        name=qualified("reservations", reservation),
        generation=generation,
        ttl=None if ttl is None else duration(ttl),
    )
    client = session.client
    answer = client.call(client.reservations.Renew, request)
    session.output.one(answer.reservation, _columns(session), width=session.output.room)


@command()
@click.argument("reservations", nargs=-1, required=True, metavar="RESERVATION...")
@click.option("--generation", type=GENERATION, help="Refuse if it has moved on since.")
def release(session: Session, reservations: tuple[str, ...], generation: int | None) -> None:
    """Give promised memory back."""
    client, output = session.client, session.output
    released: list[Reservation] = []
    failures: list[Failure] = []
    for name in [qualified("reservations", reservation) for reservation in reservations]:
        request = ReleaseRequest(request_id=request_id(), name=name, generation=generation)
        try:
            released.append(client.call(client.reservations.Release, request).reservation)
        except Failure as failure:
            failures.append(failure)
    if len(reservations) == 1 and released:
        output.one(released[0], _columns(session), width=output.room)
    elif released:
        output.many("reservations", released, _columns(session), width=output.room)
    if failures:
        # One that cannot be released keeps none of the others.
        first, *others = failures
        raise replace(first, notes=(*first.notes, *(other.message for other in others)))


@command(fans_out=True)
@click.option("--all", "every", is_flag=True, help="Those that ended lately too.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=enum_choice(ReservationState),
    help="Only in this state; may be repeated.",
)
@click.option("--owner", default="", help="Only of this owner.")
def reservations(session: Session, every: bool, states: tuple[str, ...], owner: str) -> None:
    """List promises: those that hold memory, and then those that wait for it, the next one first.

    JSON and YAML documents keep gpud's own order.
    """
    asked = [enum_number(ReservationState, state) for state in states]
    request = ListReservationsRequest(
        states=[] if every else asked or LIVE_RESERVATIONS, owner=owner
    )
    client = session.client
    pages = client.pages(client.reservations.ListReservations, request)
    found = [reservation for page in pages for reservation in page.reservations]
    if session.output.is_table:
        found.sort(key=_in_line)
    columns = _columns(session) if found else ()
    session.output.many("reservations", found, columns, width=session.output.room)
