"""Finds a model's file under the model roots and opens it without being led out of them.

Hub caches are farms of symbolic links, so links are followed, by name; what they lead to must lie
under a root. That real path is then opened directory by directory, following nothing: a link that
is put in its way meanwhile is refused. The file is opened without waiting, so a fifo cannot hold
the daemon, and only a regular file is handed on.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

MAX_PATH_CHARACTERS: Final = 1024
# Letters, digits and what model files are really called. No NUL (the kernel would cut the name
# there), no control characters, no name that begins like a flag.
_NAME = re.compile(r"[\w.][\w.+@=,~ -]{0,254}")


class ArtifactRefused(Exception):
    """No file that may be loaded lies at the path; the text is the problem in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file as it was found. `path` is its real path; the rest tells one content from another."""

    path: Path
    device: int
    inode: int
    size_bytes: int
    mtime_ns: int


@contextmanager
def open_artifact(path: str, roots: Sequence[Path]) -> Iterator[tuple[Artifact, BinaryIO]]:
    """Open a model's file for reading; blocks on the disk.

    A relative `path` is looked up under each root in turn; an absolute one must lie under one.
    Raises ArtifactRefused.
    """
    root, real = _resolve(path, roots)
    try:
        descriptor = _open_beneath(root, real.relative_to(root))
    except OSError as error:
        raise ArtifactRefused(_words(error)) from error
    try:
        artifact = _facts(real, os.fstat(descriptor))
        file = os.fdopen(descriptor, "rb", buffering=0)
    except BaseException:
        os.close(descriptor)
        raise
    with file:
        yield artifact, file


def _resolve(path: str, roots: Sequence[Path]) -> tuple[Path, Path]:
    """The root that holds the file, and the file, both without links."""
    parts = _parts(path)
    if not roots:
        raise ArtifactRefused("no model roots are configured: set roots in [models]")
    bases = [Path("/")] if path.startswith("/") else list(roots)
    candidates = [Path(os.path.realpath(base.joinpath(*parts))) for base in bases]
    # realpath of a loop of links is one of them; opening it says so.
    found = next((real for real in candidates if os.path.lexists(real)), None)
    real_roots = [Path(os.path.realpath(root)) for root in roots]
    for real in [found] if found is not None else candidates:
        for root in real_roots:
            if real.is_relative_to(root) and real != root:
                return root, real
    where = ", ".join(str(root) for root in roots)
    raise ArtifactRefused(f"leaves the model roots ({where})")


def _parts(path: str) -> list[str]:
    if not path or len(path) > MAX_PATH_CHARACTERS:
        raise ArtifactRefused(f"is not a path of 1 to {MAX_PATH_CHARACTERS} characters")
    parts = path.removeprefix("/").split("/")
    for part in parts:
        if part in {".", ".."}:
            raise ArtifactRefused(f"leaves the model roots: {part!r} is not accepted in a path")
        if not _NAME.fullmatch(part):
            raise ArtifactRefused(f"has a part that is not a file name: {part!r}")
    return parts


def _open_beneath(root: Path, relative: Path) -> int:
    """A descriptor of the file; no link on the way from the root is followed."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    directory = os.open(root, flags | os.O_PATH | os.O_DIRECTORY)
    try:
        for part in relative.parts[:-1]:
            inner = os.open(part, flags | os.O_PATH | os.O_DIRECTORY, dir_fd=directory)
            os.close(directory)
            directory = inner
        return os.open(
            relative.parts[-1],
            flags | os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY,
            dir_fd=directory,
        )
    finally:
        os.close(directory)


def _facts(real: Path, status: os.stat_result) -> Artifact:
    if not stat.S_ISREG(status.st_mode):
        raise ArtifactRefused(
            f"is not a regular file but {_KINDS.get(stat.S_IFMT(status.st_mode))}"
        )
    if not status.st_size:
        raise ArtifactRefused("is empty")
    return Artifact(
        path=real,
        device=status.st_dev,
        inode=status.st_ino,
        size_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
    )


_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _words(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "is missing: no such file under the model roots"
    if isinstance(error, PermissionError):
        return "cannot be read: permission denied; make it readable for the user gpud runs as"
    return f"cannot be opened: {error.strerror}"
