"""SHA-256 sums of files, each computed once for as long as the file is the same.

A sum is kept by what tells one content of a file from another: its filesystem, its inode, its
size, and the moments at which its content and its inode were last changed. Who writes to a file
and sets its time back changes the last of these all the same.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from gpud.models.artifact import Artifact, ArtifactRefused, open_artifact
from gpud.models.sources.jobs import Control, Jobs, Manner, Step, Tell
from gpud.store import Row

CHUNK_BYTES: Final = 1024 * 1024
ROW_KIND: Final = "checksum"
MAX_KEPT: Final = 4096
# A file that was changed so shortly before could be changed again within the same tick of its
# filesystem's clock, and nothing would tell. (git calls such an entry racy.)
RACY_SECONDS: Final = 2.0
STALL_SECONDS: Final = 60.0
CHANGED: Final = "changed while its checksum was computed: load it again once nobody writes it"


class Sum(msgspec.Struct, frozen=True, kw_only=True):
    """A file's sum, and what the file was then."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    sha256: str

    def is_of(self, status: os.stat_result) -> bool:
        """Whether the file is still the same."""
        return (self.size_bytes, self.mtime_ns, self.ctime_ns) == (
            status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )  # fmt: skip


class Checksums:
    """The sums that are known; used on the loop alone."""

    def __init__(
        self, jobs: Jobs, keep: Callable[[tuple[Row, ...]], object], wall: Callable[[], float]
    ) -> None:
        """`keep` makes rows durable some time; `wall` tells the time."""
        self._jobs = jobs
        self._keep = keep
        self._wall = wall
        self._sums: dict[str, Sum] = {}

    def restore(self, rows: Iterable[tuple[str, bytes]]) -> None:
        """What an earlier life of the daemon kept; what makes no sense is computed again."""
        for id_, body in rows:
            with suppress(msgspec.MsgspecError, ValueError):
                self._sums[id_] = msgspec.json.decode(body, type=Sum)

    def known(self, status: os.stat_result) -> str | None:
        """The sum of a file as it is now; None: it was not computed."""
        found = self._sums.get(_id(status))
        return found.sha256 if found is not None and found.is_of(status) else None

    def remember(self, status: os.stat_result, sha256: str) -> None:
        """Keep a sum, of a file that nobody else writes."""
        kept = Sum(
            size_bytes=status.st_size,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
            sha256=sha256,
        )
        rows = [Row(kind=ROW_KIND, id=_id(status), body=msgspec.json.encode(kept))]
        self._sums.pop(_id(status), None)
        self._sums[_id(status)] = kept
        while len(self._sums) > MAX_KEPT:
            oldest = next(iter(self._sums))
            del self._sums[oldest]
            rows.append(Row(kind=ROW_KIND, id=oldest, body=None))
        self._keep(tuple(rows))

    async def of(self, path: str, seen: Artifact, roots: Sequence[Path], tell: Tell) -> str:
        """The sum of a file that was inspected, computed off the loop where it is not known.

        Raises ArtifactRefused where it is not that file any more, JobStalled where its disk
        gives nothing for a minute, and NoTurn.
        """

        def work(control: Control) -> tuple[str, os.stat_result]:
            with open_artifact(path, roots) as (artifact, file):
                if artifact != seen:
                    raise ArtifactRefused(CHANGED)
                before = os.fstat(file.fileno())
                known = self.known(before)
                found = known or _sum(file.fileno(), before, control)
                return found, before

        key = f"sum:{seen.path}"
        found, status = await self._jobs.run(key, work, tell, Manner(stall_seconds=STALL_SECONDS))
        is_settled = self._wall() - max(status.st_mtime, status.st_ctime) > RACY_SECONDS
        if is_settled and self.known(status) is None:
            self.remember(status, found)
        return found


def _sum(descriptor: int, before: os.stat_result, control: Control) -> str:
    """Read a whole file; raises ArtifactRefused where it changes meanwhile."""
    digest, done = hashlib.sha256(), 0
    buffer = bytearray(CHUNK_BYTES)
    view = memoryview(buffer)
    began = control.clock.now().boottime
    while count := os.preadv(descriptor, [buffer], done):
        digest.update(view[:count])
        done += count
        control.check()
        spent = control.clock.now().boottime - began
        control.tell(
            Step(
                words="checksum",
                done_bytes=done,
                total_bytes=before.st_size,
                bytes_per_second=done / spent if spent > 0 else None,
            )
        )
    after = os.fstat(descriptor)
    if done != before.st_size or _moments(after) != _moments(before):
        raise ArtifactRefused(CHANGED)
    return digest.hexdigest()


def _moments(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _id(status: os.stat_result) -> str:
    return f"{status.st_dev}-{status.st_ino}"
