"""Pure: the lists of reservations that have bytes, and of those that wait for some."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gpuctl.messages import seconds_of, word
from gpuctl.tables import clean
from gpuctl.top.shown.field import Cell, Field, cell, number_field, state_cell, text_field
from gpuctl.units import compact_size, span_text
from gpud.v1.reservations_pb2 import Priority, Reservation, Shape

Aliases = Callable[[Iterable[str]], str]


def _name_field() -> Field[Reservation]:
    return Field(
        header="RESERVATION",
        cell=lambda r, _: cell(clean(r.name.removeprefix("reservations/")), "strong"),
        key=lambda r: r.name,
        width=11,
        grows=5,
    )


def _granted(reservation: Reservation) -> int:
    return sum(grant.bytes for grant in reservation.grants)


def _used(reservation: Reservation) -> int | None:
    told = [grant for grant in reservation.grants if grant.HasField("observed_bytes")]
    return sum(grant.observed_bytes for grant in told) if told else None


def _left(reservation: Reservation, now: float) -> float | None:
    """Seconds until its lease ends; None for one that has none."""
    if not reservation.HasField("expire_time"):
        return None
    return max(0.0, seconds_of(reservation.expire_time) - now)


def _for(reservation: Reservation) -> str:
    """The instance it is held for, else its labels."""
    if reservation.instance:
        return clean(reservation.instance)
    labels = reservation.labels
    return clean(" ".join(f"{key}={labels[key]}" for key in sorted(labels)))


def _priority(rank: int) -> Field[Reservation]:
    return Field(
        header="PRIORITY",
        cell=lambda r, _: cell(word(r, "priority"), _urgency(r.priority)),
        key=lambda r: float(r.priority),
        width=11,
        rank=rank,
    )


def _urgency(priority: int) -> str:
    return "strong" if priority >= Priority.PRIORITY_INTERACTIVE else ""


def holder_fields(aliases: Aliases, now: float) -> tuple[Field[Reservation], ...]:
    """Of what is granted; `now` by gpud's clock."""
    return (
        _name_field(),
        text_field("OWNER", lambda r: clean(r.owner), 12, grows=20, least=6),
        Field(
            header="STATE",
            cell=lambda r, _: state_cell(word(r, "state")),
            key=lambda r: word(r, "state"),
            width=9,
            rank=2,
        ),
        text_field("ON", lambda r: clean(aliases(g.device for g in r.grants)), 6, grows=20),
        number_field("BYTES", lambda r: compact_size(_granted(r)), _granted, 5),
        Field(
            header="IN USE",
            cell=_in_use,
            key=_used,
            width=6,
            right=True,
            rank=1,
        ),
        number_field(
            "ENDS IN", lambda r: span_text(_left(r, now)), lambda r: _left(r, now), 7, rank=3
        ),
        _priority(4),
        text_field("FOR", _for, 12, grows=30, rank=5),
    )


def _in_use(reservation: Reservation, _: int) -> Cell:
    used = _used(reservation)
    return cell(compact_size(used), "warn" if (used or 0) > _granted(reservation) else "")


def queue_fields(now: float) -> tuple[Field[Reservation], ...]:
    """Of what waits; `now` by gpud's clock."""
    return (
        number_field("#", lambda r: str(r.queue_position), lambda r: r.queue_position, 2),
        _name_field(),
        text_field("OWNER", lambda r: clean(r.owner), 10, grows=15, rank=2),
        text_field("ASKS", lambda r: clean(asked(r.shapes)), 6, grows=12),
        number_field(
            "WAITS", lambda r: span_text(_waited(r, now)), lambda r: _waited(r, now), 6, rank=1
        ),
        _priority(3),
        text_field("FOR WHAT", lambda r: clean(r.wait_reason), 34, grows=90, least=8),
    )


def _waited(reservation: Reservation, now: float) -> float:
    return max(0.0, now - seconds_of(reservation.create_time))


def asked(shapes: Iterable[Shape]) -> str:
    """`4G`, `2x2G`; several, in the order of preference: `4G or 2x2G`."""
    return " or ".join(
        f"{shape.device_count}x{compact_size(shape.bytes)}"
        if shape.device_count > 1
        else compact_size(shape.bytes)
        for shape in shapes
    )


def reservation_text(reservation: Reservation) -> str:
    """What a filter looks into."""
    words = (reservation.name, reservation.owner, word(reservation, "state"), _for(reservation))
    return clean(" ".join((*words, word(reservation, "priority"))))
