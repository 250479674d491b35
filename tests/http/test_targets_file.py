"""The file for file_sd, on a real disk."""

from __future__ import annotations

import os
from pathlib import Path

from gpud.http.targets_file import TargetsFile


class Site:
    def __init__(self, path: Path) -> None:
        self.targets = "[]"
        self.told: list[tuple[str, str]] = []
        self.file = TargetsFile(
            path, lambda: self.targets, lambda type_, why: self.told.append((type_, why))
        )


async def test_it_is_written_when_something_changed(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    site = Site(path)
    await site.file.look()
    assert path.read_text() == "[]\n"
    assert path.stat().st_mode & 0o777 == 0o644
    first = path.stat().st_ino
    await site.file.look()
    assert path.stat().st_ino == first
    site.targets = '[{"targets": ["127.0.0.1:1"]}]'
    with path.open() as open_before:
        await site.file.look()
        # Who reads it meanwhile reads the old one whole.
        assert open_before.read() == "[]\n"
    assert path.read_text() == f"{site.targets}\n"
    assert os.listdir(tmp_path) == ["targets.json"]
    assert site.told == []


async def test_a_folder_that_is_not_there_is_told_once_and_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "later" / "targets.json"
    site = Site(path)
    await site.file.look()
    await site.file.look()
    assert [type_ for type_, _ in site.told] == ["discovery.unwritable"]
    assert site.told[0][1] == (
        f"cannot write {path}: no such file or directory; Prometheus keeps what it has"
    )
    path.parent.mkdir()
    await site.file.look()
    assert path.read_text() == "[]\n"
    assert site.told[1:] == [("discovery.writable", f"{path} is written again")]


async def test_a_file_in_its_way_is_left(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    path.mkdir()
    site = Site(path)
    await site.file.look()
    assert [type_ for type_, _ in site.told] == ["discovery.unwritable"]
    assert os.listdir(tmp_path) == ["targets.json"]
