"""Sums of files: computed once for as long as a file is the same, and never of half of one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from gpud.clock import SystemClock
from gpud.models.artifact import Artifact, ArtifactRefused, open_artifact
from gpud.models.sources import checksums
from gpud.models.sources.checksums import Checksums
from gpud.models.sources.jobs import Control, Jobs
from gpud.store import Row

OLD = 1_700_000_000


class Shelf:
    """A file, its sums, and the rows that would be stored."""

    def __init__(self, folder: Path, wall: float | None = None) -> None:
        self.folder = folder
        self.file = folder / "a.gguf"
        self.rows: list[Row] = []
        self.clock = SystemClock()
        later = wall if wall is not None else self.clock.now().wall + 10
        self.sums = Checksums(Jobs(self.clock, 2), self.rows.extend, lambda: later)

    def write(self, content: bytes) -> None:
        self.file.write_bytes(content)

    @property
    def seen(self) -> Artifact:
        with open_artifact("a.gguf", [self.folder]) as (artifact, _):
            return artifact

    async def sum(self) -> str:
        return await self.sums.of("a.gguf", self.seen, [self.folder], lambda _: None)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    made = Shelf(tmp_path)
    made.write(b"one")
    return made


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def test_a_sum_is_computed_once(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shelf.sums.known(shelf.file.stat()) is None
    assert await shelf.sum() == digest(b"one")
    assert shelf.sums.known(shelf.file.stat()) == digest(b"one")

    def never(*_: object) -> str:
        raise AssertionError("computed again")

    monkeypatch.setattr(checksums, "_sum", never)
    assert await shelf.sum() == digest(b"one")


async def test_it_outlives_the_daemon(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    await shelf.sum()
    other = Shelf(shelf.folder)
    other.sums.restore([(row.id, row.body or b"") for row in shelf.rows])
    other.sums.restore([("0-0", b"{"), ("0-1", b"[]")])  # what makes no sense is nothing
    assert other.sums.known(shelf.file.stat()) == digest(b"one")


@pytest.mark.parametrize(
    "change", ["content of the same size", "its time set back", "replaced", "longer"]
)
async def test_a_file_that_changed_has_another_sum(shelf: Shelf, change: str) -> None:
    os.utime(shelf.file, ns=(OLD, OLD))
    await shelf.sum()
    before = shelf.file.stat()
    if change == "replaced":
        other = shelf.folder / "other"
        other.write_bytes(b"two")
        os.utime(other, ns=(OLD, OLD))
        other.rename(shelf.file)
    else:
        shelf.write(b"two" if change != "longer" else b"longer")
    if change == "its time set back":
        os.utime(shelf.file, ns=(OLD, OLD))
        assert shelf.file.stat().st_mtime_ns == before.st_mtime_ns
        assert shelf.file.stat().st_size == before.st_size
        assert shelf.file.stat().st_ino == before.st_ino
    assert shelf.sums.known(shelf.file.stat()) is None
    assert await shelf.sum() == digest(shelf.file.read_bytes())


async def test_a_file_just_written_is_not_believed_to_stay(tmp_path: Path) -> None:
    """Within a tick of its filesystem's clock it could be written again, and nobody could tell."""
    shelf = Shelf(tmp_path, wall=SystemClock().now().wall)
    shelf.write(b"one")
    assert await shelf.sum() == digest(b"one")
    assert shelf.sums.known(shelf.file.stat()) is None
    assert shelf.rows == []


async def test_another_file_than_was_inspected_is_refused(shelf: Shelf) -> None:
    seen = shelf.seen
    shelf.write(b"another")
    with pytest.raises(ArtifactRefused, match="changed while"):
        await shelf.sums.of("a.gguf", seen, [shelf.folder], lambda _: None)


async def test_a_file_that_changes_while_it_is_read_is_refused(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, read = shelf.seen, os.preadv

    def meanwhile(descriptor: int, buffers: list[bytearray], at: int) -> int:
        count = read(descriptor, buffers, at)
        shelf.write(b"longer than it was")
        return count

    monkeypatch.setattr(os, "preadv", meanwhile)
    with pytest.raises(ArtifactRefused, match="changed while"):
        await shelf.sums.of("a.gguf", seen, [shelf.folder], lambda _: None)


async def test_a_disk_that_hangs_does_not_hang_the_load(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checksums, "STALL_SECONDS", 0.05)

    def hangs(descriptor: int, before: object, control: Control) -> str:
        control.pause(20.0)
        return ""

    monkeypatch.setattr(checksums, "_sum", hangs)
    with pytest.raises(TimeoutError):
        await shelf.sum()


def test_only_so_many_are_kept(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "MAX_KEPT", 2)
    made = []
    for name in "abc":
        path = shelf.folder / name
        path.write_text(name)
        shelf.sums.remember(path.stat(), digest(name.encode()))
        made.append(path)
    assert [shelf.sums.known(path.stat()) for path in made] == [
        None, digest(b"b"), digest(b"c")
    ]  # fmt: skip
    first = made[0].stat()
    assert shelf.rows[-1] == Row(kind="checksum", id=f"{first.st_dev}-{first.st_ino}", body=None)
