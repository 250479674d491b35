"""What goes of a file that is full, and in which order."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpud.telemetry.history import upkeep
from gpud.telemetry.history.blocks import COARSE, FINE, MIDDLE
from gpud.telemetry.history.file import HistoryFile, Keep
from gpud.units import KIB, MIB

HOUR = 3600
NEWEST = 30 * HOUR  # nothing coarser tells yet what was seen since
BODY = bytes(64 * KIB)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    path = tmp_path / "history.db"
    file = HistoryFile(path, Keep(spans={}, max_bytes=64 * MIB, keep_free_bytes=0), lambda _: 1)
    file.contents()
    file.close()
    made = sqlite3.connect(path, isolation_level=None)
    yield made
    made.close()


def left(connection: sqlite3.Connection) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {FINE: [], MIDDLE: [], COARSE: []}
    for step, start in connection.execute("SELECT step, start FROM blocks ORDER BY start"):
        found[step].append(start)
    return found


def test_what_is_told_coarser_goes_first_and_then_the_oldest(
    connection: sqlite3.Connection,
) -> None:
    hours = list(range(0, NEWEST, HOUR))
    fine = [NEWEST, NEWEST + 30, NEWEST + 300]
    for start in fine[:2]:
        upkeep.put(connection, (FINE, 1, start), BODY)
    for start in (*hours[-4:], NEWEST):
        upkeep.put(connection, (MIDDLE, 1, start), BODY)
    for start in hours:
        upkeep.put(connection, (COARSE, 1, start), BODY)
    # The clock was set back: this is no part of its hour yet.
    upkeep.put(connection, (MIDDLE, 1, 300), BODY)
    upkeep.put(connection, (FINE, 1, fine[2]), BODY)
    whole = upkeep.used_bytes(connection)
    # By how many blocks it is too much; one more goes each time, to spare.
    upkeep.make_room(connection, whole - 0.5 * len(BODY))
    assert left(connection) == {
        FINE: [fine[2]],
        MIDDLE: [300, *hours[-4:], NEWEST],
        COARSE: hours,
    }
    upkeep.make_room(connection, whole - 3.5 * len(BODY))
    assert left(connection) == {
        FINE: [fine[2]],
        MIDDLE: [300, hours[-1], NEWEST],
        COARSE: hours,
    }
    upkeep.make_room(connection, whole - 16.5 * len(BODY))
    told = left(connection)
    assert (told[FINE], told[MIDDLE]) == ([fine[2]], [300, NEWEST])
    assert told[COARSE] == hours[-len(told[COARSE]) :]
    assert upkeep.used_bytes(connection) <= whole - 16.5 * len(BODY)
