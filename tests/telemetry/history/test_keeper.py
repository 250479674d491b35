"""The thread: what waits for a disk is written once it takes it, and nobody waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpud.telemetry.history.blocks import FINE, MIDDLE, SPANS, encoded, of_rows
from gpud.telemetry.history.file import HistoryFile, HistoryUnwritable, Keep
from gpud.telemetry.history.keeper import STEADY_SECONDS, Batch, Keeper
from gpud.units import MIB

T0 = 1_700_002_800  # an hour begins here


class Told:
    """What a keeper told, as it came."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def __call__(self, cause: str, aside: str) -> None:
        self.said.put_nowait((cause, aside))

    async def next(self) -> tuple[str, str]:
        async with asyncio.timeout(60):
            return await self.said.get()


class Disk:
    """A file on a disk that a test fills and empties."""

    def __init__(self, folder: Path) -> None:
        self.free = 2**40
        self.told = Told()
        keep = Keep(
            spans={FINE: 900.0, MIDDLE: 21600.0, 60: 2.4e6},
            max_bytes=64 * MIB,
            keep_free_bytes=MIB,
        )
        self.file = HistoryFile(folder / "history.db", keep, lambda _: self.free)
        self.keeper = Keeper(self.file, 3, self.told)

    async def times(self) -> list[int]:
        """When the half minutes begin that are in the file."""
        rows = await self.keeper.ask(lambda file: file.read("a", [FINE], 0, 2e10))
        return sorted(start for _, start, _ in rows)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path)
    yield made
    made.keeper.close()


def batch(start: int) -> Batch:
    body = encoded(of_rows(FINE, (1,), [(start, (1.0,))]))
    return Batch(wall=start + SPANS[FINE], blocks=[("a", start, body)], aliases={})


async def test_a_full_disk_is_told_once_and_what_waits_is_written_later(disk: Disk) -> None:
    disk.keeper.start()
    disk.keeper.keep(batch(T0))
    assert await disk.times() == [T0]
    disk.free = 0
    for late in (30, 60, 90, 120):
        disk.keeper.keep(batch(T0 + late))
        assert await disk.times() == [T0]
    disk.free = 2**40
    disk.keeper.keep(batch(T0 + 150))
    # Three may wait: the oldest two went.
    assert await disk.times() == [T0, T0 + 90, T0 + 120, T0 + 150]
    cause, _ = await disk.told.next()
    assert "0 B of its disk are left, and 1 MiB are kept" in cause
    assert await disk.told.next() == ("", "")
    assert disk.told.said.empty()


async def test_a_disk_that_does_not_answer_holds_nobody_up(disk: Disk) -> None:
    disk.keeper.start()
    assert await disk.times() == []
    hangs, answers = threading.Event(), threading.Event()

    def hang(_: Path) -> int:
        hangs.set()
        answers.wait(60)
        return 2**40

    disk.file._free_bytes = hang
    disk.keeper.keep(batch(T0))
    await asyncio.to_thread(hangs.wait, 60)
    disk.keeper.patience_seconds = 60
    patient = asyncio.create_task(disk.times())
    await asyncio.sleep(0)  # it has asked
    disk.keeper.patience_seconds = 0.01
    asked: list[HistoryFile] = []
    with pytest.raises(TimeoutError):
        await disk.keeper.ask(asked.append)
    # While it hangs nobody else waits for it, and nothing piles up.
    disk.keeper.patience_seconds = 60
    for _ in range(3):
        with pytest.raises(TimeoutError):
            disk.times().send(None)
    assert len(disk.keeper._asks) == 1
    disk.keeper.keep(batch(T0 + 30))
    answers.set()
    assert await patient == await disk.times() == [T0, T0 + 30]
    assert not asked


async def test_who_no_longer_waits_for_a_disk_leaves_nothing_behind(disk: Disk) -> None:
    disk.keeper.start()
    hangs, answers = threading.Event(), threading.Event()

    def hang(_: HistoryFile) -> None:
        hangs.set()
        answers.wait(60)

    disk.keeper.patience_seconds = 60
    patient = asyncio.create_task(disk.keeper.ask(hang))
    await asyncio.to_thread(hangs.wait, 60)
    others = [asyncio.create_task(disk.times()) for _ in range(3)]
    await asyncio.sleep(0)
    assert len(disk.keeper._asks) == 3
    for other in others:
        other.cancel()
    await asyncio.wait(others)
    assert not disk.keeper._asks
    answers.set()
    await patient


async def test_what_cannot_be_read_is_told_with_where_it_lies_now(
    disk: Disk, tmp_path: Path
) -> None:
    (tmp_path / "history.db").write_bytes(b"rubbish" * 1000)
    disk.keeper.start()
    assert await disk.told.next() == ("", str(tmp_path / "history.db.unreadable"))
    disk.keeper.keep(batch(T0))
    assert await disk.times() == [T0]
    assert disk.told.said.empty()


async def test_a_file_that_cannot_be_opened_is_told_at_once(disk: Disk, tmp_path: Path) -> None:
    (tmp_path / "history.db").mkdir()
    disk.keeper.start()
    assert "unable to open" in (await disk.told.next())[0]
    with pytest.raises(HistoryUnwritable):
        await disk.times()


async def test_the_end_writes_what_waits(disk: Disk) -> None:
    disk.keeper.start()
    disk.keeper.keep(batch(T0))
    disk.keeper.close()
    assert [row[1] for row in disk.file.read("a", [FINE], 0, 2e10)] == [T0]
    disk.file.close()


async def test_a_clock_that_was_wrong_for_a_while_ages_nothing(disk: Disk) -> None:
    disk.keeper.start()
    disk.keeper.keep(batch(T0))
    await disk.times()
    years = 10 * 365 * 86400
    for wall in (T0 + years, T0 + years + 30, T0 + 60):
        disk.keeper.keep(batch(wall))
        await disk.times()
    assert T0 in await disk.times()
    # Once it has been steady for an hour, the old goes.
    for late in range(60, int(STEADY_SECONDS) + 1200, 600):
        disk.keeper.keep(batch(T0 + late))
        await disk.times()
    assert T0 not in await disk.times()
