"""Pure: reservations and the queue, on the native page."""

from __future__ import annotations

from collections import Counter

from gpud.clock import Moment
from gpud.ledger.books import Books
from gpud.ledger.reservation import Priority
from gpud.telemetry.page.table import Column, Family, Table, gauge

_RESERVATIONS = Family(name="gpud_reservations", help="Reservations that have not ended.")
_STATES = ("granted", "queued", "releasing")
_QUEUE = Family(name="gpud_queue_depth", help="Reservations that wait for their bytes.")
_PRIORITIES = tuple(Priority)


class Promises:
    """The part of the page about reservations."""

    def __init__(self) -> None:
        self._table = Table(
            [
                *(Column(family=_RESERVATIONS, labels=f'state="{name}"') for name in _STATES),
                *(
                    Column(family=_QUEUE, labels=f'priority="{each.name.lower()}"')
                    for each in _PRIORITIES
                ),
                gauge(
                    "gpud_queue_oldest_wait_seconds",
                    "How long the first of the queue has waited; 0 while nobody waits.",
                ),
                gauge(
                    "gpud_reservations_noticed",
                    "Reservations that have to end soon, for another needs their bytes.",
                ),
                gauge("gpud_owners", "Owners that hold a reservation."),
                gauge("gpud_node_drained", "Whether the node was drained.", form="%d"),
            ]
        )

    def render(self, books: Books, now: Moment) -> str:
        """Of the promises as they are told, which are those on the disk."""
        releasing, queued = len(books.releasing), list(books.queued.values())
        depth = Counter(each.request.priority for each in queued)
        oldest = min((each.created.remaining_seconds(now) for each in queued), default=0.0)
        row = (
            sum(books.live.values()) - releasing,
            len(queued),
            releasing,
            *(depth[each] for each in _PRIORITIES),
            round(max(0.0, -oldest), 3),
            len(books.noticed),
            len(books.live),
            books.drain is not None,
        )
        return self._table.render(("",), [row])
