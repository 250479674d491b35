"""Durable state: SQLite in WAL mode with synchronous=FULL behind one writer thread.

Changes are appended to one FIFO; the thread commits all that wait in one transaction (a group of
64 costs 1.1 times one). What is committed is told to the loop in commit order, one call a batch.
The store never interprets what it holds.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import structlog

from gpud.errors import StateDirectoryRefused, StoreReadOnly
from gpud.failpoints import around
from gpud.migration import from_version_1
from gpud.retention import Retention, line_bytes
from gpud.statements import STATEMENTS_KEPT, JournalRow, Reading, execute, lines_of

log = structlog.get_logger()

SCHEMA_VERSION = 2
# Removed when the disk is full, so that releases can still be written: SQLite needs space even to
# delete. 4 MiB hold thousands of them.
BALLAST_BYTES = 4 * 1024 * 1024
RETRY_SECONDS = 1.0
EVENTS_KEPT_BYTES = 64 * 1024 * 1024
# A server under load takes a call in every few turns of the loop; an idle turn takes 10 µs.
QUIET_TURNS = 5
MAX_GATHERED = 64

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rows (
    kind TEXT NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    wall REAL NOT NULL, type TEXT NOT NULL, subject TEXT NOT NULL, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_subject ON events (subject, sequence);
"""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One record of durable state; body None removes it."""

    kind: str
    id: str
    body: bytes | None


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the journal, to be numbered by its commit."""

    wall: float
    type: str
    subject: str
    body: bytes


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """What one decision changes; all of it becomes durable, or none."""

    rows: tuple[Row, ...] = ()
    entries: tuple[Entry, ...] = ()


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """A write that is durable, with the sequences its entries got."""

    write: Write
    sequences: tuple[int, ...]


@dataclass(slots=True)
class _Pending:
    write: Write
    on_durable: Callable[[], None]
    done: asyncio.Future[Committed] | None = None
    sequences: list[int] = field(default_factory=list)


def _nothing() -> None:
    pass


