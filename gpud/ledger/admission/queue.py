"""Pure: who waits before whom, and who may pass.

Ageing: each class is worth `ageing_seconds` of waiting, so a request's place is that of its
arrival, moved ahead by its class. The order of two requests never changes while they wait, and
one that came more than three ageing spans later passes nobody: nobody starves.

Overtaking: for each that waits, devices are kept where it comes in first as the leases stand
(`keeping`). Another may take bytes of a kept device only if the one that waits comes in there no
later for it, whatever the order in which the holders leave; or if its lease ends within
`overtaking_seconds` of the other's arrival (it is then renewed no further while that one waits).
So passers move a moment by that span at most, and elsewhere devices are not left idle for it.
(Backfill with reservations, as batch schedulers have it, made for leases whose end is not known.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gpud.clock import Moment
from gpud.ledger.admission.policy import QueueSettings
from gpud.ledger.books import DeviceBook
from gpud.ledger.charge import Charge
from gpud.ledger.reservation import Deadline, Notice, Priority, Reservation, ReserveRequest
from gpud.units import MIB

# Sums of holders are followed in units of this; finer tells no more of models' sizes.
SUM_UNIT_BYTES = 16 * MIB
# With more holders than this on one device every sum is likely: assume that there is one.
MAX_HOLDERS = 64
# How many are protected from passers: on one device, and in all. Who is further back comes up.
HEADS_PER_DEVICE = 4
MAX_HEADS = 64


def order_key(
    request: ReserveRequest, created: Deadline, settings: QueueSettings
) -> tuple[bool, float, float]:
    """Smaller is earlier. Standing reservations come before all."""
    lead = request.priority - Priority.BATCH if settings.by_priority else 0
    # After a reboot those that came at an unknown time before it are told apart by the date.
    return (not request.standing, created.boottime - lead * settings.ageing_seconds, created.wall)


def longest_lead(settings: QueueSettings) -> float:
    """Who has waited so many seconds is behind nobody who comes now."""
    return (max(Priority) - min(Priority)) * settings.ageing_seconds


def in_order(queued: Iterable[Reservation], settings: QueueSettings) -> list[Reservation]:
    """All that wait, the next one first. Ties go by arrival."""
    return sorted(queued, key=lambda each: order_key(each.request, each.created, settings))


@dataclass(frozen=True, slots=True)
class Kept:
    """Bytes of a device that are kept for one that waits; `alone`: all of it."""

    uuid: str
    bytes: int
    alone: bool


class Line:
    """Those that wait, as the queue is walked in order, and what is kept for them."""

    def __init__(self, settings: QueueSettings, now: Moment) -> None:
        self._settings = settings
        self._now = now
        self._heads: dict[str, list[tuple[Reservation, Kept]]] = {}
        self._inside: dict[str, Reservation] = {}  # by standing reservation, who waits first
        self._walked = 0

    @property
    def is_full(self) -> bool:
        """Whether enough was kept: the rest of the queue keeps nothing yet."""
        return self._walked >= MAX_HEADS

    def has_enough(self, uuid: str) -> bool:
        """Whether a device is kept for as many as it may be."""
        return self.heads_of(uuid) >= HEADS_PER_DEVICE

    def heads_of(self, uuid: str) -> int:
        """For how many a device is kept."""
        return len(self._heads.get(uuid, ()))

    def keep(self, entry: Reservation, kept: Iterable[Kept]) -> None:
        """It cannot be granted yet, and others may not delay it on these devices."""
        self._walked += 1
        if entry.within is not None:
            self._inside.setdefault(entry.within, entry)
        for each in kept:
            heads = self._heads.setdefault(each.uuid, [])
            if len(heads) < HEADS_PER_DEVICE:
                heads.append((entry, each))

    def hold_up(
        self, terms: Charge, book: DeviceBook, request: ReserveRequest, size: int
    ) -> tuple[str, tuple[Notice, ...]]:
        """Why the request may not take bytes of a device yet, or whom it passes by doing so.

        Within a standing reservation it is first come, first served by place: nobody knows when
        instances end.
        """
        if request.within is not None:
            first = self._inside.get(request.within)
            return (f"kept for {first.name}, which waits before it" if first else ""), ()
        heads = self._heads.get(terms.uuid, ())
        if not heads:
            return "", ()
        passes: list[Notice] = []
        observed = terms.observed_bytes
        holders = [max(size, observed.get(id_, 0)) for id_, size in book.holders.items()]
        for head, kept in heads:
            alone = kept.alone or request.exclusive
            if alone or not never_delays(holders, terms.room_bytes, kept.bytes, size):
                until = head.created.boottime + self._settings.overtaking_seconds
                ttl = request.ttl_seconds
                if ttl is None or self._now.boottime + ttl > until:
                    return f"kept for {head.name}, which waits before it", ()
                left = until - self._now.boottime
                passes.append(Notice(by=head.id, deadline=Deadline.after(self._now, left)))
            # Those further back come in after it, beside its bytes or once it has gone.
            holders.append(kept.bytes)
        return "", tuple(passes)


def never_delays(holders: Iterable[int], room: int, need: int, size: int) -> bool:
    """Whether `need` bytes come in as early with `size` more taken, whoever of the holders leaves.

    It comes in when those left hold at most room − need; with `size` taken, at most
    room − need − size. So no sum of holders may lie between the two. Sums are followed in units,
    rounded up, and the interval is widened by what rounding may have added: never wrongly True.
    """
    sizes = list(holders)
    limit = room - need
    if size > limit or len(sizes) > MAX_HOLDERS:
        return False
    sums = 1  # bit n: some of them hold n units together
    for each in sizes:
        sums |= sums << -(-each // SUM_UNIT_BYTES)
    lowest = (limit - size) // SUM_UNIT_BYTES + 1
    highest = limit // SUM_UNIT_BYTES + len(sizes)
    return not (sums >> lowest) & ((1 << (highest - lowest + 1)) - 1)
