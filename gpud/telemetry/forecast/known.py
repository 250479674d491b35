"""Pure: what is known to come of a device's memory: leases that end, idle engines, the queue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gpud.clock import Moment
from gpud.ledger.admission.outlook import ends, is_renewed
from gpud.ledger.books import Books
from gpud.ledger.charge import Charge
from gpud.ledger.reservation import Deadline, Reservation


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One change to come. Bytes, negative where they come free.

    `promised_bytes` of the promise, `used_bytes` of what the device then shows used, `taken_bytes`
    of what it then can no longer promise.
    """

    wall: float
    subject: str
    what: str
    promised_bytes: int
    used_bytes: int
    taken_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plans:
    """What the parts know of the future.

    `idle`: by reservation, the instance that holds it and when (wall seconds) it is unloaded for
    being idle, if nobody uses it. `next`: who comes in next, and when, as far as that is known.
    """

    idle: Mapping[str, tuple[str, float]]
    next: tuple[Reservation, Deadline] | None = None


def known_changes(
    terms: Charge, books: Books, plans: Plans, now: Moment, horizon_seconds: float
) -> tuple[Known, ...]:
    """What changes on a device within the horizon, in its order.

    A lease that was ever renewed is taken to be renewed again: nothing is known of its end.
    """
    found = [
        *_leases(terms, books, now),
        *_idle(terms, books, plans),
        *_next(terms, plans, now),
    ]
    until = now.wall + horizon_seconds
    return tuple(sorted((k for k in found if k.wall <= until), key=lambda known: known.wall))


def _leases(terms: Charge, books: Books, now: Moment) -> Iterator[Known]:
    for id_, size in books.device(terms.uuid).holders.items():
        held = books.reservations[id_]
        end = ends(held)
        if end is None or (is_renewed(held) and held.notice is None):
            continue
        what = "its lease ends" if held.notice is None else "it is to make room for another"
        used = terms.observed_bytes.get(id_, 0)
        yield Known(
            wall=now.wall + max(0.0, end.remaining_seconds(now)),
            subject=held.name,
            what=what,
            promised_bytes=-size,
            used_bytes=-used,
            taken_bytes=-max(size, used),
        )


def _idle(terms: Charge, books: Books, plans: Plans) -> Iterator[Known]:
    book = books.device(terms.uuid)
    for id_, (instance, wall) in plans.idle.items():
        used = terms.observed_bytes.get(id_, 0)
        # Within a standing promise its bytes stay promised.
        size = book.holders.get(id_, 0)
        if not size and id_ not in book.within:
            continue
        yield Known(
            wall=wall,
            subject=f"instances/{instance}",
            what="it is unloaded if nobody uses it",
            promised_bytes=-size,
            used_bytes=-used,
            taken_bytes=-max(size, used) if size else 0,
        )


def _next(terms: Charge, plans: Plans, now: Moment) -> Iterator[Known]:
    if plans.next is None:
        return
    entry, moment = plans.next
    request = entry.request
    # Where it comes in is known only of one that names its devices.
    if terms.uuid in request.devices and len(request.devices) == request.device_count:
        yield Known(
            wall=now.wall + max(0.0, moment.remaining_seconds(now)),
            subject=entry.name,
            what="the next in the queue comes in",
            promised_bytes=request.bytes,
            used_bytes=0,  # until its owner uses it, which nobody can foretell
            taken_bytes=request.bytes,
        )
