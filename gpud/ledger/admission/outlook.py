"""Pure: when a device will have room, as far as its leases tell."""

from __future__ import annotations

from gpud.ledger.books import Books
from gpud.ledger.reservation import Deadline, Reservation, ReservationState

NEVER_KNOWN = float("inf")


def leases(books: Books, uuid: str) -> list[tuple[Reservation, int]]:
    """Who holds bytes of a device, the first to end first; what has no end is last."""
    held = [(books.reservations[id_], size) for id_, size in books.device(uuid).holders.items()]
    return sorted(held, key=lambda each: end_boottime(each[0]))


def end_boottime(held: Reservation) -> float:
    """When a promise ends, unless renewed; NEVER_KNOWN where nothing ends it by itself."""
    end = ends(held)
    return NEVER_KNOWN if end is None else end.boottime


def ends(held: Reservation) -> Deadline | None:
    """When a promise ends, unless renewed. None: by another's act, or when its bytes are back."""
    return held.deadline if held.state is ReservationState.GRANTED else None


def comes_in(books: Books, uuid: str, room: int, size: int, *, alone: bool) -> float:
    """The moment (boottime) at which `size` bytes fit if leases end as they now stand.

    `room` is what can be had now; `alone`: only once nobody else holds any.
    """
    held = leases(books, uuid)
    if alone:
        return max((end_boottime(each) for each, _ in held), default=0.0)
    moment = 0.0
    for each, taken in held:
        if room >= size:
            break
        room += taken
        moment = end_boottime(each)
    return moment if room >= size else NEVER_KNOWN
