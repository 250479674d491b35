"""The file: what is written is there after a restart, coarser with age, bounded, and mended."""

from __future__ import annotations

import random
import resource
import sqlite3
from pathlib import Path

import pytest

from gpud.telemetry.history.blocks import (
    COARSE,
    FINE,
    MIDDLE,
    SPANS,
    decoded,
    encoded,
    laid,
    of_rows,
    rolled,
    uncovered,
)
from gpud.telemetry.history.file import HistoryFile, HistoryUnwritable, Keep
from gpud.telemetry.history.ring import Packed
from gpud.units import MIB

T0 = 1_700_002_800  # an hour begins here
SPANS_KEPT = {FINE: 900.0, MIDDLE: 6 * 3600.0, COARSE: 28 * 86400.0}


def opened(
    folder: Path, *, max_bytes: int = 64 * MIB, free: int = 2**40, keep_free: int = 0
) -> HistoryFile:
    keep = Keep(spans=SPANS_KEPT, max_bytes=max_bytes, keep_free_bytes=keep_free)
    return HistoryFile(folder / "history.db", keep, lambda _: free)


def block(start: int, *, subject: str = "devices/A", length: int = 30, noise: int = 1) -> Packed:
    """Half a minute in which field 1 shows the time, and others noise."""
    luck = random.Random(start)
    rows = [
        (start + s, (float(start + s), *(luck.random() for _ in range(noise))))
        for s in range(length)
    ]
    return subject, start, encoded(of_rows(FINE, tuple(range(1, noise + 2)), rows))


def times(file: HistoryFile, step: int, subject: str = "devices/A") -> list[int]:
    rows = sorted(file.read(subject, [step], 0, 2e9), key=lambda row: row[1])
    return [time for _, _, body in rows for time in decoded(step, body).times]


def size_of(folder: Path, pattern: str = "*") -> int:
    """Of what is there; the log and its index are "*-*"."""
    return sum(path.stat().st_size for path in folder.glob(pattern))


