"""What engines printed: the bounded files that the shim writes, read back by line."""

from __future__ import annotations

import asyncio
import os
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from unicodedata import category

from gpud.clock import Clock
from gpud.engines.chatter import is_chatter
from gpud.instances.tree.shim import OUTPUT_LIMIT_BYTES
from gpud.instances.tree.times import start_of

OUTPUT_NAME = "output.log"
OLDER_OUTPUT_NAME = "output.log.1"
# What gpud writes between two engines of one instance.
MARK = "gpud: the engine is started again"
_TAIL_BYTES = 256 * 1024
_WHOLE_BYTES = OUTPUT_LIMIT_BYTES
_FOLLOW_SECONDS = 0.2
_LINE_CHARS = 2000
_LAST_WORDS = 5
_WORDS_CHARS = 300
# Escape sequences are dropped whole (CSI, OSC), then every other control character but tabs, C1
# included, and what has no shape of its own: what an engine printed commands nobody's terminal,
# and reads as it was written.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?")
_UNSEEN = frozenset({"Cc", "Cf"})  # general categories of Unicode: controls, formats


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which of it: at most the last so many `lines`, and only those since a moment."""

    lines: int | None = None
    since_wall: float | None = None


def tail(directory: Path, lines: int) -> tuple[str, ...]:
    """The last lines that an engine printed, at most 2000 characters each; empty when none.

    Here and below lines that it prints whenever gpud looks at it are left out.
    """
    text = _last_text(directory, lines, _end(directory / OUTPUT_NAME)[0])
    return _lines(text)[-lines:] if lines > 0 else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the output ended at some moment."""

    inode: int
    offset: int


def here(directory: Path) -> Place:
    """Where it ends now."""
    size, inode = _end(directory / OUTPUT_NAME)
    return Place(inode=inode, offset=size)


def tail_since(directory: Path, place: Place, lines: int) -> tuple[str, ...]:
    """The last lines that came after a place, the file having been turned meanwhile or not."""
    path, older = directory / OUTPUT_NAME, directory / OLDER_OUTPUT_NAME
    text, is_turned = _after(path, place)
    if is_turned:
        text = _after(older, place)[0] + text
    return _lines(text)[-lines:] if lines > 0 else ()


def mark(directory: Path, text: str) -> None:
    """Divide what comes from what was, while no engine writes; a full disk keeps no mark.

    It is a line of its own, though the engine before may have ended in the middle of one.
    """
    with suppress(OSError), (directory / OUTPUT_NAME).open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        is_whole = end == 0 or os.pread(file.fileno(), 1, end - 1) == b"\n"
        before = "" if is_whole else "\n"
        file.write(f"{before}{MARK}: {text}\n".encode())


def since_mark(lines: tuple[str, ...]) -> tuple[str, ...]:
    """Those that the present engine wrote."""
    marks = [at for at, line in enumerate(lines) if line.startswith(MARK)]
    return lines[marks[-1] + 1 :] if marks else lines


def last_words(directory: Path) -> str:
    """The last lines of the present engine, to be added to why it failed; empty when none."""
    lines = since_mark(tail(directory, _LAST_WORDS))
    return (
        f"; its last lines: {' | '.join(line[:_WORDS_CHARS] for line in lines)}" if lines else ""
    )


async def past(directory: Path, wanted: Wanted) -> AsyncIterator[tuple[str, ...]]:
    """What was printed until now, in parts. A last line that has no end yet is told as it is."""
    cursor = _Cursor(directory=directory)
    async for lines in cursor.past(wanted):
        yield lines
    if cursor.rest:
        yield _lines(cursor.rest)


async def follow(
    directory: Path, clock: Clock, wanted: Wanted, ended: Callable[[], bool]
) -> AsyncIterator[tuple[str, ...]]:
    """What was printed until now, then each whole line that comes after.

    None twice, and none left out unless 8 MiB come between two looks. Ends when nobody writes any
    more, or the file is gone.
    """
    cursor = _Cursor(directory=directory)
    async for lines in cursor.past(wanted):
        yield lines
    while True:
        over = ended()  # asked before the read: what was written until then is still told
        if not over:
            await clock.sleep(0 if cursor.has_moved else _FOLLOW_SECONDS)
        if not _end(directory / OUTPUT_NAME)[1]:
            return
        more = cursor.more()
        if more:
            yield more
        if over and not cursor.has_moved:
            if cursor.rest:
                yield _lines(cursor.rest)
            return


