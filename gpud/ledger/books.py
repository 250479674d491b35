"""Pure: all promises, and what they sum up to per device, kept as they change."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field

from gpud.clock import Moment
from gpud.ledger.reservation import Reservation, ReservationState

# Ended reservations stay listed this long.
ENDED_LISTED_SECONDS = 600.0


@dataclass(slots=True)
class DeviceBook:
    """What is booked on one device; `version` moves with every change."""

    granted_bytes: int = 0
    holders: dict[str, int] = field(default_factory=dict)  # reservation id → bytes
    bound: dict[str, int] = field(default_factory=dict)  # those that had a process
    leaked_bytes: int = 0
    version: int = 0


_EMPTY = DeviceBook()


class Books:
    """Promises by id, their sums by device, and the order in which they fall due.

    Every operation costs the same with ten promises as with ten thousand.
    """

    def __init__(self) -> None:
        self.reservations: dict[str, Reservation] = {}
        self.releasing: dict[str, Reservation] = {}
        self._devices: dict[str, DeviceBook] = {}
        # (boottime, id): entries of replaced versions are skipped when they come up.
        self._due: list[tuple[float, str]] = []

    def device(self, uuid: str) -> DeviceBook:
        """The book of a device, empty when nothing is booked there."""
        return self._devices.get(uuid, _EMPTY)

    def devices(self) -> Mapping[str, DeviceBook]:
        """Every device on which something is or was booked."""
        return self._devices

    def put(self, reservation: Reservation) -> None:
        """Add a reservation, or replace its earlier version."""
        old = self.reservations.get(reservation.id)
        self.drop(reservation.id)
        self.reservations[reservation.id] = reservation
        if reservation.state is ReservationState.RELEASING:
            self.releasing[reservation.id] = reservation
        if reservation.booked:
            for grant in reservation.grants:
                book = self._devices.setdefault(grant.device, DeviceBook())
                book.granted_bytes += grant.bytes
                book.holders[reservation.id] = grant.bytes
                if reservation.bound:
                    book.bound[reservation.id] = grant.bytes
                book.version += 1
        due = _due_boottime(reservation)
        if due is not None and (old is None or _due_boottime(old) != due):
            heapq.heappush(self._due, (due, reservation.id))
            self._trim()

    def drop(self, id_: str) -> None:
        """Forget a reservation."""
        old = self.reservations.pop(id_, None)
        self.releasing.pop(id_, None)
        if old is not None and old.booked:
            for grant in old.grants:
                book = self._devices[grant.device]
                book.granted_bytes -= grant.bytes
                del book.holders[id_]
                book.bound.pop(id_, None)
                book.version += 1

    def set_leak(self, uuid: str, leaked_bytes: int) -> None:
        """Bytes on a device whose owner is gone."""
        book = self._devices.setdefault(uuid, DeviceBook())
        book.leaked_bytes = leaked_bytes
        book.version += 1

    def due(self, now: Moment) -> list[Reservation]:
        """Leases to expire and ended ones to forget, each told once."""
        found = []
        while self._due and self._due[0][0] <= now.boottime:
            boottime, id_ = heapq.heappop(self._due)
            reservation = self.reservations.get(id_)
            if reservation is not None and _due_boottime(reservation) == boottime:
                found.append(reservation)
        return found

    def _trim(self) -> None:
        """Drop the deadlines that renewals moved, once they are most of what is kept."""
        if len(self._due) > 2 * len(self.reservations) + 64:
            moments = ((_due_boottime(each), id_) for id_, each in self.reservations.items())
            self._due = [(due, id_) for due, id_ in moments if due is not None]
            heapq.heapify(self._due)

    def next_due_boottime(self) -> float | None:
        """When `due` next has something to tell, at the earliest."""
        return self._due[0][0] if self._due else None


def _due_boottime(reservation: Reservation) -> float | None:
    """The moment, on this boot's clock, at which a reservation next changes by itself."""
    if reservation.state is ReservationState.GRANTED:
        return reservation.deadline.boottime if reservation.deadline is not None else None
    if not reservation.booked and reservation.ended is not None:
        return reservation.ended.boottime + ENDED_LISTED_SECONDS
    return None
