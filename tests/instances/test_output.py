"""What engines printed, read back: whole lines, none twice, none left out, none that commands."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from gpud.instances.tree.output import (
    OLDER_OUTPUT_NAME,
    OUTPUT_NAME,
    Place,
    Wanted,
    follow,
    here,
    mark,
    past,
    since_mark,
    tail,
    tail_since,
)
from gpud.instances.tree.shim import (
    CHUNK_BYTES,
    OLDER_TIMES_FILE,
    OUTPUT_LIMIT_BYTES,
    TIMES_FILE,
    Output,
)
from tests.fakes.clock import FakeClock

NOW = 1_000_000.0


def write(folder: Path, text: str, at: float | None = None) -> None:
    """Append, with a stamp as the shim writes it where `at` is given."""
    with (folder / OUTPUT_NAME).open("a") as file:
        status = os.fstat(file.fileno())
        file.write(text)
    if at is not None:
        with (folder / TIMES_FILE).open("a") as stamps:
            stamps.write(f"{status.st_ino} {status.st_size} {at:.3f}\n")


def turn(folder: Path) -> None:
    """As the shim turns a file that is full."""
    (folder / OUTPUT_NAME).rename(folder / OLDER_OUTPUT_NAME)
    if (folder / TIMES_FILE).exists():
        (folder / TIMES_FILE).rename(folder / OLDER_TIMES_FILE)


async def told(folder: Path, wanted: Wanted) -> list[str]:
    return [line async for lines in past(folder, wanted) for line in lines]


async def since(folder: Path, seconds: float, lines: int | None = None) -> list[str]:
    return await told(folder, Wanted(lines=lines, since_wall=NOW + seconds))


def test_the_tail_reaches_into_the_older_file(tmp_path: Path) -> None:
    (tmp_path / OLDER_OUTPUT_NAME).write_text("a\nb\n")
    write(tmp_path, "c\n")
    assert tail(tmp_path, 2) == ("b", "c")
    assert tail(tmp_path, 50) == ("a", "b", "c")
    assert tail(tmp_path / "nowhere", 5) == ()


async def test_control_characters_are_stripped_wherever_it_is_read(tmp_path: Path) -> None:
    hostile = "\x1b[31mred\x1b[0m\t1\x00\x07 \x1b]0;title\x07x\x9b2Jy\n10%\r20%\r\n"
    write(tmp_path, hostile, NOW)
    clean = ("red\t1 x2Jy", "10%", "20%")
    assert tail(tmp_path, 5) == clean
    assert tuple(await told(tmp_path, Wanted(lines=5))) == clean
    assert tuple(await since(tmp_path, -5)) == clean


def test_what_would_show_a_line_as_another_is_stripped(tmp_path: Path) -> None:
    """Marks that turn the writing around, hide, or have no width."""
    write(tmp_path, "a\u202eevil\u200b\u2066 b\u00ad\ufeff\ttab é 模型 🙂\n")
    assert tail(tmp_path, 1) == ("aevil b\ttab é 模型 🙂",)


async def test_lines_are_bounded_and_need_no_end(tmp_path: Path) -> None:
    write(tmp_path, "x" * 5000 + "\nno end")
    assert await told(tmp_path, Wanted(lines=5)) == ["x" * 2000, "no end"]
    write(tmp_path, "y" * 10**6)
    assert all(len(line) <= 2000 for line in await since(tmp_path, -5))


async def test_since_a_moment_is_from_the_line_that_was_being_written_then(tmp_path: Path) -> None:
    write(tmp_path, "zero\n", NOW)
    write(tmp_path, "ten\nhalf of", NOW + 10)
    write(tmp_path, " twenty\nmore\n", NOW + 20)
    assert await since(tmp_path, -100) == ["zero", "ten", "half of twenty", "more"]
    assert await since(tmp_path, 9) == ["ten", "half of twenty", "more"]
    assert await since(tmp_path, 10.9) == ["ten", "half of twenty", "more"]  # to the second
    assert await since(tmp_path, 12) == ["half of twenty", "more"]
    assert await since(tmp_path, -100, lines=2) == ["half of twenty", "more"]
    assert await since(tmp_path, 30) == []
    assert await since(tmp_path / "nowhere", 0) == []


async def test_since_a_moment_reaches_into_the_older_file(tmp_path: Path) -> None:
    write(tmp_path, "a\n", NOW)
    write(tmp_path, "b\n", NOW + 10)
    turn(tmp_path)
    write(tmp_path, "c\n", NOW + 20)
    assert await since(tmp_path, 10) == ["b", "c"]
    assert await since(tmp_path, 15) == ["c"]


@pytest.mark.parametrize("stamps", [None, "", "nonsense", "1 2", "9999999 0 5.0\n"])
async def test_where_nobody_wrote_down_when_all_of_a_file_may_be_meant(
    stamps: str | None, tmp_path: Path
) -> None:
    write(tmp_path, "a\nb\n")
    if stamps is not None:
        (tmp_path / TIMES_FILE).write_text(stamps)
    assert await since(tmp_path, 0) == ["a", "b"]  # the file was written to since then
    written = (tmp_path / OUTPUT_NAME).stat().st_mtime
    later = Wanted(since_wall=written + 60)
    assert await told(tmp_path, later) == []


async def test_a_megabyte_since_a_moment_comes_whole_in_parts(tmp_path: Path) -> None:
    lines = [f"line {number}" for number in range(100_000)]
    write(tmp_path, "\n".join(lines) + "\n", NOW)
    parts = [part async for part in past(tmp_path, Wanted(since_wall=NOW))]
    assert len(parts) > 3
    assert [line for part in parts for line in part] == lines


class Follower:
    """Follows, with a clock that goes on by itself."""

    def __init__(self, folder: Path, wanted: Wanted) -> None:
        self.over = False
        self._clock = FakeClock()
        self.lines: AsyncIterator[tuple[str, ...]] = follow(
            folder, self._clock, wanted, lambda: self.over
        )

    async def next(self) -> tuple[str, ...]:
        waiting = asyncio.ensure_future(anext(self.lines))
        while not waiting.done():
            await asyncio.sleep(0)
            self._clock.advance(1)
        return waiting.result()

    async def until(self, last: str) -> list[str]:
        found: list[str] = []
        while not found or found[-1] != last:
            found += await self.next()
        return found


async def test_following_through_half_lines_and_a_turned_file(tmp_path: Path) -> None:
    write(tmp_path, "one\ntw")
    following = Follower(tmp_path, Wanted(lines=10))
    assert await anext(following.lines) == ("one",)
    write(tmp_path, "o\nthree\n")
    assert await following.next() == ("two", "three")
    write(tmp_path, "last of the old\n")
    turn(tmp_path)
    write(tmp_path, "first of the new\nno end")
    assert await following.until("first of the new") == ["last of the old", "first of the new"]
    following.over = True
    assert await following.until("no end") == ["no end"]
    with pytest.raises(StopAsyncIteration):
        await following.next()


async def test_following_since_a_moment_goes_on_where_that_ended(tmp_path: Path) -> None:
    write(tmp_path, "old\n", NOW)
    write(tmp_path, "new\nha", NOW + 10)
    following = Follower(tmp_path, Wanted(since_wall=NOW + 10))
    assert await following.next() == ("new",)
    write(tmp_path, "lf\n")
    assert await following.next() == ("half",)


async def test_who_follows_a_chatty_engine_misses_nothing_across_a_turn(tmp_path: Path) -> None:
    write(tmp_path, "begin\n")
    following = Follower(tmp_path, Wanted(lines=1))
    assert await anext(following.lines) == ("begin",)
    old, new = ([f"{name} {number}" for number in range(60_000)] for name in ("old", "new"))
    write(tmp_path, "\n".join(old) + "\n")  # more than is read in one go
    turn(tmp_path)
    write(tmp_path, "\n".join(new) + "\n")
    assert await following.until(new[-1]) == old + new


async def test_a_follower_whose_file_is_gone_ends(tmp_path: Path) -> None:
    write(tmp_path, "one\n")
    following = Follower(tmp_path, Wanted(lines=1))
    async with aclosing(following.lines):  # type: ignore[type-var]
        assert await anext(following.lines) == ("one",)
        (tmp_path / OUTPUT_NAME).unlink()
        with pytest.raises(StopAsyncIteration):
            await following.next()


def test_only_what_the_present_engine_wrote_speaks_of_it(tmp_path: Path) -> None:
    assert since_mark(("out of memory",)) == ("out of memory",)
    write(tmp_path, "out of memory\n")
    mark(tmp_path, "restart 1")
    write(tmp_path, "loaded\n")
    assert since_mark(tail(tmp_path, 10)) == ("loaded",)
    assert tail(tmp_path, 10)[1].endswith("restart 1")


def test_a_line_without_an_end_does_not_hide_the_mark_behind_it(tmp_path: Path) -> None:
    write(tmp_path, "loaded\nsrv  update: a line that was cut by SIGKI")
    mark(tmp_path, "restart 1")
    write(tmp_path, "loaded again\n")
    assert since_mark(tail(tmp_path, 10)) == ("loaded again",)
    assert tail(tmp_path, 10)[1] == "srv  update: a line that was cut by SIGKI"
    mark(tmp_path, "restart 2")
    assert "" not in tail(tmp_path, 10)


def test_what_came_since_a_place_is_found_in_a_turned_file_too(tmp_path: Path) -> None:
    assert tail_since(tmp_path, here(tmp_path), 9) == ()
    write(tmp_path, "one\ntwo\n")
    place = here(tmp_path)
    assert tail_since(tmp_path, place, 9) == ()
    write(tmp_path, "three\nfour\n")
    assert tail_since(tmp_path, place, 9) == ("three", "four")
    assert tail_since(tmp_path, place, 1) == ("four",)
    turn(tmp_path)
    assert tail_since(tmp_path, place, 9) == ("three", "four")
    write(tmp_path, "five\n")
    assert tail_since(tmp_path, place, 9) == ("three", "four", "five")
    turn(tmp_path)
    write(tmp_path, "six\n")
    assert tail_since(tmp_path, place, 9) == ("five", "six")


def test_where_nothing_was_written_there_is_no_mark(tmp_path: Path) -> None:
    mark(tmp_path / "gone", "restart 1")
    assert tail(tmp_path / "gone", 10) == ()


IDLE = "0.04.013.921 I srv  update_slots: all slots are idle"


async def test_what_comes_of_gpud_s_own_looking_is_not_shown(tmp_path: Path) -> None:
    """A day of looks every five seconds after the last thing that the engine had to say."""
    write(tmp_path, "model loaded\n" + f"{IDLE}\n" * 17_280 + "CUDA error\n")
    assert tail(tmp_path, 40) == ("model loaded", "CUDA error")
    assert await told(tmp_path, Wanted(lines=2)) == ["model loaded", "CUDA error"]
    turn(tmp_path)
    write(tmp_path, f"{IDLE}\n" * 17_280)
    assert tail(tmp_path, 40) == ("model loaded", "CUDA error")
    write(tmp_path, "chat: all slots are idle, said he\n")
    assert tail(tmp_path, 1) == ("chat: all slots are idle, said he",)


# Where the files begin and end.


def test_the_files_are_turned_at_the_end_of_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chance, output = random.Random(7), Output()
    sent = b"".join(
        b"%d %s\n" % (number, b"x" * chance.randrange(200)) for number in range(60_000)
    )
    newest, begins = tmp_path / OUTPUT_NAME, set[int]()
    at = 0
    while at < len(sent):
        size = chance.randrange(1, CHUNK_BYTES)
        output.write(sent[at : at + size])
        at += size
        inode = newest.stat().st_ino
        if inode not in begins:
            begins.add(inode)
            first = newest.read_bytes()[:210].partition(b"\n")[0]
            assert sent.startswith(first) or b"\n" + first in sent
            assert first[:1].isdigit()
    older = tmp_path / OLDER_OUTPUT_NAME
    assert len(begins) >= 2
    assert older.read_bytes().endswith(b"\n")
    assert sent.endswith(older.read_bytes() + newest.read_bytes())
    for path in (older, newest):
        assert path.stat().st_size <= OUTPUT_LIMIT_BYTES
    assert older.stat().st_size > OUTPUT_LIMIT_BYTES - 3 * CHUNK_BYTES


def test_a_line_without_an_end_is_cut_rather_than_the_files_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output = Output()
    for _ in range(2 * OUTPUT_LIMIT_BYTES // CHUNK_BYTES):
        output.write(b"x" * CHUNK_BYTES)
    for name in (OUTPUT_NAME, OLDER_OUTPUT_NAME):
        assert 0 < (tmp_path / name).stat().st_size <= OUTPUT_LIMIT_BYTES


@pytest.mark.parametrize("shift", range(12))
async def test_what_is_read_of_a_long_output_begins_with_a_whole_line(
    tmp_path: Path, shift: int
) -> None:
    lines = [f"line {number:05}" for number in range(40_000)]
    write(tmp_path, "y" * shift + "\n" + "\n".join(lines) + "\n")
    for found in (await told(tmp_path, Wanted()), list(tail(tmp_path, 25_000))):
        assert len(found) > 10_000
        assert found == lines[-len(found) :]
    place = Place(inode=(tmp_path / OUTPUT_NAME).stat().st_ino, offset=0)
    last = list(tail_since(tmp_path, place, 30_000))
    assert last == lines[-len(last) :]
