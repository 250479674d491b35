"""The store's SQL: many rows in one statement, and the journal read back.

Each statement hands the interpreter to the busy loop and has to win it back: one a row kept a
batch waiting for longer than the disk did.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence

ROWS_PER_STATEMENT = 64
# One for each number of rows, of each of the store's three kinds of statement.
STATEMENTS_KEPT = 4 * ROWS_PER_STATEMENT

# Of the journal: sequence, wall, type, subject, body.
JournalRow = tuple[int, float, str, str, bytes]


def lines_of(
    connection: sqlite3.Connection, where: str, values: Sequence[object], *, newest_first: bool
) -> list[JournalRow]:
    """Journal lines; the last of `values` is how many at most. Raises sqlite3.Error."""
    order = "DESC" if newest_first else "ASC"
    return connection.execute(
        "SELECT sequence, wall, type, subject, body FROM events "  # noqa: S608 — `where` is ours
        f"WHERE {where} ORDER BY sequence {order} LIMIT ?",
        values,
    ).fetchall()


class Reading:
    """A connection for threads that read, opened by the first: one at a time."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def lines(
        self, where: str, values: Sequence[object], *, newest_first: bool
    ) -> list[JournalRow]:
        """As `lines_of`. Raises sqlite3.Error."""
        with self._lock:
            if self._connection is None:
                self._connection = self._connect()
            return lines_of(self._connection, where, values, newest_first=newest_first)

    def close(self) -> None:
        """No thread reads any more."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()


def execute(connection: sqlite3.Connection, sql: str, rows: Sequence[tuple[object, ...]]) -> int:
    """Run `sql` on all rows, which take the place of its `{}`; the last row's rowid, if inserted.

    Raises sqlite3.Error.
    """
    last = 0
    for start in range(0, len(rows), ROWS_PER_STATEMENT):
        chunk = rows[start : start + ROWS_PER_STATEMENT]
        place = f"({','.join('?' * len(chunk[0]))})"
        places = ",".join([place] * len(chunk))
        cursor = connection.execute(sql.format(places), [value for row in chunk for value in row])
        last = int(cursor.lastrowid or 0)
    return last
