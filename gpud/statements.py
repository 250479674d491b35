"""Many rows in one SQL statement.

Each statement hands the interpreter to the busy loop and has to win it back: one a row kept a
batch waiting for longer than the disk did.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

ROWS_PER_STATEMENT = 64
# One for each number of rows, of each of the store's three kinds of statement.
STATEMENTS_KEPT = 4 * ROWS_PER_STATEMENT


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
