"""A file of proc or sysfs, kept open: opening it anew costs five times what reading it does."""

from __future__ import annotations

import os
from pathlib import Path

READ_BYTES = 16384
# Bytes that a number takes, with the blanks before it.
_WIDEST = 40


class KeptFile:
    """Small, and made by the kernel at each read. Read by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._descriptor = -1

    def read(self) -> bytes:
        """What it says now, 16 KiB at most; empty where it cannot be read."""
        try:
            return self._read_open()
        except OSError:
            pass
        # It was not open, or what it was about is gone: a cgroup is made again, say.
        self.close()
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            return self._read_open()
        except OSError:
            self.close()
            return b""

    def close(self) -> None:
        """Let go of it; the next read opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _read_open(self) -> bytes:
        return os.pread(self._descriptor, READ_BYTES, 0)


def figure(text: bytes, name: bytes) -> int | None:
    """The number behind a name (with all that stands before the number), up to a blank or the end.

    None where there is none. Such files have fifty lines and more, of which few are wanted.
    """
    at = text.find(name)
    words = text[at + len(name) : at + len(name) + _WIDEST].split(None, 1) if at >= 0 else ()
    return int(words[0]) if words and words[0].isdigit() else None
