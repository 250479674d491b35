"""What a history file is kept in order by: coarser blocks are made, old ones go. SQL alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final

from gpud.telemetry.history.blocks import (
    COARSE,
    FINE,
    MIDDLE,
    SPANS,
    decoded,
    encoded,
    readable,
    rolled,
    start_of,
    until,
)

# So many of the oldest blocks go at once.
_EVICTED: Final = 256
_DUE = (
    "SELECT DISTINCT subject, start / :span * :span FROM blocks AS fine "
    "WHERE step = :finer AND start < :over AND NOT EXISTS (SELECT 1 FROM blocks AS wide "
    "WHERE wide.step = :step AND wide.subject = fine.subject "
    "AND wide.start = fine.start / :span * :span)"
)
_WITHIN = (
    "SELECT body FROM blocks WHERE step = ? AND subject = ? AND start >= ? AND start < ? "
    "ORDER BY start"
)


class Transaction:
    """All or nothing, as a statement."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._connection.execute("COMMIT")
        elif self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


def named(connection: sqlite3.Connection, name: str, alias: str) -> int:
    """The id of a subject, which is added if it is not there."""
    ((id_,),) = connection.execute(
        "INSERT INTO subjects (name, alias) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET alias = excluded.alias RETURNING id",
        (name, alias),
    ).fetchall()
    return int(id_)


def put(connection: sqlite3.Connection, where: tuple[int, int, int], body: bytes) -> None:
    """Write a block at (step, subject, beginning); one that is there is added to."""
    done = connection.execute(
        "INSERT INTO blocks (step, subject, start, body) VALUES (?, ?, ?, ?) "
        "ON CONFLICT DO NOTHING",
        (*where, body),
    )
    if done.rowcount:
        return
    # A part of it was written by a daemon that ended within the block's span.
    (before,) = connection.execute(
        "SELECT body FROM blocks WHERE (step, subject, start) = (?, ?, ?)", where
    ).fetchone()
    connection.execute(
        "UPDATE blocks SET body = ? WHERE (step, subject, start) = (?, ?, ?)",
        (_merged(where[0], before, body), *where),
    )


def roll_up(connection: sqlite3.Connection, now: float) -> None:
    """Make each coarser block whose span is over and that is not there."""
    for step, finer in ((MIDDLE, FINE), (COARSE, MIDDLE)):
        span = SPANS[step]
        asked = {"span": span, "finer": finer, "over": start_of(step, now), "step": step}
        for subject, start in connection.execute(_DUE, asked).fetchall():
            within = (finer, subject, start, start + span)
            bodies = (body for (body,) in connection.execute(_WITHIN, within))
            block = rolled(readable(finer, bodies), step)
            put(connection, (step, subject, start), encoded(block))


def age(connection: sqlite3.Connection, spans: Mapping[int, float], now: float) -> None:
    """Let go what is older than its step is kept (seconds), and subjects that nothing tells of."""
    for step, span in spans.items():
        connection.execute(
            "DELETE FROM blocks WHERE step = ? AND start < ?", (step, now - span - SPANS[step])
        )
    connection.execute("DELETE FROM subjects WHERE id NOT IN (SELECT subject FROM blocks)")


def make_room(connection: sqlite3.Connection, most_bytes: float) -> None:
    """The oldest of the finest steps go first, until no more than this is used."""
    for step in SPANS:
        while used_bytes(connection) > most_bytes:
            gone = connection.execute(
                "DELETE FROM blocks WHERE id IN "
                "(SELECT id FROM blocks WHERE step = ? ORDER BY start LIMIT ?)",
                (step, _EVICTED),
            )
            if not gone.rowcount:
                break


def used_bytes(connection: sqlite3.Connection) -> int:
    """Of the file, without what is free in it."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _merged(step: int, before: bytes, after: bytes) -> bytes:
    """One block of two of the same span; where both tell of a moment, the newer."""
    new = decoded(step, after)
    old = [until(block, new.times[0]) for block in readable(step, [before])]
    return encoded(rolled([*old, new], step))
