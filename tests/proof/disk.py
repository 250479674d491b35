"""A disk under a recorded program, and what a loss of power may leave on it.

POSIX and no more is promised: data is there once its file was synced, a name once its folder was.
All else may be there or not, in any order, and in pieces of a sector.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SECTOR_BYTES = 512
MODES = ("none", "all", "first", "some", "torn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One record of recorder.c."""

    op: str
    offset: int
    data: bytes
    path: str
    second: str = ""


def steps(log: bytes) -> Iterator[Step]:
    """The records, in the order in which the disk was told."""
    at = 0
    while at < len(log):
        end = log.index(b"\n", at)
        op, offset, length, *paths = log[at:end].decode().split(" ")
        size = int(length) if op == "W" else 0
        at = end + 1 + size
        yield Step(
            op=op,
            offset=int(offset),
            data=log[end + 1 : at],
            path=paths[0],
            second=paths[1] if len(paths) > 1 else "",
        )


@dataclass(slots=True)
class _File:
    """What is surely on the disk, and what was written since the last sync: (offset, data)."""

    synced: bytearray = field(default_factory=bytearray)
    # Data None: the file was cut or grown to the offset.
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)


class Disk:
    """The files below the recorded folder. Folders are names like others, with no content."""

    def __init__(self) -> None:
        self._names: dict[str, _File] = {}  # as the program sees them
        self._synced_names: dict[str, _File] = {}
        # Names made (or, with None, gone) since their folder was synced, in order.
        self._pending_names: list[tuple[str, _File | None]] = []

    def tell(self, step: Step) -> None:
        """What the program did next."""
        if step.op in "CM":
            self._name(step.path, _File())
        elif step.op == "W":
            self._names[step.path].pending.append((step.offset, step.data))
        elif step.op == "T":
            self._names[step.path].pending.append((step.offset, None))
        elif step.op == "U":
            self._name(step.path, None)
        elif step.op == "R":
            moved = self._names[step.path]
            self._name(step.second, moved)
            self._name(step.path, None)
        elif step.op == "S":
            self._sync(step.path)

    def _name(self, path: str, file: _File | None) -> None:
        self._pending_names.append((path, file))
        if file is None:
            self._names.pop(path, None)
        else:
            self._names[path] = file

    def _sync(self, path: str) -> None:
        file = self._names.get(path)
        if file is not None:
            for offset, data in file.pending:
                _put(file.synced, offset, data)
            file.pending.clear()
        kept = []
        for name, named in self._pending_names:
            if _folder(name) == path:
                _set(self._synced_names, name, named)
            else:
                kept.append((name, named))
        self._pending_names = kept

    def lose_power(self, mode: str, chance: random.Random) -> dict[str, bytes]:
        """What may be found after the loss: content by path, empty for a folder."""
        names = dict(self._synced_names)
        for name, file in _survivors(self._pending_names, mode, chance):
            _set(names, name, file)
        found: dict[str, bytes] = {}
        for name, file in names.items():
            content = bytearray(file.synced)
            for offset, data in _survivors(file.pending, mode, chance):
                if mode == "torn" and data:
                    _put_torn(content, offset, data, chance)
                else:
                    _put(content, offset, data)
            found[name] = bytes(content)
        # A name in a folder that is not there is not there either.
        return {
            name: content
            for name, content in found.items()
            if _folder(name) == "." or _folder(name) in found
        }


def _survivors(pending: list[T], mode: str, chance: random.Random) -> list[T]:
    if mode == "none":
        return []
    if mode == "first":
        return pending[: chance.randint(0, len(pending))]
    if mode == "some":
        share = chance.random()
        return [each for each in pending if chance.random() < share]
    return pending


def _set(names: dict[str, _File], name: str, file: _File | None) -> None:
    if file is None:
        names.pop(name, None)
    else:
        names[name] = file


def _folder(path: str) -> str:
    return path.rpartition("/")[0] or "."


def _put(content: bytearray, offset: int, data: bytes | None) -> None:
    end = offset + len(data or b"")
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if data is None:
        del content[offset:]
    else:
        content[offset:end] = data


def _put_torn(content: bytearray, offset: int, data: bytes, chance: random.Random) -> None:
    """Some of the sectors that the write touches get its data, the others stay as they were."""
    at = 0
    while at < len(data):
        size = min(len(data) - at, SECTOR_BYTES - (offset + at) % SECTOR_BYTES)
        if chance.random() < 0.5:
            _put(content, offset + at, data[at : at + size])
        at += size


def lay_out(content: dict[str, bytes], folders: set[str], root: Path) -> None:
    """The files of an image, as a program may open them."""
    root.mkdir()
    for name in sorted(content):
        if name in folders:
            (root / name).mkdir()
        else:
            (root / name).write_bytes(content[name])
