"""What a history file is kept in order by: coarser blocks are made, old ones go. SQL alone.

Of two blocks the one with the greater id was written later. A coarser block tells all that is
within it but what was written after it: then it is made anew.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from gpud.telemetry.history.blocks import (
    COARSE,
    FINE,
    MIDDLE,
    SPANS,
    Block,
    encoded,
    laid,
    readable,
    rolled,
    start_of,
)
from gpud.units import KIB

# step, subject, beginning
Where: TypeAlias = tuple[int, int, int]
_WIDER: Final = {FINE: MIDDLE, MIDDLE: COARSE}
# So many coarser blocks are made in one transaction, which may add half of what the log may take:
# of 40 fields that never rest an hour is some 80 KiB.
_MADE_AT_ONCE: Final = 4
# So much more than is too much goes, so that not each write waits for some to go; and so many
# pages are given back to the disk in one transaction.
_SPARE_BYTES: Final = 64 * KIB
_GIVEN_PAGES: Final = 64
# Where seconds and ten seconds that no coarser block tells take more than this share of the room,
# coarser ones are made of them early.
_FINER_SHARE: Final = 0.5

# ruff: noqa: S608 (what these are put together of is theirs alone)
_IS_TOLD = (
    "EXISTS (SELECT 1 FROM blocks AS wide WHERE wide.step = :wider "
    "AND wide.subject = fine.subject AND wide.start = fine.start / :span * :span "
    "AND wide.id > fine.id)"
)
_DUE = (
    "SELECT DISTINCT subject, start / :span * :span AS begin FROM blocks AS fine "
    f"WHERE step = :step AND start < :over AND NOT {_IS_TOLD} ORDER BY begin"
)
_TOLD = (
    f"SELECT id, length(body) FROM blocks AS fine WHERE step = :step AND {_IS_TOLD} ORDER BY start"
)
_OLDEST = "SELECT id, length(body) FROM blocks WHERE step = ? ORDER BY start"
_WITHIN = "FROM blocks WHERE step = ? AND subject = ? AND start >= ? AND start < ?"


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


def put(connection: sqlite3.Connection, where: Where, body: bytes) -> None:
    """Write a block, the newest of all; of one that is there, what this does not tell stays.

    One is there that a daemon began which ended within its span, or that was written before the
    clock was set back.
    """
    before = _there(connection, where)
    if before:
        step = where[0]
        body = encoded(rolled(laid(readable(step, [*before, body])), step))
    _write(connection, where, body)


def roll_up(connection: sqlite3.Connection, now: float, most_bytes: float) -> None:
    """Make each coarser block whose span is over and that is not there, or is out of date.

    Where room is short, the minutes of an hour that goes on are made of what is over of it.
    """
    for finer, step in _WIDER.items():
        is_short = finer == MIDDLE and _is_short(connection, most_bytes)
        due = _due(connection, finer, start_of(finer if is_short else step, now))
        for at in range(0, len(due), _MADE_AT_ONCE):
            make_room(connection, most_bytes)
            with Transaction(connection):
                for where in due[at : at + _MADE_AT_ONCE]:
                    _make(connection, finer, where)


def age(connection: sqlite3.Connection, spans: Mapping[int, float], now: float) -> None:
    """Let go what is older than its step is kept (seconds), and subjects that nothing tells of."""
    with Transaction(connection):
        for step, span in spans.items():
            connection.execute(
                "DELETE FROM blocks WHERE step = ? AND start < ?", (step, now - span - SPANS[step])
            )
        connection.execute("DELETE FROM subjects WHERE id NOT IN (SELECT subject FROM blocks)")


def make_room(connection: sqlite3.Connection, most_bytes: float) -> None:
    """Let go until no more than this is used: what coarser blocks tell, then the oldest minutes.

    What no coarser block tells stays, if it leaves room for minutes at all.
    """
    for finer, step in _WIDER.items():
        _let_go(connection, most_bytes, _TOLD, _terms(finer, step))
    if used_bytes(connection) > most_bytes and _is_short(connection, most_bytes):
        _fold(connection, most_bytes)
    for step in (COARSE, MIDDLE):
        _let_go(connection, most_bytes, _OLDEST, (step,))


def give_back(connection: sqlite3.Connection, most_bytes: float) -> None:
    """What is free in a file that may be smaller now, a part at a time: all that moves is logged.

    In a file of no more than this what is free is for what comes.
    """
    pages, free, size = _pages(connection)
    for _ in range(0, min(free, math.ceil(pages - most_bytes / size)), _GIVEN_PAGES):
        # Not execute: it ends at the first row, and this has one without columns for each page.
        connection.executescript(f"PRAGMA incremental_vacuum({_GIVEN_PAGES})")


def used_bytes(connection: sqlite3.Connection) -> int:
    """Of the file, without what is free in it."""
    pages, free, size = _pages(connection)
    return (pages - free) * size


def _pages(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """How many there are, how many of these are free, and the bytes of one."""
    names = ("page_count", "freelist_count", "page_size")
    pages, free, size = (int(connection.execute(f"PRAGMA {n}").fetchone()[0]) for n in names)
    return pages, free, size


def _terms(finer: int, step: int) -> dict[str, int]:
    return {"step": finer, "wider": step, "span": SPANS[step]}


def _due(connection: sqlite3.Connection, finer: int, over: float) -> list[Where]:
    """The blocks that are to be made of finer ones that begin before a moment; oldest first."""
    step = _WIDER[finer]
    found = connection.execute(_DUE, {**_terms(finer, step), "over": over}).fetchall()
    return [(step, subject, start) for subject, start in found]


def _make(connection: sqlite3.Connection, finer: int, where: Where) -> None:
    """Make a block of finer ones; if it is there, what they do not tell stays as it was told."""
    step, subject, start = where
    rows = connection.execute(
        f"SELECT body {_WITHIN} ORDER BY start",
        (finer, subject, start, start + SPANS[step]),
    )
    blocks: Iterable[Block] = readable(finer, (body for (body,) in rows))
    before = _there(connection, where)
    if before:
        # Finer ones may be gone, each with all that it told of some of the steps.
        made = (rolled((each,), step) for each in blocks)
        blocks = laid([*readable(step, before), *made])
    _write(connection, where, encoded(rolled(blocks, step)))


def _there(connection: sqlite3.Connection, where: Where) -> list[bytes]:
    found = connection.execute(
        "SELECT body FROM blocks WHERE (step, subject, start) = (?, ?, ?)", where
    )
    return [body for (body,) in found]


def _write(connection: sqlite3.Connection, where: Where, body: bytes) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO blocks (step, subject, start, body) VALUES (?, ?, ?, ?)",
        (*where, body),
    )


def _fold(connection: sqlite3.Connection, most_bytes: float) -> None:
    """Put ten seconds in the place of seconds until no more than this is used."""
    for where in _due(connection, FINE, math.inf):
        if used_bytes(connection) <= most_bytes:
            return
        step, subject, start = where
        with Transaction(connection):
            _make(connection, FINE, where)
            connection.execute(f"DELETE {_WITHIN}", (FINE, subject, start, start + SPANS[step]))


def _is_short(connection: sqlite3.Connection, most_bytes: float) -> bool:
    ((size,),) = connection.execute(
        "SELECT total(length(body)) FROM blocks WHERE step < ?", (COARSE,)
    ).fetchall()
    return bool(size > most_bytes * _FINER_SHARE)


def _let_go(
    connection: sqlite3.Connection,
    most_bytes: float,
    query: str,
    terms: Mapping[str, int] | tuple[int, ...],
) -> None:
    """The first of the blocks that `query` tells, until no more than this is used."""
    while (excess := used_bytes(connection) - most_bytes) > 0:
        rows = connection.execute(query, terms).fetchall()
        if not rows:
            return
        gone = list(_first(rows, excess + _SPARE_BYTES))
        with Transaction(connection):
            connection.executemany("DELETE FROM blocks WHERE id = ?", gone)


def _first(rows: Iterable[tuple[int, int]], size_bytes: float) -> Iterable[tuple[int]]:
    for id_, size in rows:
        if size_bytes <= 0:
            return
        yield (id_,)
        size_bytes -= size
