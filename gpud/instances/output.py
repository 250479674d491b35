"""What engines printed: the bounded files that the shim writes, read back by line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

from gpud.clock import Clock

OUTPUT_NAME = "output.log"
_TAIL_BYTES = 256 * 1024
_FOLLOW_SECONDS = 0.2
_LINE_CHARS = 2000


def tail(directory: Path, lines: int) -> tuple[str, ...]:
    """The last lines that an engine printed, at most 2000 characters each; empty when none."""
    text = b""
    for name in (OUTPUT_NAME, f"{OUTPUT_NAME}.1"):
        text = _last_bytes(directory / name) + text
        if text.count(b"\n") > lines:
            break
    return _lines(text)[-lines:] if lines > 0 else ()


async def follow(
    directory: Path, clock: Clock, lines: int, ended: Callable[[], bool]
) -> AsyncIterator[tuple[str, ...]]:
    """The last lines, then what comes after, until nobody writes any more or the file is gone."""
    path = directory / OUTPUT_NAME
    yield tail(directory, lines)
    offset, inode = _end(path)
    rest = b""
    while True:
        over = ended()  # asked before the read: what was written until then is still told
        if not over:
            await clock.sleep(_FOLLOW_SECONDS)
        _, present = _end(path)
        if not present:
            return
        if present != inode:
            offset, inode = 0, present
        chunk = _read_from(path, offset)
        offset += len(chunk)
        complete, _, rest = (rest + chunk).rpartition(b"\n")
        if complete:
            yield _lines(complete)
        if over and not chunk:
            return


def _lines(text: bytes) -> tuple[str, ...]:
    decoded = text.decode(errors="replace")
    return tuple(line[:_LINE_CHARS] for line in decoded.splitlines())


def _last_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            return file.read(_TAIL_BYTES)
    except OSError:
        return b""


def _end(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_ino


def _read_from(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(_TAIL_BYTES)
    except OSError:
        return b""
