"""What a spawned process has open: its standard streams, and the files that it is handed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gpud.instances.tree.shim import FIRST_HANDED


@contextmanager
def above(files: Sequence[int]) -> Iterator[list[int]]:
    """Copies above the numbers that the child gets them by, so that none takes another's place.

    Raises OSError.
    """
    copies: list[int] = []
    try:
        for file in files:
            least = FIRST_HANDED + len(files)
            copies.append(fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, least))
        yield copies
    finally:
        for copy in copies:
            os.close(copy)


def handed(copies: Sequence[int]) -> list[tuple[int, ...]]:
    """The actions of a spawn that give the child those copies, from FIRST_HANDED on."""
    return [
        (os.POSIX_SPAWN_DUP2, copy, number) for number, copy in enumerate(copies, FIRST_HANDED)
    ]


def standard_streams(
    gate: int, log: Path
) -> list[tuple[int, ...] | tuple[int, int, str, int, int]]:
    """What the shim's descriptors 0, 1 and 2 are; its log stays empty unless it has a bug."""
    return [
        (os.POSIX_SPAWN_DUP2, gate, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
    ]
