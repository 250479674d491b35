"""Pure: all promises, and what they sum up to per device, kept as they change."""

from __future__ import annotations

import bisect
import heapq
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from gpud.clock import Moment
from gpud.ledger.reservation import Reservation, ReservationState

Key = TypeVar("Key")
# Ended reservations stay listed this long.
ENDED_LISTED_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cordon:
    """Why a device, or the whole node, grants nothing new, and who said so."""

    reason: str
    actor: str
    wall: float


@dataclass(slots=True)
class DeviceBook:
    """What is booked on one device; `version` moves with every change."""

    granted_bytes: int = 0
    standing_bytes: int = 0  # of those, what stands in the configuration
    holders: dict[str, int] = field(default_factory=dict)  # reservation id → bytes
    bound: set[str] = field(default_factory=set)  # those that had a process
    releasing: dict[str, int] = field(default_factory=dict)  # those that have ended
    # Promises inside a standing one: their bytes are its bytes. Id → the standing one's id.
    within: dict[str, str] = field(default_factory=dict)
    exclusive: str | None = None  # the reservation that has it alone
    leaked_bytes: int = 0
    version: int = 0

    @property
    def is_blank(self) -> bool:
        """Whether it says nothing."""
        return not (self.holders or self.within or self.leaked_bytes)

    def carrier(self, claim: str | None) -> str | None:
        """The promise whose bytes a process that claims `claim` uses; None: none here."""
        if claim is None or claim in self.holders:
            return claim
        return self.within.get(claim)


_EMPTY = DeviceBook()


