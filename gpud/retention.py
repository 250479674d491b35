"""How much of the journal is kept: by size, the oldest go first. In the store's writer thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from gpud.failpoints import around

# What a line takes beside its texts: its number, its moment, its heads, its place in the index.
LINE_BYTES = 48
# A prune makes room for a while, and holds commits up for some 10 ms at the most.
ROOM_PART = 16
MAX_PRUNED = 2000

_SIZE = f"length(type) + 2 * length(subject) + length(body) + {LINE_BYTES}"


def line_bytes(type_: str, subject: str, body: bytes) -> int:
    """About what a line of the journal takes."""
    return len(type_) + 2 * len(subject) + len(body) + LINE_BYTES


class Retention:
    """Counts what is written; prunes once that is more than `max_bytes`, which may be set."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        # All up to here are gone; this life's prunes alone, set by the writer thread.
        self.pruned_through = 0
        self._bytes: int | None = None  # None: not reckoned yet
        self._goal = 0  # down to so many, while one prune after the other goes on

    def wrote(self, size_bytes: int) -> None:
        """So much has been committed."""
        if self._bytes is not None:
            self._bytes += size_bytes

    def prune(self, connection: sqlite3.Connection) -> None:
        """Let go of the oldest, if it is time. At most MAX_PRUNED at once: more at the next call.

        The numbers of what is gone are never given again. Raises sqlite3.Error.
        """
        if self._bytes is None:
            # Once in a life: 64 MiB that are in no cache yet take some tenths of a second.
            self._bytes = connection.execute(
                f"SELECT coalesce(sum({_SIZE}), 0) FROM events"  # noqa: S608 — ours
            ).fetchone()[0]
        goal = self._goal or self.max_bytes
        if self._bytes <= goal:
            self._goal = 0
            return
        self._goal = self.max_bytes - self.max_bytes // ROOM_PART
        oldest = connection.execute(
            f"SELECT sequence, {_SIZE} FROM events ORDER BY sequence LIMIT ?",  # noqa: S608
            (MAX_PRUNED,),
        ).fetchall()
        through, freed = _through(oldest, self._bytes - self._goal)
        with around("store.prune"):
            connection.execute("DELETE FROM events WHERE sequence <= ?", (through,))
        self.pruned_through = through
        self._bytes -= freed


def _through(oldest: Sequence[tuple[int, int]], wanted: int) -> tuple[int, int]:
    """Up to which number, and how many bytes that frees; the newest line of all stays."""
    through, freed = 0, 0
    for sequence, size in oldest[:-1] if len(oldest) < MAX_PRUNED else oldest:
        if freed >= wanted:
            break
        through, freed = sequence, freed + size
    return through, freed
