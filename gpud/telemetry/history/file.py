"""The history on disk: blocks in an SQLite file of its own, apart from the store.

It may lose its last seconds (synchronous=NORMAL: no fsync for each transaction), it never takes
the last of the disk from the store, and what it cannot read it moves aside. Belongs to one thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import structlog

from gpud.telemetry.history import upkeep
from gpud.telemetry.history.blocks import FINE, SPANS
from gpud.telemetry.history.ring import Packed
from gpud.telemetry.history.upkeep import Transaction
from gpud.units import MIB, format_size

log = structlog.get_logger()
T = TypeVar("T")

SCHEMA_VERSION: Final = 1
# The write-ahead log and its index take so much at most: the log is folded into the file once it
# is half of that, and a transaction adds an eighth, or of the coarsest blocks a few.
_LOG_BYTES: Final = 1 * MIB
_FOLDED_BYTES: Final = _LOG_BYTES // 2
_PART_BYTES: Final = _LOG_BYTES // 8
# What of its room it fills before the oldest goes.
_FULL_SHARE: Final = 0.8
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_TABLES: Final = frozenset({"subjects", "blocks"})
_SCHEMA = """
CREATE TABLE subjects (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, alias TEXT NOT NULL);
CREATE TABLE blocks (
    id INTEGER PRIMARY KEY, step INTEGER NOT NULL, subject INTEGER NOT NULL,
    start INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE UNIQUE INDEX blocks_by_start ON blocks (step, subject, start);
"""


class HistoryUnwritable(Exception):
    """The file cannot be used now; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How long steps are kept, in seconds by their length, and how much the file may take."""

    spans: Mapping[int, float]
    max_bytes: int
    keep_free_bytes: int  # of its disk, for the store


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What there is: subjects with the alias each had last, when the oldest of a step begins."""

    subjects: Mapping[str, str]
    oldest: Mapping[int, int]


class HistoryFile:
    """`path` and what SQLite keeps beside it. Every method raises HistoryUnwritable."""

    def __init__(self, path: Path, keep: Keep, free_bytes: Callable[[Path], int]) -> None:
        """`free_bytes` tells what is left of the disk that a folder lies on."""
        self.keep = keep
        self.aside: Path | None = None  # where one came to lie that could not be read
        self._path = path
        self._free_bytes = free_bytes
        self._connection: sqlite3.Connection | None = None
        self._subjects: dict[str, tuple[int, str]] = {}

    def write(self, blocks: Sequence[Packed], aliases: Mapping[str, str]) -> None:
        """Add blocks of the finest step; a few in one transaction, which their size may allow."""
        free, kept = self._free_bytes(self._path.parent), self.keep.keep_free_bytes
        if free < kept:
            raise HistoryUnwritable(
                f"{format_size(free)} of its disk are left, and {format_size(kept)} are kept for "
                "the store"
            )
        for part in _parts(blocks, _PART_BYTES):
            self._with(partial(self._write, part, aliases))

    def roll_up(self, now: float) -> None:
        """Make the coarser blocks that are due."""
        self._with(lambda connection: upkeep.roll_up(connection, now, self._full_bytes))

    def age(self, now: float) -> None:
        """Let go what is older than it is to be kept."""
        self._with(lambda connection: upkeep.age(connection, self.keep.spans, now))

    def contents(self) -> Contents:
        """What there is in it."""
        return self._with(self._contents)

    def read(
        self, subject: str, steps: Iterable[int], begin: float, end: float
    ) -> list[tuple[int, int, bytes]]:
        """(step, beginning, bytes) of the blocks that reach into a span, as they were written."""

        def found(connection: sqlite3.Connection) -> list[tuple[int, int, bytes]]:
            id_ = self._subjects.get(subject, (0,))[0]
            rows = [
                row
                for step in steps
                for row in connection.execute(
                    "SELECT id, step, start, body FROM blocks "
                    "WHERE step = ? AND subject = ? AND start > ? AND start < ?",
                    (step, id_, begin - SPANS[step], end),
                )
            ]
            return [row[1:] for row in sorted(rows)]

        return self._with(found)

    def used_bytes(self) -> int:
        """Of the file, without what is free in it."""
        return self._with(upkeep.used_bytes)

    def close(self) -> None:
        """Fold in the log and let go of the file. Raises nothing."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # Opening, and what goes wrong.

    def _with(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with the file; one that proves corrupt is moved aside and begun anew."""
        try:
            try:
                return work(self._opened())
            except sqlite3.DatabaseError as error:
                if not _is_corrupt(error):
                    raise
                self._move_aside(str(error))
                return work(self._opened())
        except (sqlite3.Error, OSError) as error:
            raise HistoryUnwritable(str(error)) from error

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(connection)
                rows = connection.execute("SELECT name, id, alias FROM subjects").fetchall()
            except BaseException:
                connection.close()
                raise
            self._connection = connection
            self._subjects = {name: (id_, alias) for name, id_, alias in rows}
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        def pragma(name: str) -> int:
            return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

        version = pragma("user_version")
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = {name for (name,) in names}
        # Before anything of it is changed: another program may want it back.
        if tables and not (version == SCHEMA_VERSION and tables >= _TABLES):
            raise _OfAnother(version, tables)
        # Before the first page is written, or it has no effect.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL").fetchone()
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("PRAGMA synchronous = NORMAL").fetchone()
        page_bytes = pragma("page_size")
        pragma(f"journal_size_limit = {_FOLDED_BYTES}")
        pragma(f"wal_autocheckpoint = {_FOLDED_BYTES // page_bytes}")
        pragma(f"max_page_count = {self._room_bytes // page_bytes}")
        if not tables:
            connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
            )

    @property
    def _room_bytes(self) -> int:
        return max(_LOG_BYTES, self.keep.max_bytes - _LOG_BYTES)

    @property
    def _full_bytes(self) -> float:
        return self._room_bytes * _FULL_SHARE

    def _move_aside(self, cause: str) -> None:
        self.close()
        aside = self._path.with_name(f"{self._path.name}.unreadable")
        self._path.replace(aside)
        for suffix in ("-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        log.warning("history.unreadable", cause=cause, aside=str(aside))
        self.aside = aside

    # Within the thread.

    def _write(
        self, blocks: Sequence[Packed], aliases: Mapping[str, str], connection: sqlite3.Connection
    ) -> None:
        added: dict[str, tuple[int, str]] = {}
        upkeep.make_room(connection, self._full_bytes)
        with Transaction(connection):
            for subject, start, body in blocks:
                alias = aliases.get(subject, "")
                known = added.get(subject) or self._subjects.get(subject)
                if known is None or alias not in {"", known[1]}:
                    known = added[subject] = (upkeep.named(connection, subject, alias), alias)
                upkeep.put(connection, (FINE, known[0], start), body)
        self._subjects |= added
        upkeep.give_back(connection, self._room_bytes)

    def _contents(self, connection: sqlite3.Connection) -> Contents:
        # Ageing takes some away.
        rows = connection.execute("SELECT name, id, alias FROM subjects").fetchall()
        self._subjects = {name: (id_, alias) for name, id_, alias in rows}
        oldest = connection.execute("SELECT step, min(start) FROM blocks GROUP BY step")
        return Contents(
            subjects={name: alias for name, _, alias in rows}, oldest=dict(oldest.fetchall())
        )


class _OfAnother(sqlite3.DatabaseError):
    """Written by another program, or by another version of gpud: as good as unreadable."""

    sqlite_errorcode = sqlite3.SQLITE_NOTADB

    def __init__(self, version: int, tables: set[str]) -> None:
        super().__init__(
            f"its format is {version} and it has the tables {', '.join(sorted(tables))}; this "
            f"gpud knows format {SCHEMA_VERSION} of {' and '.join(sorted(_TABLES))}"
        )


def _parts(blocks: Sequence[Packed], most_bytes: float) -> Iterator[list[Packed]]:
    """Blocks in their order, so many bytes at once."""
    part: list[Packed] = []
    size = 0
    for block in blocks:
        if part and size + len(block[2]) > most_bytes:
            yield part
            part, size = [], 0
        part.append(block)
        size += len(block[2])
    if part:
        yield part


def _is_corrupt(error: sqlite3.Error) -> bool:
    # The lowest byte is the primary code; an error that sqlite3 makes itself has none.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _CORRUPT