@dataclass(slots=True, kw_only=True)
class _Cursor:
    """Where a reader is: in which file, how far, and what it read of a line without an end."""

    directory: Path
    inode: int = 0
    offset: int = 0
    rest: bytes = b""
    has_moved: bool = False

    async def past(self, wanted: Wanted) -> AsyncIterator[tuple[str, ...]]:
        """Whole lines up to the end that there is now; the rest is kept."""
        self.offset, self.inode = _end(self.directory / OUTPUT_NAME)
        if wanted.since_wall is None:
            count = wanted.lines or 0
            text = _last_text(self.directory, count, self.offset)
            told = _lines(self._whole(text))
            yield told[-count:] if count else told
            return
        if wanted.lines is None:
            async for part in self._since(wanted.since_wall):
                yield part
            return
        last: deque[str] = deque(maxlen=wanted.lines)
        async for part in self._since(wanted.since_wall):
            last.extend(part)
        yield tuple(last)

    def more(self) -> tuple[str, ...]:
        """Whole lines of what came since the last look, or of some of it."""
        path, older = self.directory / OUTPUT_NAME, self.directory / OLDER_OUTPUT_NAME
        size, present = _end(path)
        chunk = b""
        if present == self.inode and size >= self.offset:
            chunk = _read_from(path, self.offset)
        elif _end(older)[1] == self.inode:  # the shim has turned the file
            chunk = _read_from(older, self.offset)
        if not chunk and present != self.inode:
            self.offset, self.inode = 0, present
            chunk = _read_from(path, 0)
        self.offset += len(chunk)
        self.has_moved = bool(chunk)
        return _lines(self._whole(chunk))

    async def _since(self, wall: float) -> AsyncIterator[tuple[str, ...]]:
        with _opened(self.directory) as files:
            for file in files:
                size = os.fstat(file).st_size
                at = await asyncio.to_thread(start_of, self.directory, file, wall)
                while at < size:
                    chunk = os.pread(file, min(_TAIL_BYTES, size - at), at)
                    if not chunk:
                        break
                    at += len(chunk)
                    yield _lines(self._whole(chunk))
                self.offset, self.inode = at, os.fstat(file).st_ino

    def _whole(self, text: bytes) -> bytes:
        """The text up to its last line end; what stands after it is kept for the next.

        A line without an end in sight is cut where it is too long to be told anyway.
        """
        complete, end, self.rest = (self.rest + text).rpartition(b"\n")
        if len(self.rest) > _TAIL_BYTES:
            complete, self.rest = complete + end + self.rest, b""
        return complete


@contextmanager
def _opened(directory: Path) -> Iterator[list[int]]:
    """Both files, the older first: held open, they stay what they are while they are read."""
    files: list[int] = []
    try:
        # The newer first: turned in between, it would be both.
        for name in (OUTPUT_NAME, OLDER_OUTPUT_NAME):
            with suppress(OSError):
                files.insert(0, os.open(directory / name, os.O_RDONLY | os.O_CLOEXEC))
        if len({os.fstat(file).st_ino for file in files}) < len(files):
            os.close(files.pop(0))
        yield files
    finally:
        for file in files:
            os.close(file)


def _last_text(directory: Path, lines: int, end: int) -> bytes:
    """The newest file's text up to `end`, after the older file's where that is too few lines.

    As much of it as there is, where most of it is what nobody is to see.
    """
    newest, older = directory / OUTPUT_NAME, directory / OLDER_OUTPUT_NAME
    text = b""
    for size in (_TAIL_BYTES, _WHOLE_BYTES):
        text = _last_bytes(newest, end, size)
        if len(_lines(text)) > lines:
            return text
        text = _last_bytes(older, _end(older)[0], size) + text
        if len(_lines(text)) > lines:
            return text
    return text


def _after(path: Path, place: Place) -> tuple[bytes, bool]:
    """The last bytes after a place; all of a file that is another one, and whether it is."""
    size, inode = _end(path)
    is_other = inode != place.inode or size < place.offset
    start = 0 if is_other else place.offset
    if size - start > _TAIL_BYTES:
        return _last_bytes(path, size), is_other
    return _read_from(path, start)[: size - start], is_other


def _lines(text: bytes) -> tuple[str, ...]:
    cleaned = (_clean(line)[:_LINE_CHARS] for line in text.decode(errors="replace").splitlines())
    return tuple(line for line in cleaned if not is_chatter(line))


def _clean(line: str) -> str:
    if line.isprintable():
        return line
    plain = _ESCAPES.sub("", line)
    return "".join(each for each in plain if each == "\t" or category(each) not in _UNSEEN)


def _last_bytes(path: Path, end: int, size: int = _TAIL_BYTES) -> bytes:
    """Whole lines, as far as they are not longer than all that is read."""
    start = max(0, end - size)
    if start == 0:
        return _read_from(path, 0, end)
    # With the byte before: a line that begins just there is whole.
    text = _read_from(path, start - 1, end - start + 1)
    return text[text.find(b"\n") + 1 or 1 :]


def _end(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_ino


def _read_from(path: Path, offset: int, size: int = _TAIL_BYTES) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except OSError:
        return b""
