"""Pure: whom to end so that a waiting request of a higher class comes in.

Only what is marked preemptible, of a lower class, and has had its minimum tenure; the lowest class
first, of that the idle, then the youngest, which lose least. RAM is not taken from anybody: what
lacks only RAM waits. What is ended may be at most `ratio` times what is gained. Since the class
must be strictly higher, two requests never end each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gpud.clock import Moment
from gpud.ledger.admission.admission import Admission
from gpud.ledger.admission.placement import Candidate
from gpud.ledger.admission.policy import PreemptionSettings
from gpud.ledger.admission.queue import Line
from gpud.ledger.books import Books, DeviceBook
from gpud.ledger.charge import Charge
from gpud.ledger.reservation import Reservation, ReservationState, Shape
from gpud.ledger.sight import Sight


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """Who would be ended on one device, so that a shape fits there."""

    uuid: str
    victims: tuple[Reservation, ...]
    bytes: int
    is_busy: bool

    @property
    def price(self) -> tuple[int, bool, int]:
        """What it costs: the highest class ended, whether anybody works there, the bytes."""
        highest = max((each.request.priority for each in self.victims), default=0)
        return (int(highest), self.is_busy, self.bytes)


class Preemption:
    """Chooses victims on the newest books."""

    def __init__(
        self, books: Books, sight: Sight, settings: PreemptionSettings, now: Moment
    ) -> None:
        self._books = books
        self._sight = sight
        self._settings = settings
        self._now = now

    def victims(
        self, entry: Reservation, admission: Admission, line: Line
    ) -> tuple[Reservation, ...] | None:
        """Whom to give notice for it; empty: it comes in once those who are going have gone.

        None: nobody's end would let it in, or it comes in by itself as early.
        """
        if not self._settings.on or entry.within is not None:
            return None
        if admission.limits.bars(entry.request):
            return None
        for shape in entry.request.shapes:
            victims = self._for_shape(entry, shape, admission, line)
            if victims:
                soon = self._now.boottime + self._settings.grace_seconds
                return victims if admission.moment(entry) > soon else None
            if victims is not None:
                return victims
        return None

    def _for_shape(
        self, entry: Reservation, shape: Shape, admission: Admission, line: Line
    ) -> tuple[Reservation, ...] | None:
        """Who has to go beside those that go already; None: it would not come in by that."""
        plans = []
        for sample, book in admission.preemptable(entry.request, shape, line):
            terms = self._sight.terms(sample, self._books)
            plan = self._plan(entry, shape, terms, book)
            if plan is not None:
                plans.append(plan)
        plans.sort(key=lambda plan: plan.price)
        chosen = plans[: shape.device_count]
        victims = tuple({v.id: v for plan in chosen for v in plan.victims}.values())
        if len(chosen) < shape.device_count or not self._is_worth(victims, shape):
            return None
        size, host = entry.request.host_bytes, self._sight.host()
        if not size:
            return victims
        if host is None:
            return None
        if any(plan.uuid == host.info.uuid for plan in chosen):
            size += shape.bytes
        ram = admission.host_candidate(entry.request, line, size)
        # Without its RAM it comes in nowhere, whoever goes.
        return victims if self._is_enough_ram(ram, size, entry, victims) else None

    def _is_worth(self, victims: Iterable[Reservation], shape: Shape) -> bool:
        """What they lose, on whatever device, is in proportion to what is gained."""
        lost = sum(
            grant.bytes for victim in victims for grant in victim.grants if not grant.beside
        )
        return lost <= self._settings.ratio * shape.bytes * shape.device_count

    def _is_enough_ram(
        self, ram: Candidate, size: int, entry: Reservation, victims: tuple[Reservation, ...]
    ) -> bool:
        """Whether the host has so much once they have gone, and those that are going."""
        ids = {victim.id for victim in victims}
        freed = sum(
            taken
            for id_, taken in self._books.device(ram.charge.uuid).holders.items()
            if id_ in ids or self._is_going(id_, entry)
        )
        barred = ram.rule or ram.obstacle or ram.room_bytes is None
        return not barred and size <= (ram.room_bytes or 0) + freed

    def _plan(
        self, entry: Reservation, shape: Shape, terms: Charge, book: DeviceBook
    ) -> _Plan | None:
        going = sum(size for id_, size in book.holders.items() if self._is_going(id_, entry))
        if entry.exclusive or book.exclusive is not None:
            lacking = book.granted_bytes - going
        else:
            # Below 0 where strangers took what was promised: that has to come back first.
            free = terms.room_bytes - terms.charged_bytes
            lacking = shape.bytes - free - going
        chosen: list[Reservation] = []
        for victim in self._candidates(entry, book, terms):
            if lacking <= 0:
                break
            chosen.append(victim)
            lacking -= book.holders[victim.id]
        if lacking > 0:
            return None
        spared = _spared(chosen, book, -lacking)
        victims = tuple(victim for victim in chosen if victim not in spared)
        ended = sum(book.holders[each.id] for each in victims)
        is_busy = any(terms.observed_bytes.get(each.id, 0) for each in victims)
        return _Plan(uuid=terms.uuid, victims=victims, bytes=ended, is_busy=is_busy)

    def _candidates(
        self, entry: Reservation, book: DeviceBook, terms: Charge
    ) -> list[Reservation]:
        found = [
            held
            for id_ in book.holders
            if self._may_end(held := self._books.reservations[id_], entry)
        ]
        found.sort(
            key=lambda held: (
                held.request.priority,
                terms.observed_bytes.get(held.id, 0) > 0,
                -held.created.boottime,
            )
        )
        return found

    def _may_end(self, held: Reservation, entry: Reservation) -> bool:
        granted = held.granted or held.created
        tenure = -granted.remaining_seconds(self._now)
        return (
            held.state is ReservationState.GRANTED
            and held.request.preemptible
            and held.notice is None
            and held.request.priority < entry.request.priority
            and tenure >= self._settings.min_tenure_seconds
        )

    def _is_going(self, id_: str, entry: Reservation) -> bool:
        """Whether its bytes are on their way to the entry already."""
        held = self._books.reservations[id_]
        noticed = held.notice is not None and held.notice.by == entry.id
        return noticed or held.state is ReservationState.RELEASING


def _spared(chosen: list[Reservation], book: DeviceBook, surplus: int) -> list[Reservation]:
    """Those of the chosen that need not go after all, the busiest first."""
    spared = []
    for victim in reversed(chosen):
        if book.holders[victim.id] <= surplus:
            spared.append(victim)
            surplus -= book.holders[victim.id]
    return spared
