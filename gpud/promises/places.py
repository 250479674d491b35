"""Where everybody in the queue stands and why: told to many, found out once."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpud.clock import Clock
from gpud.devices.snapshot import Snapshot
from gpud.feed import Feed
from gpud.ledger.admission.queue import in_order
from gpud.ledger.books import Books
from gpud.ledger.reservation import Deadline, Reservation
from gpud.promises.promises import Promises

# Of the loop's time, finding out the reasons may take one part in so many. With few in the queue
# they are always new; with hundreds, each change would else cost a walk for each that watches.
SHARE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a waiting request stands. `expected`: only of the first, for nobody knows more."""

    position: int
    why: str
    expected: Deadline | None


@dataclass(slots=True)
class Places:
    """The places of those that wait, on the durable promises."""

    promises: Promises
    snapshots: Feed[Snapshot]
    clock: Clock
    _positions: dict[str, int] = field(default_factory=dict)
    _positions_of: tuple[Books | None, int] = (None, -1)
    _reasons: dict[str, str] = field(default_factory=dict)
    _reasons_of: tuple[int, int] = (-1, -1)
    _rest_until: float = 0.0

    def place(self, value: Reservation) -> Place | None:
        """The place of one that waits; None of one that does not, or no longer."""
        if not value.queued:
            return None
        position = self._position(value.id)
        if position is None:
            return None
        now = self.clock.now()
        expected = self.promises.ledger.expected(value, now) if position == 1 else None
        return Place(position=position, why=self._why(value), expected=expected)

    def _position(self, id_: str) -> int | None:
        durable = self.promises.durable
        books, version = self._positions_of
        if books is not durable or version != durable.version:
            ordered = in_order(durable.queued.values(), self.promises.ledger.settings.queue)
            self._positions = {entry.id: at for at, entry in enumerate(ordered, start=1)}
            self._positions_of = (durable, durable.version)
        return self._positions.get(id_)

    def _why(self, value: Reservation) -> str:
        snapshot = self.snapshots.latest
        sequence = snapshot.sequence if snapshot is not None else 0
        version = (self.promises.ledger.books.version, sequence)
        began = self.clock.now()
        if version != self._reasons_of and began.boottime >= self._rest_until:
            self._reasons = self.promises.ledger.reasons(began)
            self._reasons_of = version
            ended = self.clock.now().boottime
            self._rest_until = ended + SHARE * (ended - began.boottime)
        if value.id not in self._reasons:
            self._reasons[value.id] = self.promises.ledger.why_waiting(value, began)
        return self._reasons[value.id]
