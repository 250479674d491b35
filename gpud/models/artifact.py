"""Finds a model's file under the model roots and opens it without being led out of them.

Hub caches are farms of symbolic links, so links are followed; what they lead to must lie under a
root (`beneath.py`). The place is looked at before it is opened: only a regular file ever is, so a
fifo cannot hold the daemon, and no device is woken.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from gpud.models.beneath import Opener, best_opener

MAX_PATH_BYTES: Final = 4095  # the kernel's PATH_MAX, its NUL apart
MAX_NAME_BYTES: Final = 255
# Letters, digits and what model files are really called. No NUL (the kernel would cut the name
# there), no control characters, no name that begins like a flag.
_NAME = re.compile(r"[\w.][\w.+@=,~ -]*")


class ArtifactRefused(Exception):
    """No file that may be loaded lies at the path; the text is the problem in words.

    `missing`: nothing lies there at all. `path` is the file's as it was asked for, where it is
    known: of a model of many files it need not be the one that the model is named by.
    """

    def __init__(self, problem: str, *, missing: bool = False, path: str = "") -> None:
        super().__init__(problem)
        self.missing = missing
        self.path = path


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file as it was found. `path` is its real path; the rest tells one content from another.

    `ctime_ns` is of its inode: who writes to a file and sets its time back changes that all the
    same, as does who takes its name away and gives it back.
    """

    path: Path
    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int


@contextmanager
def open_artifact(
    path: str, roots: Sequence[Path], opener: Opener | None = None
) -> Iterator[tuple[Artifact, BinaryIO]]:
    """Open a model's file for reading; blocks on the disk.

    A relative `path` is looked up under each root in turn; an absolute one must lie under one.
    `opener` is how; by default the best that this kernel has. Raises ArtifactRefused.
    """
    opener = opener or best_opener()
    try:
        place = _find(path, roots, opener)
        try:
            artifact = _facts(place)
            # By the place that was looked at, not by its name: it is the same file for certain.
            descriptor = os.open(_own(place), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        finally:
            os.close(place)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        raise ArtifactRefused(_words(error, roots), missing=missing, path=path) from error
    except ArtifactRefused as refused:
        refused.path = path
        raise
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        yield artifact, file


def _find(path: str, roots: Sequence[Path], opener: Opener) -> int:
    """The place of the file. Raises OSError, ArtifactRefused."""
    check_path(path)
    if not roots:
        raise ArtifactRefused("no model roots are configured: set roots in [models]")
    missing: OSError | None = None
    for root, name in _candidates(path, roots):
        try:
            return opener(root, name)
        except (FileNotFoundError, NotADirectoryError) as error:
            missing = missing or error
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return _elsewhere(root / name, roots, opener)
    if missing is None:  # absolute, and under no root by its name
        return _elsewhere(Path(path), roots, opener)
    raise missing


def check_path(path: str) -> None:
    """Whether it may be a model's path at all, the disk unasked. Raises ArtifactRefused."""
    if not path or len(path) > MAX_PATH_BYTES:
        raise ArtifactRefused(f"is not a path of 1 to {MAX_PATH_BYTES} bytes")
    for part in path.removeprefix("/").split("/"):
        if part in {".", ".."}:
            raise ArtifactRefused(f"leaves the model roots: {part!r} is not accepted in a path")
        if not _NAME.fullmatch(part) or len(part.encode()) > MAX_NAME_BYTES:
            raise ArtifactRefused(f"has a part that is not a file name: {part[:80]!r}")
    if len(path.encode()) > MAX_PATH_BYTES:
        raise ArtifactRefused(f"is not a path of 1 to {MAX_PATH_BYTES} bytes")


def _candidates(path: str, roots: Sequence[Path]) -> list[tuple[Path, str]]:
    """Each root that may hold it, with the name that it would have there."""
    if not path.startswith("/"):
        return [(root, path) for root in roots]
    whole = Path(path)
    return [
        (root, str(whole.relative_to(root)))
        for root in roots
        if whole.is_relative_to(root) and whole != root
    ]


def _elsewhere(path: Path, roots: Sequence[Path], opener: Opener) -> int:
    """Where links lead from one root to another, or by an absolute path into their own.

    They are followed by name; what that finds is opened beneath its root like any other.
    """
    real = Path(os.path.realpath(path))
    for root in roots:
        real_root = Path(os.path.realpath(root))
        if real.is_relative_to(real_root) and real != real_root:
            return opener(real_root, str(real.relative_to(real_root)))
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def _own(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _facts(place: int) -> Artifact:
    status = os.fstat(place)
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "of an unknown kind")
        raise ArtifactRefused(f"is not a regular file but {kind}")
    if not status.st_nlink:
        raise ArtifactRefused("was removed while it was opened")
    if not status.st_size:
        raise ArtifactRefused("is empty")
    return Artifact(
        path=Path(_own(place)).readlink(),
        device=status.st_dev,
        inode=status.st_ino,
        size_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
    )


_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _words(error: OSError, roots: Sequence[Path]) -> str:
    if isinstance(error, FileNotFoundError):
        return "is missing under the model roots"
    if isinstance(error, PermissionError):
        return "cannot be read: permission denied; make it readable for the user gpud runs as"
    if error.errno == errno.EXDEV:
        return f"leaves the model roots ({', '.join(str(root) for root in roots)})"
    return f"cannot be opened: {error.strerror}"
