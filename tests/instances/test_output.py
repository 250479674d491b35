"""What engines printed, read back: whole lines, none twice, none left out."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gpud.instances.tree.output import OLDER_OUTPUT_NAME, OUTPUT_NAME, follow, tail
from tests.fakes.clock import FakeClock


def write(folder: Path, text: str) -> None:
    with (folder / OUTPUT_NAME).open("a") as file:
        file.write(text)


def test_the_tail_reaches_into_the_older_file(tmp_path: Path) -> None:
    (tmp_path / OLDER_OUTPUT_NAME).write_text("a\nb\n")
    write(tmp_path, "c\n")
    assert tail(tmp_path, 2) == ("b", "c")
    assert tail(tmp_path, 50) == ("a", "b", "c")
    assert tail(tmp_path / "nowhere", 5) == ()


async def test_following_through_half_lines_and_a_turned_file(tmp_path: Path) -> None:
    clock, over = FakeClock(), False
    write(tmp_path, "one\ntw")
    lines = follow(tmp_path, clock, 10, lambda: over)
    assert await anext(lines) == ("one",)

    async def following() -> tuple[str, ...]:
        waiting = asyncio.ensure_future(anext(lines))
        while not waiting.done():
            await asyncio.sleep(0)
            clock.advance(1)
        return waiting.result()

    write(tmp_path, "o\nthree\n")
    assert await following() == ("two", "three")
    write(tmp_path, "last of the old\n")
    (tmp_path / OUTPUT_NAME).rename(tmp_path / OLDER_OUTPUT_NAME)
    write(tmp_path, "first of the new\nno end")
    assert await following() == ("last of the old", "first of the new")
    over = True
    assert await following() == ("no end",)
    assert [rest async for rest in lines] == []
