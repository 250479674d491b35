"""`gpuctl reserve`, `renew`, `release` and `reservations`: promises of memory under leases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from gpuctl.commands.devices import device_aliases
from gpuctl.commands.status import LIVE_RESERVATIONS
from gpuctl.failures import Failure, repeatable
from gpuctl.messages import duration, seconds_of, word
from gpuctl.options import (
    COUNT,
    GENERATION,
    command,
    enum_choice,
    enum_number,
    label,
    qualified,
    size,
    span,
)
from gpuctl.session import Session, person, request_id
from gpuctl.tables import Column
from gpuctl.units import compact_size, span_text
from gpud.v1.devices_pb2 import DeviceKind
from gpud.v1.reservations_pb2 import (
    ListReservationsRequest,
    ReleaseRequest,
    RenewRequest,
    Reservation,
    ReservationState,
    ReserveRequest,
)


def _grants(reservation: Reservation, aliases: dict[str, str]) -> str:
    return ",".join(
        f"{aliases.get(grant.device, grant.device.removeprefix('devices/'))}:"
        f"{compact_size(grant.bytes)}"
        for grant in reservation.grants
    )


def _expires(reservation: Reservation, now: float) -> str:
    """How long the lease still runs; `-` for one that has ended or never does by itself."""
    running = reservation.state == ReservationState.RESERVATION_STATE_GRANTED
    if not running or not reservation.HasField("expire_time"):
        return "-"
    left = seconds_of(reservation.expire_time) - now
    return span_text(left) if left > 0 else "over"


def reservation_columns(now: float, aliases: dict[str, str]) -> tuple[Column[Reservation], ...]:
    """The columns of a reservation; `aliases` gives devices the short names people know."""
    return (
        Column(header="RESERVATION", cell=lambda r: r.name.removeprefix("reservations/")),
        Column(header="STATE", cell=lambda r: word(r, "state")),
        Column(header="GRANTS", cell=lambda r: _grants(r, aliases)),
        Column(header="EXPIRES", cell=lambda r: _expires(r, now), right=True),
        Column(header="OWNER", cell=lambda r: r.owner),
        Column(header="FOR", cell=lambda r: r.instance),
        Column(header="KIND", cell=lambda r: word(r, "kind"), wide=True),
        Column(header="GENERATION", cell=lambda r: str(r.generation), right=True, wide=True),
        Column(header="LABELS", cell=lambda r: _pairs(dict(r.labels)), wide=True),
        Column(header="ENVIRONMENT", cell=lambda r: _pairs(dict(r.environment)), wide=True),
        Column(header="WHY", cell=lambda r: r.state_reason, wide=True),
    )


def _pairs(values: dict[str, str]) -> str:
    return " ".join(f"{key}={values[key]}" for key in sorted(values))


def _columns(session: Session) -> tuple[Column[Reservation], ...]:
    aliases = device_aliases(session) if session.output.is_table else {}
    return reservation_columns(session.now(), aliases)


@command()
@click.option("--vram", type=size, required=True, help="How much on each device, as 8GiB.")
@click.option("--device", "devices", multiple=True, help="Choose among these; may be repeated.")
@click.option("--count", type=COUNT, help="On how many devices (default: those named, else 1).")
@click.option("--kind", type=enum_choice(DeviceKind), help="Choose among devices of this kind.")
@click.option("--ttl", type=span, help="Ends after this unless renewed (default: 10m).")
@click.option("--owner", help="Whose it is (default: user@host).")
@click.option("--label", "labels", type=label, multiple=True, help="May be repeated.")
@click.option("--request-id", "given_id", metavar="ID", help="The same id, the same reservation.")
@click.option("--dry-run", is_flag=True, help="Decide and answer, but promise nothing.")
def reserve(
    session: Session,
    vram: int,
    ttl: float | None,
    owner: str | None,
    labels: tuple[tuple[str, str], ...],
    given_id: str | None,
    **choice: Any,
) -> None:
    """Promise memory on one or more devices to an owner, under a lease."""
    request = ReserveRequest(
        request_id=given_id or request_id(),
        bytes=vram,
        device_count=choice["count"] or 0,
        devices=choice["devices"],
        kind=enum_number(DeviceKind, choice["kind"]),
        ttl=None if ttl is None else duration(ttl),
        owner=owner or person(),
        labels=dict(labels),
        validate_only=choice["dry_run"],
    )
    client = session.client
    with repeatable(request.request_id):
        answer = client.call(client.reservations.Reserve, request)
    session.output.one(answer.reservation, _columns(session))


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
    session.output.one(answer.reservation, _columns(session))


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
        output.one(released[0], _columns(session))
    elif released:
        output.many("reservations", released, _columns(session))
    if failures:
        # One that cannot be released keeps none of the others.
        first, *others = failures
        raise replace(first, notes=(*first.notes, *(other.message for other in others)))


@command()
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
    """List promises: those that hold memory or wait for it."""
    asked = [enum_number(ReservationState, state) for state in states]
    request = ListReservationsRequest(
        states=[] if every else asked or LIVE_RESERVATIONS, owner=owner
    )
    client = session.client
    pages = client.pages(client.reservations.ListReservations, request)
    found = [reservation for page in pages for reservation in page.reservations]
    session.output.many("reservations", found, _columns(session) if found else ())
