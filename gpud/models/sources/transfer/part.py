"""A download on the disk while it is not whole: FILE.part, and beside it what its server said.

Under its own name a file is there only when it was verified: it is made durable and renamed then.
Whatever ends us before that leaves a part that can be gone on with, or nothing. A part is never
read as a model.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from gpud.models.sources.transfer.resuming import Kept

SUFFIX: Final = ".part"
_NOTE_SUFFIX: Final = ".part.json"
_MODE: Final = 0o600
_MAX_NOTE_BYTES: Final = 64 * 1024


class PartTaken(Exception):
    """Another gpud downloads the same file into the same folder."""


class Part:
    """One part, open and locked; every call blocks on the disk and raises OSError."""

    def __init__(self, place: Path, descriptor: int) -> None:
        self._place = place
        self._descriptor = descriptor
        self.size_bytes = os.fstat(descriptor).st_size

    def kept(self) -> Kept | None:
        """What is known of what is here; None: nothing that could be gone on with."""
        try:
            with _note(self._place).open("rb") as file:
                return msgspec.json.decode(file.read(_MAX_NOTE_BYTES), type=Kept)
        except (FileNotFoundError, msgspec.MsgspecError, ValueError):
            return None

    def begin(self, kept: Kept) -> None:
        """Begin anew, for what the server said just now.

        In this order, so that nothing of an earlier file is ever taken for one of this.
        """
        _note(self._place).unlink(missing_ok=True)
        os.ftruncate(self._descriptor, 0)
        self.size_bytes = 0
        with _note(self._place).open("wb") as file:
            file.write(msgspec.json.encode(kept))
            file.flush()
            os.fsync(file.fileno())

    def append(self, data: bytes) -> None:
        """Put more to it."""
        view = memoryview(data)
        while view:
            count = os.pwrite(self._descriptor, view, self.size_bytes)
            self.size_bytes += count
            view = view[count:]

    def content(self, chunk_bytes: int) -> Iterator[bytes]:
        """What is here, from the start."""
        at = 0
        while at < self.size_bytes:
            data = os.pread(self._descriptor, min(chunk_bytes, self.size_bytes - at), at)
            if not data:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            at += len(data)
            yield data

    def finish(self) -> None:
        """It is whole and verified: from now on it has its own name, whatever happens."""
        os.fsync(self._descriptor)
        _part(self._place).replace(self._place)
        _note(self._place).unlink(missing_ok=True)
        _sync(self._place.parent)

    def discard(self) -> None:
        """Give its bytes back; nothing of it is to be gone on with."""
        _note(self._place).unlink(missing_ok=True)
        os.ftruncate(self._descriptor, 0)
        self.size_bytes = 0

    def status(self) -> os.stat_result:
        """Of the open file, whatever its name is."""
        return os.fstat(self._descriptor)


@contextlib.contextmanager
def open_part(place: Path) -> Iterator[Part]:
    """The part of a file that is to lie at `place`; its folders are made.

    Raises OSError, and PartTaken.
    """
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = _locked(_part(place))
    try:
        part = Part(place, descriptor)
        try:
            yield part
        finally:
            if not part.size_bytes:
                remove_part(place)  # nothing came
    finally:
        os.close(descriptor)


def _locked(path: Path) -> int:
    """A descriptor of what lies there, locked. Raises OSError, and PartTaken.

    Between the opening and the lock another gpud may have finished what lay there, which has its
    own name since, or removed it: a lock of that keeps nobody off, and it is not ours to write.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        descriptor = os.open(path, flags, _MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_there(path, os.fstat(descriptor)):
                return descriptor
        except BlockingIOError as error:
            os.close(descriptor)
            raise PartTaken from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_there(path: Path, opened: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.lstat(), opened)
    except FileNotFoundError:
        return False


def keep_whole(place: Path, content: bytes) -> None:
    """Write a small file that is there as a whole or not at all, whatever happens."""
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = _part(place)
    with made.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    made.replace(place)
    _sync(place.parent)


def part_bytes(place: Path) -> int:
    """How much is here of a file that is not whole."""
    try:
        return _part(place).stat().st_size
    except OSError:
        return 0


def remove_part(place: Path) -> None:
    """The part and its note; nothing where there is none."""
    _note(place).unlink(missing_ok=True)
    _part(place).unlink(missing_ok=True)


def _part(place: Path) -> Path:
    return place.with_name(place.name + SUFFIX)


def _note(place: Path) -> Path:
    return place.with_name(place.name + _NOTE_SUFFIX)


def _sync(folder: Path) -> None:
    """Make a name in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
