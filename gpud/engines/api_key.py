"""The key that an engine asks of its callers: read from its file, and handed to the engine.

A key is in no argv, no environment, no log and no record. The engine is given it as memory of its
own (a sealed memfd that it inherits): what was checked is what it reads.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from typing import BinaryIO, Final

MAX_FILE_BYTES: Final = 4096
# What a header can carry; long enough to be none that is guessed.
_KEY = re.compile(r"[\x21-\x7e]{16,512}")
_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


class KeyRefused(Exception):
    """The file holds no key that may be used; the text is the problem, and never the content."""


class ApiKey:
    """A key. Shown nowhere: only `reveal` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The key itself, for a header or the engine alone."""
        return self._text

    def __repr__(self) -> str:
        return "ApiKey(…)"


def read_key(path: str) -> ApiKey:
    """The first key of a file; blocks on the disk.

    One key a line, lines that begin with # apart. The file belongs to root or to the user that
    gpud runs as, and others may not read it. Raises KeyRefused.
    """
    try:
        with _opened(path) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise KeyRefused(f"cannot be read: {(error.strerror or str(error)).lower()}") from error
    if len(content) > MAX_FILE_BYTES:
        raise KeyRefused(f"is larger than {MAX_FILE_BYTES} bytes")
    return ApiKey(_first(content))


def _opened(path: str) -> BinaryIO:
    """Looked at before it is opened: a fifo would wait, and a device might do something."""
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        _check_rights(os.fstat(place))
        return open(f"/proc/self/fd/{place}", "rb", buffering=0)  # noqa: PTH123 — no path
    finally:
        os.close(place)


def _check_rights(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise KeyRefused("is not a regular file")
    if status.st_uid not in {0, os.geteuid()}:
        raise KeyRefused("belongs to another user: give it to root or to the user gpud runs as")
    if status.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise KeyRefused("is open to others: set its mode to 0600 or 0640")


def _first(content: bytes) -> str:
    lines = content.decode("ascii", errors="replace").splitlines()
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys or not _KEY.fullmatch(keys[0]):
        raise KeyRefused(
            "holds no key: write one line of 16 to 512 printable ASCII characters without spaces"
        )
    return keys[0]


def sealed(key: ApiKey) -> BinaryIO:
    """The key as a file that lies nowhere and that nobody can change, for an engine to inherit.

    It is in there twice: of a single key llama-server prints the last characters at its start, of
    several only how many they are. The caller closes it.
    """
    file = os.fdopen(
        os.memfd_create("gpud-api-key", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "r+b", 0
    )
    file.write(f"{key.reveal()}\n".encode() * 2)
    fcntl.fcntl(file.fileno(), fcntl.F_ADD_SEALS, _SEALS)
    return file
