"""The real store on a disk that a test can fill, and behind a gate that it can shut."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from gpud.store import SqliteStore, _Pending

PATIENCE_SECONDS = 60.0


class CrampedStore(SqliteStore):
    """A store on a disk that tests fill and empty: while it is `full` the file may not grow.

    As on a real disk, the ballast's going makes room, unless there is none to be had at all.
    """

    def __init__(self, directory: Path) -> None:
        self.full = False
        self.room_without_ballast = True
        self.gate = threading.Event()
        self.gate.set()
        self.failed, self.recovered = threading.Event(), threading.Event()
        super().__init__(directory)

    def _commit(self, connection: sqlite3.Connection, batch: list[_Pending]) -> None:
        assert self.gate.wait(PATIENCE_SECONDS)
        relief = self.room_without_ballast and not self._ballast.exists()
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        limit = pages if self.full and not relief else 2**30
        connection.execute(f"PRAGMA max_page_count = {limit}").fetchone()
        super()._commit(connection, batch)

    def _make_ballast(self) -> None:
        if self.full:
            self._read_only_cause = "no room for the ballast: the disk is full"
            return
        super()._make_ballast()

    def _fail(self, batch: list[_Pending], cause: str) -> None:
        super()._fail(batch, cause)
        self.failed.set()

    def _try_to_recover(self, connection: sqlite3.Connection) -> None:
        super()._try_to_recover(connection)
        if not self.read_only_cause:
            self.recovered.set()
