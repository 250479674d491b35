"""What engines printed: the bounded files that the shim writes, read back by line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

from gpud.clock import Clock

OUTPUT_NAME = "output.log"
OLDER_OUTPUT_NAME = "output.log.1"
_TAIL_BYTES = 256 * 1024
_FOLLOW_SECONDS = 0.2
_LINE_CHARS = 2000


def tail(directory: Path, lines: int) -> tuple[str, ...]:
    """The last lines that an engine printed, at most 2000 characters each; empty when none."""
    text = _last_text(directory, lines, _end(directory / OUTPUT_NAME)[0])
    return _lines(text)[-lines:] if lines > 0 else ()


async def follow(
    directory: Path, clock: Clock, lines: int, ended: Callable[[], bool]
) -> AsyncIterator[tuple[str, ...]]:
    """The last lines, then each whole line that comes after, none twice and none left out.

    Ends when nobody writes any more, or the file is gone.
    """
    path = directory / OUTPUT_NAME
    offset, inode = _end(path)
    complete, _, rest = _last_text(directory, lines, offset).rpartition(b"\n")
    yield _lines(complete)[-lines:]
    while True:
        over = ended()  # asked before the read: what was written until then is still told
        if not over:
            await clock.sleep(_FOLLOW_SECONDS)
        _, present = _end(path)
        if not present:
            return
        before = b""
        if present != inode:  # the shim has turned the file: first what the old one still got
            before = _read_from(directory / OLDER_OUTPUT_NAME, offset)
            offset, inode = 0, present
        chunk = _read_from(path, offset)
        offset += len(chunk)
        complete, _, rest = (rest + before + chunk).rpartition(b"\n")
        if complete:
            yield _lines(complete)
        if over and not chunk:
            if rest:
                yield _lines(rest)
            return


def _last_text(directory: Path, lines: int, end: int) -> bytes:
    """The newest file's text up to `end`, after the older file's where that is too few lines."""
    text = _last_bytes(directory / OUTPUT_NAME, end)
    if text.count(b"\n") > lines:
        return text
    older = directory / OLDER_OUTPUT_NAME
    return _last_bytes(older, _end(older)[0]) + text


def _lines(text: bytes) -> tuple[str, ...]:
    decoded = text.decode(errors="replace")
    return tuple(line[:_LINE_CHARS] for line in decoded.splitlines())


def _last_bytes(path: Path, end: int) -> bytes:
    start = max(0, end - _TAIL_BYTES)
    return _read_from(path, start)[: end - start]


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