class Books:
    """Promises by id, their sums by device, and the order in which they fall due.

    Every operation costs the same with ten promises as with ten thousand.
    """

    def __init__(self) -> None:
        self.reservations: dict[str, Reservation] = {}
        self._order: list[tuple[float, str]] = []  # (created, id), as they are listed
        self.releasing: dict[str, Reservation] = {}
        self.queued: dict[str, Reservation] = {}
        self.noticed: dict[str, Reservation] = {}
        self.standing: dict[str, Reservation] = {}  # held, or waiting for its bytes
        self.attached: dict[str, Reservation] = {}  # booked, with attachments
        self.live: Counter[str] = Counter()  # by owner, those that are booked
        self.waiting: Counter[str] = Counter()  # by owner, those that are queued
        # By owner and device; what lies within a standing one is that one's.
        self.booked: Counter[tuple[str, str]] = Counter()
        self.cordons: dict[str, Cordon] = {}
        self.drain: Cordon | None = None
        self.version = 0  # moves with every change
        self._devices: dict[str, DeviceBook] = {}
        # (boottime, id): entries of replaced versions are skipped when they come up.
        self._due: list[tuple[float, str]] = []

    def device(self, uuid: str) -> DeviceBook:
        """The book of a device, empty when nothing is booked there."""
        return self._devices.get(uuid, _EMPTY)

    def devices(self) -> Mapping[str, DeviceBook]:
        """Every device on which something is or was booked."""
        return self._devices

    def inside(self, id_: str, uuid: str) -> dict[str, int]:
        """What is promised within a standing reservation on a device: bytes by id."""
        return {
            child: next(grant.bytes for grant in held.grants if grant.device == uuid)
            for child, parent in self.device(uuid).within.items()
            if parent == id_ and (held := self.reservations.get(child)) is not None
        }

    def put(self, reservation: Reservation) -> None:
        """Add a reservation, or replace its earlier version."""
        self.version += 1
        old = self.reservations.get(reservation.id)
        if old is not None:
            self._unbook(old)
        if old is None or old.created.wall != reservation.created.wall:
            self._unlist(old)
            bisect.insort(self._order, (reservation.created.wall, reservation.id))
        self.reservations[reservation.id] = reservation
        if reservation.state is ReservationState.RELEASING:
            self.releasing[reservation.id] = reservation
        if reservation.queued:
            self.queued[reservation.id] = reservation
            self.waiting[reservation.owner] += 1
        if reservation.notice is not None and reservation.booked:
            self.noticed[reservation.id] = reservation
        if reservation.request.standing and (reservation.booked or reservation.queued):
            self.standing[reservation.id] = reservation
        if reservation.booked:
            self._book(reservation)
        due = _due_boottime(reservation)
        if due is not None and (old is None or _due_boottime(old) != due):
            heapq.heappush(self._due, (due, reservation.id))
            self._trim()

    def drop(self, id_: str) -> None:
        """Forget a reservation."""
        self.version += 1
        old = self.reservations.pop(id_, None)
        if old is not None:
            self._unbook(old)
            self._unlist(old)

    def listed(self, after: tuple[float, str] | None = None) -> Iterator[Reservation]:
        """All, the oldest first; from the one after (created, id) on."""
        start = 0 if after is None else bisect.bisect_right(self._order, after)
        for at in range(start, len(self._order)):
            yield self.reservations[self._order[at][1]]

    def _unlist(self, old: Reservation | None) -> None:
        if old is not None:
            del self._order[bisect.bisect_left(self._order, (old.created.wall, old.id))]

    def _book(self, reservation: Reservation) -> None:
        self.live[reservation.owner] += 1
        if reservation.attachments:
            self.attached[reservation.id] = reservation
        for grant in reservation.grants:
            book = self._devices.setdefault(grant.device, DeviceBook())
            book.version += 1
            if reservation.within is not None:
                book.within[reservation.id] = reservation.within
                if reservation.state is ReservationState.RELEASING:
                    book.releasing[reservation.id] = grant.bytes
                continue
            book.granted_bytes += grant.bytes
            self.booked[reservation.owner, grant.device] += grant.bytes
            book.standing_bytes += grant.bytes if reservation.request.standing else 0
            book.holders[reservation.id] = grant.bytes
            if reservation.bound:
                book.bound.add(reservation.id)
            if reservation.state is ReservationState.RELEASING:
                book.releasing[reservation.id] = grant.bytes
            if reservation.exclusive and not grant.beside:
                book.exclusive = reservation.id

    def _unbook(self, old: Reservation) -> None:
        self.releasing.pop(old.id, None)
        self.noticed.pop(old.id, None)
        self.standing.pop(old.id, None)
        self.attached.pop(old.id, None)
        if self.queued.pop(old.id, None) is not None:
            _count_down(self.waiting, old.owner, 1)
        if not old.booked:
            return
        _count_down(self.live, old.owner, 1)
        for grant in old.grants:
            book = self._devices[grant.device]
            book.version += 1
            book.releasing.pop(old.id, None)
            if book.within.pop(old.id, None) is not None:
                continue
            book.granted_bytes -= grant.bytes
            _count_down(self.booked, (old.owner, grant.device), grant.bytes)
            book.standing_bytes -= grant.bytes if old.request.standing else 0
            del book.holders[old.id]
            book.bound.discard(old.id)
            if book.exclusive == old.id:
                book.exclusive = None

    def set_leak(self, uuid: str, leaked_bytes: int) -> None:
        """Bytes on a device whose owner is gone."""
        book = self._devices.setdefault(uuid, DeviceBook())
        self.version += 1
        book.leaked_bytes = leaked_bytes
        book.version += 1

    def forget_devices(self, present: Container[str]) -> None:
        """Drop the books of devices that are gone, where nothing is on them."""
        for uuid in [each for each in self._devices if each not in present]:
            if self._devices[uuid].is_blank:
                del self._devices[uuid]

    def set_cordon(self, uuid: str, cordon: Cordon | None) -> None:
        """Cordon a device, or lift it; the empty UUID is the whole node."""
        self.version += 1
        if not uuid:
            self.drain = cordon
        elif cordon is None:
            self.cordons.pop(uuid, None)
        else:
            self.cordons[uuid] = cordon

    def due(self, now: Moment) -> list[Reservation]:
        """Leases to expire and ended ones to forget, each told once."""
        # By id: a deadline that moved away and back stands there twice.
        found: dict[str, Reservation] = {}
        while self._due and self._due[0][0] <= now.boottime:
            boottime, id_ = heapq.heappop(self._due)
            reservation = self.reservations.get(id_)
            if reservation is not None and _due_boottime(reservation) == boottime:
                found[id_] = reservation
        return list(found.values())

    def _trim(self) -> None:
        """Drop the deadlines that renewals moved, once they are most of what is kept."""
        if len(self._due) > 2 * len(self.reservations) + 64:
            moments = ((_due_boottime(each), id_) for id_, each in self.reservations.items())
            self._due = [(due, id_) for due, id_ in moments if due is not None]
            heapq.heapify(self._due)

    def next_due_boottime(self) -> float | None:
        """When `due` next has something to tell, at the earliest."""
        return self._due[0][0] if self._due else None


def _count_down(counter: Counter[Key], key: Key, count: int) -> None:
    counter[key] -= count
    if not counter[key]:
        del counter[key]


def _due_boottime(reservation: Reservation) -> float | None:
    """The moment, on this boot's clock, at which a reservation next changes by itself."""
    if reservation.queued or reservation.state is ReservationState.GRANTED:
        deadlines = [reservation.deadline]
        if reservation.notice is not None:
            deadlines.append(reservation.notice.deadline)
        return min((each.boottime for each in deadlines if each is not None), default=None)
    if not reservation.booked and reservation.ended is not None:
        return reservation.ended.boottime + ENDED_LISTED_SECONDS
    return None
