"""When engines wrote what they wrote: the stamps that the shim keeps beside their output."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gpud.instances.tree.shim import OLDER_TIMES_FILE, STAMP_SECONDS, TIMES_FILE

# A line that began before the moment is looked for so far back.
_LINE_BYTES: Final = 64 * 1024


def start_of(directory: Path, output: int, since_wall: float) -> int:
    """Where in an open output file the first line stands that was written since then.

    To the second: what was written up to a second before may be among it. The end of the file
    where nothing was; its start where nobody wrote down when. Blocks on the disk.
    """
    status = os.fstat(output)
    if status.st_mtime < since_wall:
        return status.st_size
    stamps = list(_stamps(directory, status.st_ino))
    after = (offset for offset, wall in stamps if wall > since_wall - STAMP_SECONDS)
    offset = next(after, status.st_size if stamps else 0)
    return _line_start(output, min(offset, status.st_size))


def _stamps(directory: Path, inode: int) -> Iterator[tuple[int, float]]:
    """(offset, wall seconds) of one output file, in their order."""
    for name in (OLDER_TIMES_FILE, TIMES_FILE):
        try:
            text = (directory / name).read_bytes()
        except OSError:
            continue
        for line in text.splitlines():
            fields = line.split()
            # The last may be half there.
            if len(fields) == 3 and fields[0] == b"%d" % inode:
                yield int(fields[1]), float(fields[2])


def _line_start(output: int, offset: int) -> int:
    """The start of the line that stands there."""
    first = max(0, offset - _LINE_BYTES)
    before = os.pread(output, offset - first, first)
    return first + before.rfind(b"\n") + 1 if b"\n" in before or first == 0 else offset