class SqliteStore:
    """The store in one file of the state directory.

    `on_commit` is called on the loop with the commits of each batch, in order, before their
    futures end. `on_failure` is called on the loop when a batch failed: memory must be rebuilt
    from `read_rows`, for what was decided on top of the lost writes is void.
    """

    def __init__(self, directory: Path, events_max_bytes: int = EVENTS_KEPT_BYTES) -> None:
        self.retention = Retention(events_max_bytes)
        self._path = directory / "state.db"
        self._ballast = directory / "ballast"
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        # Appended in this turn of the loop; touched by the loop alone.
        self._gathered: list[_Pending] = []
        self._pending: list[_Pending] = []
        self._closing = False
        # Between a failure and the loop's hearing of it, what is appended was decided on memory
        # that is void: it must not be committed.
        self._void = False
        self._read_only_cause = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._on_commit: Callable[[Sequence[Committed]], None] = lambda _: None
        self._on_failure: Callable[[str], None] = lambda _: None
        self.timed: Callable[[], AbstractContextManager[None]] = nullcontext
        self.commit_count = 0
        self.write_count = 0
        # Counted on the loop: writes appended, and writes whose outcome was told.
        self._appended = self._told = self._told_before = 0
        try:
            self._reader = self._connect()
            self._migrate(self._reader)
            self._writer = self._connect()
            self._journal = Reading(self._connect)
        except sqlite3.Error as error:
            raise StateDirectoryRefused(
                f"cannot use {self._path}: {error}; mend or remove it, or set node.state_dir"
            ) from error

    @property
    def read_only_cause(self) -> str:
        """Why grants must be refused; empty while the store can be written."""
        return self._read_only_cause

    def start(
        self,
        on_commit: Callable[[Sequence[Committed]], None],
        on_failure: Callable[[str], None],
    ) -> None:
        """Begin to commit, telling the running loop."""
        self._loop = asyncio.get_running_loop()
        self._on_commit = on_commit
        self._on_failure = on_failure
        self._make_ballast()
        self._thread = threading.Thread(target=self._write_forever, name="store", daemon=True)
        self._thread.start()

    def append(
        self, write: Write, on_durable: Callable[[], None] = _nothing
    ) -> asyncio.Future[Committed]:
        """Queue a write behind all earlier ones; `on_durable` runs before its future ends."""
        assert self._loop is not None, "append before start"  # noqa: S101 — a programming error
        pending = _Pending(write, on_durable, self._loop.create_future())
        assert pending.done is not None  # noqa: S101 — for the type checker
        # Nobody may be left to read the outcome of a write whose caller went away.
        pending.done.add_done_callback(lambda done: done.cancelled() or done.exception())
        if not self._gathered:
            # One caller at a time has nobody to wait for.
            alone = self._appended == self._told
            self._loop.call_soon(self._gather, 1, 1 if alone else QUIET_TURNS)
        self._gathered.append(pending)
        self._appended += 1
        return pending.done

    def gets_on(self) -> bool:
        """Whether a write was settled since this was last asked, or none waits: for a watchdog."""
        moved = self._told != self._told_before
        self._told_before = self._told
        return moved or self._told == self._appended

    def close(self) -> None:
        """Commit what waits, then end the thread."""
        self._hand_over()
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(timeout=10)
        self._reader.close()
        self._journal.close()

    def _gather(self, seen: int, turns_left: int) -> None:
        """Hand over once so many turns of the loop brought no further write.

        Woken for each write, the writer would commit each apart wherever the disk is about as
        fast as the calls are: a commit, and the fight for the interpreter, cost more than a call.
        """
        count = len(self._gathered)
        turns_left = turns_left - 1 if count == seen else QUIET_TURNS
        if self._loop is None or turns_left == 0 or count >= MAX_GATHERED:
            self._hand_over()
        elif count:
            self._loop.call_soon(self._gather, count, turns_left)

    def _hand_over(self) -> None:
        with self._wake:
            self._pending += self._gathered
            self._gathered.clear()
            self._wake.notify()

    # Reading: at start, after a failure, and for the journal; never on the path of a grant.

    def read_rows(self, kind: str) -> list[tuple[str, bytes]]:
        """All durable records of a kind: (id, body)."""
        return self._reader.execute(
            "SELECT id, body FROM rows WHERE kind = ? ORDER BY id", (kind,)
        ).fetchall()

    def read_entries(
        self, where: str, parameters: Sequence[object], limit: int, *, newest_first: bool
    ) -> list[JournalRow]:
        """Journal lines (sequence, wall, type, subject, body); `where` is never a client's.

        On the loop: what looks at more than a few lines is for `read_journal`.
        """
        return lines_of(self._reader, where, (*parameters, limit), newest_first=newest_first)

    async def read_journal(
        self, where: str, parameters: Sequence[object], limit: int, *, newest_first: bool
    ) -> list[JournalRow]:
        """The same in a thread: a search that finds little reads all of the journal."""
        asked = (*parameters, limit)
        return await asyncio.to_thread(
            self._journal.lines, where, asked, newest_first=newest_first
        )

    # The writer thread.

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            isolation_level=None,
            check_same_thread=False,
            timeout=5,
            cached_statements=STATEMENTS_KEPT,
        )
        # The answers are fetched and compared: SQLite swallows an I/O error on a PRAGMA that
        # nobody reads, and with synchronous=NORMAL acknowledged writes are lost on power failure.
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        connection.execute("PRAGMA synchronous = FULL").fetchone()
        synchronous = connection.execute("PRAGMA synchronous").fetchone()[0]
        if (mode, synchronous) != ("wal", 2):
            raise StateDirectoryRefused(
                f"cannot use {self._path}: SQLite offers journal_mode={mode}, "
                f"synchronous={synchronous}; put node.state_dir on a local filesystem"
            )
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise StateDirectoryRefused(
                f"cannot use {self._path}: written by a newer gpud (format {version}, this one "
                f"knows {SCHEMA_VERSION}); upgrade gpud or name another node.state_dir"
            )
        if version < SCHEMA_VERSION:
            with around("store.schema"):
                connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA}")
                if version == 1:
                    rows = connection.execute("SELECT kind, id, body FROM rows").fetchall()
                    update = "UPDATE rows SET body = ? WHERE kind = ? AND id = ?"
                    connection.executemany(update, from_version_1(rows))
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                connection.execute("COMMIT")

    def _write_forever(self) -> None:
        connection = self._writer
        while True:
            with self._wake:
                while (self._void or not self._pending) and not self._closing:
                    # A read-only store looks by itself whether the disk takes writes again.
                    if not self._wake.wait(RETRY_SECONDS if self._read_only_cause else None):
                        break
                batch = [] if self._void else self._pending
                self._pending = self._pending if self._void else []
                closing = self._closing
            if batch:
                try:
                    self._commit_or_fail(connection, batch)
                except Exception as error:
                    # Whatever it was: nobody may wait for ever, and the next batch may succeed.
                    log.exception("store.bug")
                    self._fail(batch, str(error))
            elif closing:
                connection.close()
                return
            elif self._read_only_cause:
                self._try_to_recover(connection)

    def _commit_or_fail(self, connection: sqlite3.Connection, batch: list[_Pending]) -> None:
        try:
            self._commit(connection, batch)
        except sqlite3.Error as first:
            error: sqlite3.Error | None = first
            if self._ballast_removed():
                try:
                    self._commit(connection, batch)
                    error = None
                except sqlite3.Error as second:
                    error = second
            self._read_only_cause = str(first)
            if error is not None:
                self._fail(batch, str(error))
                return
        self.commit_count += 1
        self.write_count += len(batch)
        self._tell(lambda: self._finish(batch))
        try:
            lines = [entry for each in batch for entry in each.write.entries]
            self.retention.wrote(sum(line_bytes(e.type, e.subject, e.body) for e in lines))
            self.retention.prune(connection)
        except sqlite3.Error as problem:
            log.warning("store.prune_failed", error=str(problem))

    def _commit(self, connection: sqlite3.Connection, batch: list[_Pending]) -> None:
        with self.timed(), around("store.transaction"):
            connection.execute("BEGIN IMMEDIATE")
            try:
                _write_rows(connection, batch)
                _write_entries(connection, batch)
                with around("store.commit"):
                    connection.execute("COMMIT")
            except Exception:
                # Also what is no sqlite3.Error (a text that has no UTF-8): a transaction left
                # open would fail every batch after this one.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _fail(self, batch: list[_Pending], cause: str) -> None:
        with self._lock:
            self._void = True

        def tell() -> None:
            with self._wake:
                late = [*self._pending, *self._gathered]
                self._pending.clear()
                self._gathered.clear()
                self._void = False
                self._wake.notify()
            self._told += len(batch) + len(late)
            try:
                self._on_failure(cause)
            finally:
                for pending in (*batch, *late):
                    if pending.done is not None and not pending.done.done():
                        pending.done.set_exception(StoreReadOnly(cause=cause))

        self._tell(tell)

    def _finish(self, batch: list[_Pending]) -> None:
        with around("store.tell"):
            self._tell_callers(batch)

    def _tell_callers(self, batch: list[_Pending]) -> None:
        commits = [
            Committed(write=pending.write, sequences=tuple(pending.sequences)) for pending in batch
        ]
        self._told += len(batch)
        for pending in batch:
            try:
                pending.on_durable()
            except Exception:
                # The others of the batch are durable as well, and their callers wait.
                log.exception("store.bug")
        self._on_commit(commits)
        for pending, committed in zip(batch, commits, strict=True):
            if pending.done is not None and not pending.done.done():
                pending.done.set_result(committed)

    def _tell(self, call: Callable[[], None]) -> None:
        assert self._loop is not None  # noqa: S101 — set by start
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            log.warning("store.loop_gone")  # the daemon ends; what is committed stays committed

    def _try_to_recover(self, connection: sqlite3.Connection) -> None:
        """Writable again once the ballast is back and a transaction succeeds."""
        try:
            self._make_ballast()
            if not self._ballast.exists():
                return
            with around("store.recovery"):
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("PRAGMA user_version = 0")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._read_only_cause = str(error)
            return
        self._read_only_cause = ""
        log.info("store.writable_again")

    def _make_ballast(self) -> None:
        if self._ballast.exists() and self._ballast.stat().st_size == BALLAST_BYTES:
            return
        try:
            with around("store.ballast"), self._ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)
        except OSError as error:
            self._ballast_removed()
            self._read_only_cause = f"no room for the ballast: {error.strerror}"

    def _ballast_removed(self) -> bool:
        try:
            with around("store.relief"):
                self._ballast.unlink()
        except OSError:
            return False
        return True


def _write_rows(connection: sqlite3.Connection, batch: list[_Pending]) -> None:
    """The newest version of each record that the batch changes."""
    newest = {(row.kind, row.id): row.body for pending in batch for row in pending.write.rows}
    execute(
        connection,
        "INSERT INTO rows (kind, id, body) VALUES {} "
        "ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body",
        [(*key, body) for key, body in newest.items() if body is not None],
    )
    execute(
        connection,
        "DELETE FROM rows WHERE (kind, id) IN (VALUES {})",
        [key for key, body in newest.items() if body is None],
    )


def _write_entries(connection: sqlite3.Connection, batch: list[_Pending]) -> None:
    """The batch's lines in order, each write told the numbers that its lines got."""
    entries = [entry for pending in batch for entry in pending.write.entries]
    last = execute(
        connection,
        "INSERT INTO events (wall, type, subject, body) VALUES {}",
        [(e.wall, e.type, e.subject, e.body) for e in entries],
    )
    # One writer, AUTOINCREMENT: the lines of a transaction are numbered without a gap.
    numbers = iter(range(last - len(entries) + 1, last + 1))
    for pending in batch:
        pending.sequences = [next(numbers) for _ in pending.write.entries]
