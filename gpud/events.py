"""The append-only event journal: who did what to what, and why.

Read and followed here; every event is written by the decision it tells, in its transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from gpud.store import Committed, Entry, SqliteStore

_FOLLOW_PAGE = 256


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened; `sequence` is 0 until it is durable."""

    wall: float
    type: str
    subject: str
    actor: str = "gpud"
    reason: str = ""
    details: Mapping[str, str] = msgspec.field(default_factory=dict)
    sequence: int = 0

    def entry(self) -> Entry:
        """As the store holds it."""
        body = msgspec.json.encode((self.actor, self.reason, dict(self.details)))
        return Entry(wall=self.wall, type=self.type, subject=self.subject, body=body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which events; empty fields keep all. `type` keeps itself and its dotted children."""

    type: str = ""
    subject: str = ""
    since_wall: float | None = None


class Journal:
    """Durable events, for reading back and for following."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._changed = asyncio.Event()
        newest = store.read_entries("1", (), 1, newest_first=True)
        self.last_sequence = newest[0][0] if newest else 0

    def committed(self, commits: Sequence[Committed]) -> None:
        """Called by whoever hears of commits; wakes followers."""
        last = max((seq for commit in commits for seq in commit.sequences), default=0)
        if last > self.last_sequence:
            self.last_sequence = last
            self._changed.set()
            self._changed = asyncio.Event()

    def page(self, filter_: Filter, before_sequence: int | None, limit: int) -> list[Event]:
        """At most `limit` events below `before_sequence`, newest first."""
        where, parameters = _where(filter_)
        if before_sequence is not None:
            where, parameters = f"{where} AND sequence < ?", [*parameters, before_sequence]
        rows = self._store.read_entries(where, parameters, limit, newest_first=True)
        return [_event(row) for row in rows]

    async def follow(self, filter_: Filter, after_sequence: int) -> AsyncIterator[Event]:
        """Every event after a sequence, in order, then each new one as it becomes durable."""
        seen = after_sequence
        where, parameters = _where(filter_)
        while True:
            changed, last = self._changed, self.last_sequence
            rows = self._store.read_entries(
                f"{where} AND sequence > ?", [*parameters, seen], _FOLLOW_PAGE, newest_first=False
            )
            for row in rows:
                seen = row[0]
                yield _event(row)
            if len(rows) < _FOLLOW_PAGE:
                seen = max(seen, last)
                await changed.wait()


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
    return " AND ".join(where), parameters


def _event(row: tuple[int, float, str, str, bytes]) -> Event:
    sequence, wall, type_, subject, body = row
    actor, reason, details = msgspec.json.decode(body)
    return Event(
        sequence=sequence,
        wall=wall,
        type=type_,
        subject=subject,
        actor=actor,
        reason=reason,
        details=details,
    )