def test_it_is_there_after_a_restart(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.write([block(T0), block(T0 + 60)], {"devices/A": "gpu0"})
    file.close()
    again = opened(tmp_path)
    assert again.contents().subjects == {"devices/A": "gpu0"}
    assert times(again, FINE) == [*range(T0, T0 + 30), *range(T0 + 60, T0 + 90)]
    assert again.read("devices/B", [FINE], 0, 2e9) == []
    again.close()


def test_a_block_that_was_begun_before_a_restart_is_added_to(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.write([block(T0, length=10)], {})
    late = [(T0 + s, (1.0,)) for s in (12, 13)]
    file.write([("devices/A", T0, encoded(of_rows(FINE, (1,), late)))], {})
    assert times(file, FINE) == [*range(T0, T0 + 10), T0 + 12, T0 + 13]
    # A clock that was set back: the newer counts.
    again = [(T0 + s, (1.0,)) for s in (5, 6)]
    file.write([("devices/A", T0, encoded(of_rows(FINE, (1,), again)))], {})
    ((_, _, body),) = file.read("devices/A", [FINE], 0, 2e9)
    told = decoded(FINE, body)
    assert told.times == [*range(T0, T0 + 10), T0 + 12, T0 + 13]
    assert told.columns[1].lasts == [*range(T0, T0 + 5), 1, 1, T0 + 7, T0 + 8, T0 + 9, 1, 1]
    file.close()


def test_coarser_steps_are_made_once_their_span_is_over(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.write([block(T0 + s) for s in range(0, 3900, 30)], {})
    file.roll_up(T0 + 3899)
    assert times(file, MIDDLE) == list(range(T0, T0 + 3600, 10))
    assert times(file, COARSE) == list(range(T0, T0 + 3600, 60))
    ((_, _, body),) = file.read("devices/A", [COARSE], 0, 2e9)
    column = decoded(COARSE, body).columns[1]
    assert list(column.counts) == [60] * 60
    assert (column.mins[1], column.maxs[1]) == (T0 + 60, T0 + 119)
    assert column.means[1] == T0 + 89.5
    size = file.used_bytes()
    file.roll_up(T0 + 3899)
    assert file.used_bytes() == size
    file.close()


def minutes(file: HistoryFile, subject: str = "devices/A") -> dict[int, int]:
    """How many readings of each minute anything tells, from T0."""
    rows = file.read(subject, SPANS, 0, 2e9)
    bodies = {(step, start): body for step, start, body in rows}
    blocks = (decoded(step, bodies[step, start]) for step, start in uncovered(bodies))
    told = rolled(laid(blocks), COARSE)
    return {time - T0: n for time, n in zip(told.times, told.columns[1].counts, strict=True)}


def test_what_was_made_under_a_wrong_clock_is_made_anew(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.write([block(T0 + s) for s in range(0, 120, 30)], {})
    file.roll_up(T0 + 2 * 3600)  # for a moment it was ahead
    assert times(file, COARSE) == [T0, T0 + 60]
    for start in range(120, 4200, 300):
        file.write([block(T0 + start + s) for s in range(0, 300, 30)], {})
        file.roll_up(T0 + start + 300)
        assert minutes(file) == dict.fromkeys(range(0, start + 300, 60), 60)
    assert times(file, MIDDLE)[:360] == list(range(T0, T0 + 3600, 10))
    assert times(file, COARSE) == list(range(T0, T0 + 3600, 60))
    file.close()


def test_a_clock_that_was_behind_costs_but_what_it_showed_twice(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.write([block(T0 + s) for s in range(0, 3600, 30)], {})
    day = T0 + 86400
    file.roll_up(T0 + 3600)
    file.age(day)
    assert file.contents().oldest == {COARSE: T0}
    for start in (T0 + 600, T0 + 2400):  # its minutes are all that is left of that hour
        again = [(start + s, (-1.0,)) for s in range(30)]
        file.write([("devices/A", start, encoded(of_rows(FINE, (1,), again)))], {})
    file.roll_up(day)
    assert times(file, COARSE) == list(range(T0, T0 + 3600, 60))
    ((_, _, body),) = file.read("devices/A", [COARSE], 0, 2e9)
    column = decoded(COARSE, body).columns[1]
    assert [at * 60 for at, last in enumerate(column.lasts) if last == -1] == [600, 2400]
    assert sorted(column.counts) == [30] * 2 + [60] * 58
    file.close()


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    file = opened(tmp_path)
    now = T0 + 8 * 3600
    file.write([block(T0 + s) for s in range(0, 8 * 3600, 30)], {})
    file.write([block(T0, subject="instances/i")], {})
    file.roll_up(now)
    file.age(now)
    oldest = file.contents().oldest
    assert oldest[FINE] == now - 900 - SPANS[FINE]
    assert oldest[MIDDLE] == now - 6 * 3600 - SPANS[MIDDLE]
    assert oldest[COARSE] == T0
    file.age(T0 + 40 * 86400)
    assert file.contents().subjects == {}
    file.write([block(T0 + 41 * 86400)], {"devices/A": "gpu0"})
    assert file.contents().subjects == {"devices/A": "gpu0"}
    file.close()


def test_it_keeps_within_its_size_and_the_finest_goes_first(tmp_path: Path) -> None:
    limit = 4 * MIB
    file = opened(tmp_path, max_bytes=limit)
    for hour in range(8):
        start = T0 + hour * 3600
        file.write([block(start + s, noise=24) for s in range(0, 3600, 30)], {})
        file.roll_up(start + 3600)
        assert size_of(tmp_path) <= limit
    oldest = file.contents().oldest
    assert oldest[COARSE] == T0
    assert oldest[FINE] > T0 + 3600
    file.close()


@pytest.mark.parametrize(
    ("subjects", "length"),
    [
        (12, 4200),  # an hour of ten seconds is more than there is room for
        (40, 900),  # as are five minutes of seconds
    ],
)
def test_a_full_file_tells_coarser_what_it_cannot_tell_finer(
    tmp_path: Path, subjects: int, length: int
) -> None:
    limit = 3 * MIB
    file = opened(tmp_path, max_bytes=limit)
    bodies = [block(T0 + s, noise=16)[2] for s in range(0, length, 30)]
    names = [f"instances/{at}" for at in range(subjects)]
    for at, body in enumerate(bodies, start=1):
        file.write([(name, T0 + at * 30 - 30, body) for name in names], {})
        if at % 10 == 0:
            file.roll_up(T0 + at * 30)
        assert size_of(tmp_path) <= limit
        assert size_of(tmp_path, "*-*") <= MIB
    for name in names:
        assert minutes(file, name) == dict.fromkeys(range(0, length, 60), 60)
    file.close()


def test_a_file_that_is_to_be_smaller_gives_back_the_rest(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.write([("devices/A", T0 + s, bytes(60_000)) for s in range(0, 6000, 30)], {})
    file.close()
    assert size_of(tmp_path) > 10 * MIB
    file = opened(tmp_path, max_bytes=4 * MIB)
    file.write([block(T0 + 6000)], {})
    assert size_of(tmp_path, "*-*") <= MIB
    file.close()
    assert size_of(tmp_path) <= 3 * MIB
    assert file.read("devices/A", [FINE], T0 + 6000, 2e9)[-1][1] == T0 + 6000
    file.close()


def test_a_file_that_is_none_is_moved_aside(tmp_path: Path) -> None:
    (tmp_path / "history.db").write_bytes(b"no database at all, " * 500)
    file = opened(tmp_path)
    file.write([block(T0)], {})
    assert file.aside == tmp_path / "history.db.unreadable"
    assert file.aside.read_bytes().startswith(b"no database")
    assert times(file, FINE) == list(range(T0, T0 + 30))
    file.close()


def test_a_file_that_rots_while_it_is_open_is_moved_aside(tmp_path: Path) -> None:
    file = opened(tmp_path)
    for start in range(T0, T0 + 6000, 30):
        file.write([block(start, noise=20)], {})
    file.close()
    path = tmp_path / "history.db"
    whole = bytearray(path.read_bytes())
    whole[8192:] = b"\xff" * (len(whole) - 8192)
    path.write_bytes(whole)
    file.write([block(T0 + 9000)], {})
    file.roll_up(T0 + 12000)
    assert times(file, FINE)
    assert file.aside is not None
    file.close()


@pytest.mark.parametrize("tables", [("other",), ("subjects", "other")])
def test_a_file_of_another_program_is_moved_aside_as_it_is(
    tmp_path: Path, tables: tuple[str, ...]
) -> None:
    with sqlite3.connect(tmp_path / "history.db") as connection:
        for name in tables:
            connection.execute(f"CREATE TABLE {name} (x)")
    connection.close()
    was = (tmp_path / "history.db").read_bytes()
    file = opened(tmp_path)
    file.write([block(T0)], {})
    assert file.aside is not None
    assert file.aside.read_bytes() == was
    assert times(file, FINE) == list(range(T0, T0 + 30))
    file.close()


def test_a_file_of_another_version_is_moved_aside(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.write([block(T0)], {})
    file.close()
    with sqlite3.connect(tmp_path / "history.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert file.contents().subjects == {}
    assert file.aside is not None
    file.close()


def test_a_block_that_cannot_be_read_is_a_gap(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.write([block(T0 + s) for s in range(0, 300, 30)], {})
    file.write([("devices/A", T0 + 60 + 300, b"rubbish")], {})
    file.roll_up(T0 + 700)
    assert times(file, MIDDLE) == list(range(T0, T0 + 300, 10))
    file.close()


def test_the_last_of_the_disk_is_the_stores(tmp_path: Path) -> None:
    file = opened(tmp_path, free=63 * MIB, keep_free=64 * MIB)
    with pytest.raises(HistoryUnwritable, match="63 MiB of its disk are left, and 64 MiB"):
        file.write([block(T0)], {})
    file.close()


def test_a_disk_that_takes_nothing_is_no_corruption(tmp_path: Path) -> None:
    (tmp_path / "history.db").mkdir()
    file = opened(tmp_path)
    with pytest.raises(HistoryUnwritable, match="unable to open"):
        file.write([block(T0)], {})
    assert file.aside is None
    (tmp_path / "history.db").rmdir()
    file.write([block(T0)], {})
    file.close()


def test_a_disk_that_is_full_in_the_middle_takes_more_later(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.write([block(T0)], {})
    size = max(path.stat().st_size for path in tmp_path.iterdir())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20_000, before[1]))
    try:
        with pytest.raises(HistoryUnwritable):
            file.write([block(T0 + s, noise=20) for s in range(30, 3000, 30)], {})
        assert times(file, FINE) == list(range(T0, T0 + 30))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    file.write([block(T0 + 30)], {})
    assert times(file, FINE) == list(range(T0, T0 + 60))
    assert file.aside is None
    file.close()
