"""Pure: what must always hold, in one function for tests and for whoever looks for damage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gpud.devices.snapshot import Snapshot
from gpud.ledger.books import Books
from gpud.ledger.charge import Reserves


def violations(
    books: Books, snapshot: Snapshot | None, reserves: Reserves, live: Mapping[str, str]
) -> list[str]:
    """What is broken, in words; empty when all is well.

    `live` maps each live instance's id to the id of its reservation.
    """
    return [
        *_sums(books),
        *_sharing(books),
        *_waiting(books),
        *(_capacity(books, snapshot, reserves) if snapshot is not None else ()),
        *_instances(books, live),
    ]


def _sums(books: Books) -> Iterable[str]:
    """The running sums are the sums of what is booked."""
    sums: dict[str, int] = {}
    owned: dict[tuple[str, str], int] = {}
    for reservation in books.reservations.values():
        # What lies within a standing reservation is its bytes.
        for grant in reservation.grants if reservation.booked and not reservation.within else ():
            sums[grant.device] = sums.get(grant.device, 0) + grant.bytes
            key = (reservation.owner, grant.device)
            owned[key] = owned.get(key, 0) + grant.bytes
    for uuid, book in books.devices().items():
        if book.granted_bytes != sums.get(uuid, 0) or book.leaked_bytes < 0:
            yield f"I1: {uuid} sums to {sums.get(uuid, 0)}, its book says {book.granted_bytes}"
    if books.booked != {key: size for key, size in owned.items() if size}:
        yield f"I1: owners have {owned}, their books say {dict(books.booked)}"


def _sharing(books: Books) -> Iterable[str]:
    """I12: who has a device alone is alone; what lies within a promise is no more than it."""
    for uuid, book in books.devices().items():
        alone = [
            id_
            for id_ in book.holders
            if books.reservations[id_].exclusive
            and any(g.device == uuid and not g.beside for g in books.reservations[id_].grants)
        ]
        if alone and len(book.holders) > 1:
            yield f"I12: {uuid} is {alone[0]}'s alone, and {len(book.holders)} hold bytes there"
        if book.exclusive != (alone[0] if alone else None):
            yield f"I12: {uuid} is {alone}'s alone, its book says {book.exclusive}"
        for outer in set(book.within.values()):
            inside = sum(books.inside(outer, uuid).values())
            if inside > book.holders.get(outer, 0):
                yield f"I1: {inside} within {outer} on {uuid}, which has {book.holders.get(outer)}"


def _waiting(books: Books) -> Iterable[str]:
    """Who waits holds nothing; who is told to go is told for one that waits or is let in."""
    for reservation in books.queued.values():
        if reservation.grants or reservation.bound:
            yield f"I2: {reservation.name} waits and holds something"
    counted = sum(books.waiting.values()), sum(books.live.values())
    booked = sum(each.booked for each in books.reservations.values())
    if counted != (len(books.queued), booked):
        yield f"I2: {counted} counted as waiting and booked, not {len(books.queued)}, {booked}"


def _capacity(books: Books, snapshot: Snapshot, reserves: Reserves) -> Iterable[str]:
    """I1: granted + leaked + releasing ≤ capacity − reserve."""
    for sample in snapshot.samples:
        book = books.device(sample.info.uuid)
        held = book.granted_bytes + book.leaked_bytes
        total = sample.info.memory_total_bytes
        if held and total is not None and held > total - reserves.of(sample):
            yield f"I1: {sample.info.alias} holds {held} of {total} − {reserves.of(sample)}"


def _instances(books: Books, live: Mapping[str, str]) -> Iterable[str]:
    """I3: each live engine runs inside one booked promise, its own."""
    seen: dict[str, str] = {}
    for instance, id_ in live.items():
        reservation = books.reservations.get(id_)
        if reservation is None or not reservation.booked:
            yield f"I3: {instance} runs outside any promise"
        elif reservation.instance != instance or id_ in seen:
            yield f"I3: {instance} runs in a promise that is not its own"
        seen[id_] = instance
