"""Pure: what a decision changed, to be made durable together."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import structs

from gpud.events import Cause, Event
from gpud.ledger.books import Cordon
from gpud.ledger.reservation import Reservation


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision changed. All of it becomes durable together."""

    reservations: tuple[Reservation, ...] = ()
    forgotten: tuple[str, ...] = ()
    leaks: tuple[tuple[str, int], ...] = ()
    cordons: tuple[tuple[str, Cordon | None], ...] = ()
    events: tuple[Event, ...] = ()

    def __bool__(self) -> bool:
        parts = (self.reservations, self.forgotten, self.leaks, self.cordons, self.events)
        return any(parts)

    def caused_by(self, cause: Cause | None) -> Change:
        """The same; events that name no call happened in the course of this one."""
        events = tuple(structs.replace(each, cause=each.cause or cause) for each in self.events)
        return structs.replace(self, events=events)


def joined(changes: Iterable[Change]) -> Change:
    """Several changes as one, in order."""
    parts = [change for change in changes if change]
    if len(parts) == 1:
        return parts[0]
    return Change(
        reservations=tuple(r for part in parts for r in part.reservations),
        forgotten=tuple(id_ for part in parts for id_ in part.forgotten),
        leaks=tuple(leak for part in parts for leak in part.leaks),
        cordons=tuple(cordon for part in parts for cordon in part.cordons),
        events=tuple(event for part in parts for event in part.events),
    )
