"""The append-only event journal: who did what to what, why, and in the course of which call.

Read and followed here; every event is written by the decision it tells, in its transaction.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property

import msgspec

from gpud.errors import GpudError
from gpud.feed import Rota
from gpud.store import Committed, Entry, SqliteStore

# Of a reader who takes no more so many wait in memory.
_FOLLOW_PAGE = 64
# The newest are kept in memory for all who follow, at least so many; twice as many at most.
_RECENT = 512


@dataclass(kw_only=True, eq=False)
class EventsPruned(GpudError):
    """What a reader wants next is no longer in the journal."""

    reason = "EVENTS_PRUNED"

    after_sequence: int
    oldest_sequence: int
    newest_sequence: int

    def __str__(self) -> str:
        return (
            f"cannot go on after event {self.after_sequence}: the journal is kept from "
            f"{self.oldest_sequence} on, up to {self.newest_sequence}; begin with "
            f"after_sequence {self.oldest_sequence - 1}, and keep more with events.max_bytes"
        )


class Cause(msgspec.Struct, kw_only=True):
    """The call that set something off; `is_over` once that call has ended."""

    method: str  # as ReservationService/Release
    request_id: str
    caller: str
    is_over: bool = False


# Set by the gate about each method, and inherited by the tasks that it starts.
CAUSE: ContextVar[Cause] = ContextVar("cause")


def present_cause() -> Cause | None:
    """The call that is being served; a task that outlives its call is on its own."""
    cause = CAUSE.get(None)
    return None if cause is None or cause.is_over else cause


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened; `sequence` is 0 until it is durable."""

    wall: float
    type: str
    subject: str
    actor: str = "gpud"
    reason: str = ""
    details: Mapping[str, str] = msgspec.field(default_factory=dict)
    sequence: int = 0
    cause: Cause | None = None

    def entry(self, cause: Cause | None = None) -> Entry:
        """As the store holds it; `cause` is of one that names none."""
        told: list[object] = [self.actor, self.reason, dict(self.details)]
        cause = self.cause or cause
        if cause is not None:
            told.append((cause.method, cause.request_id, cause.caller))
        body = msgspec.json.encode(told)
        return Entry(wall=self.wall, type=self.type, subject=self.subject, body=body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which events; empty fields keep all. `type` keeps itself and its dotted children."""

    type: str = ""
    subject: str = ""
    since_wall: float | None = None
    until_wall: float | None = None  # those before it
    request_id: str = ""

    def keeps(self, event: Event) -> bool:
        """As `_where` has the store judge."""
        return (
            (not self.type or f"{event.type}.".startswith(f"{self.type}."))
            and (not self.subject or event.subject == self.subject)
            and (self.since_wall is None or event.wall >= self.since_wall)
            and (self.until_wall is None or event.wall < self.until_wall)
            and (not self.request_id or _request_id(event) == self.request_id)
        )


Row = tuple[int, float, str, str, bytes]


@dataclass(eq=False)
class _Line:
    """One of the newest, as it became durable; read once, by the first who follows."""

    row: Row

    @cached_property
    def event(self) -> Event:
        return _event(self.row)


class Journal:
    """Durable events, for reading back and for following."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._rota = Rota()
        self._recent: list[_Line] = []
        newest = store.read_entries("1", (), 1, newest_first=True)
        self.last_sequence = newest[0][0] if newest else 0

    def committed(self, commits: Sequence[Committed]) -> None:
        """Called by whoever hears of commits; wakes followers."""
        for commit in commits:
            for number, entry in zip(commit.sequences, commit.write.entries, strict=True):
                row = (number, entry.wall, entry.type, entry.subject, entry.body)
                self._recent.append(_Line(row))
        if self._recent and self._recent[-1].row[0] > self.last_sequence:
            self.last_sequence = self._recent[-1].row[0]
            if len(self._recent) > 2 * _RECENT:
                del self._recent[:-_RECENT]
            self._rota.wake()

    async def oldest(self) -> Event | None:
        """Where it begins; None: it is empty."""
        rows = await self._store.read_journal("1", (), 1, newest_first=False)
        return _event(rows[0]) if rows else None

    async def page(self, filter_: Filter, before_sequence: int | None, limit: int) -> list[Event]:
        """At most `limit` events below `before_sequence`, newest first."""
        where, parameters = _where(filter_)
        if before_sequence is not None:
            where, parameters = f"{where} AND sequence < ?", [*parameters, before_sequence]
        rows = await self._store.read_journal(where, parameters, limit, newest_first=True)
        return [_event(row) for row in rows]

    async def follow(self, filter_: Filter, after_sequence: int) -> AsyncGenerator[Event]:
        """Every event after a sequence, in order, then each new one as it becomes durable.

        0: from where the journal begins. Raises EventsPruned as soon as one is no longer kept.
        """
        seen = after_sequence
        # Of what has gone some is in memory still, for those alone who follow already.
        begins_after = self._store.retention.pruned_through
        while True:
            if seen >= self.last_sequence:
                await self._rota.wait()
            elif seen >= begins_after and self._recent and self._recent[0].row[0] <= seen + 1:
                line = self._recent[bisect_right(self._recent, seen, key=lambda each: each.row[0])]
                seen = line.row[0]
                if filter_.keeps(line.event):
                    yield line.event
            else:
                older = await self._older(filter_, seen)
                for event in older.events:
                    yield event
                seen = older.through_sequence

    async def _older(self, filter_: Filter, seen: int) -> _Older:
        """From the store; what nobody asked for is passed over there."""
        last = self.last_sequence
        where, parameters = _where(filter_)
        rows = await self._store.read_journal(
            f"{where} AND sequence > ?", [*parameters, seen], _FOLLOW_PAGE, newest_first=False
        )
        # Looked at afterwards: what was pruned meanwhile may have been missing above.
        oldest = await self.oldest()
        begins = oldest.sequence if oldest is not None else last + 1
        if seen and begins > seen + 1:
            raise EventsPruned(after_sequence=seen, oldest_sequence=begins, newest_sequence=last)
        events = [_event(row) for row in rows]
        is_all = len(rows) < _FOLLOW_PAGE
        through = max(seen, last) if is_all else rows[-1][0]
        return _Older(events=events, through_sequence=max(through, rows[-1][0] if rows else 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Older:
    events: list[Event]
    through_sequence: int


def _where(filter_: Filter) -> tuple[str, list[object]]:
    where: list[str] = ["1"]
    parameters: list[object] = []
    if filter_.type:
        where.append("(type = ? OR substr(type, 1, ?) = ?)")
        parameters += [filter_.type, len(filter_.type) + 1, f"{filter_.type}."]
    if filter_.subject:
        where.append("subject = ?")
        parameters.append(filter_.subject)
    if filter_.since_wall is not None:
        where.append("wall >= ?")
        parameters.append(filter_.since_wall)
    if filter_.until_wall is not None:
        where.append("wall < ?")
        parameters.append(filter_.until_wall)
    if filter_.request_id:
        where.append("json_extract(CAST(body AS TEXT), '$[3][1]') = ?")
        parameters.append(filter_.request_id)
    return " AND ".join(where), parameters


def event_of(entry: Entry) -> Event:
    """What an entry tells, before it has its number."""
    return _event((0, entry.wall, entry.type, entry.subject, entry.body))


def _event(row: Row) -> Event:
    sequence, wall, type_, subject, body = row
    # Written before calls were named, it has three parts.
    actor, reason, details, *named = msgspec.json.decode(body)
    cause = None
    if named:
        method, request_id, caller = named[0]
        cause = Cause(method=method, request_id=request_id, caller=caller, is_over=True)
    return Event(
        sequence=sequence,
        wall=wall,
        type=type_,
        subject=subject,
        actor=actor,
        reason=reason,
        details=details,
        cause=cause,
    )


def _request_id(event: Event) -> str:
    return event.cause.request_id if event.cause is not None else ""
