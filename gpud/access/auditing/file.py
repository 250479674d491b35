"""The audit's file: lines of JSON, appended in order, in files of a bounded size."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog

from gpud.access.auditing.restraint import Suppressed
from gpud.clock import Clock

log = structlog.get_logger()

# Lines that may wait for a disk that hangs; the rest is lost, and counted.
MAX_PENDING = 10_000
# Not through a link that somebody put there; read too, so that a pipe without a reader opens.
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW

Line = Mapping[str, str | int | float]


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what, or was refused it; empty is unknown or nothing.

    `outcome` is "OK" or the name of a gRPC code, `owner` for whom it was done, `subject` what it
    was done to. Texts are cut at 256 characters.
    """

    wall: float
    name: str
    role: str
    proof: str
    origin: str
    method: str
    subject: str = ""
    owner: str = ""
    request_id: str = ""
    outcome: str
    reason: str = ""
    message: str = ""
    milliseconds: float = 0.0


class AuditFile:
    """The lines that wait, and the file; `add` on the loop, `write` in one thread at a time.

    It is opened for each batch, so one that was moved away or removed is made anew. It is not
    synced: what gpud promised is in its store, which is, and a sync here would hold that one up.
    A loss of power may take its last seconds; a killed gpud loses what it had not written yet.
    """

    def __init__(self, path: Path, max_bytes: int, keep: int, clock: Clock) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._clock = clock
        self._lines: deque[AuditEntry | Suppressed] = deque()
        self._lock = threading.Lock()
        self._dropped = 0  # counted on the loop
        self._failed = 0  # counted by the thread, as are these
        self._told = 0
        self._problem = ""

    @property
    def pending(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._lines)

    def add(self, line: AuditEntry | Suppressed) -> None:
        """Have it written by the next `write`."""
        if len(self._lines) < MAX_PENDING:
            self._lines.append(line)
        else:
            self._dropped += 1

    def write(self) -> None:
        """Write what waits; what cannot be written is lost, and told once something can."""
        with self._lock:
            batch = [self._lines.popleft() for _ in range(len(self._lines))]
            left = len(batch)
            try:
                with _Opened(self._path, self._max_bytes, self._keep) as opened:
                    self._tell_lost(opened)
                    for line in batch:
                        opened.append(_encoded(self._rendered(line)))
                        left -= 1
            except OSError as error:
                self._failed += left
                self._log(error.strerror or str(error))
            else:
                self._problem = ""

    def _tell_lost(self, opened: _Opened) -> None:
        lost = self._failed + self._dropped
        if lost > self._told:
            count = lost - self._told
            now = self._clock.now().wall
            why = self._problem or "the disk was too slow"
            opened.append(_encoded({"time": _time(now), "lost": count, "problem": why}))
            self._told = lost

    def _log(self, problem: str) -> None:
        """Once for each problem: the lines come by the thousand."""
        if problem != self._problem:
            log.error("audit.lost", path=str(self._path), problem=problem)
        self._problem = problem

    def _rendered(self, line: AuditEntry | Suppressed) -> Line:
        if isinstance(line, AuditEntry):
            return _rendered(line)
        now = self._clock.now()
        return {
            "time": _time(now.wall),
            "suppressed": line.count,
            "since": _time(now.wall - (now.boottime - line.since)),
            **{key: text for key, text in line.refusal._asdict().items() if text},
        }


class _Opened:
    """The file, open for one batch. Raises OSError in all it does."""

    def __init__(self, path: Path, max_bytes: int, keep: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._descriptor = -1
        self._size = 0

    def __enter__(self) -> _Opened:
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def append(self, line: bytes) -> None:
        """Append one line by one write, in the next file where this one has no room for it."""
        if self._size + len(line) > self._max_bytes:
            self._close()
            self._rotate()
            self._open()
        if self._size and os.pread(self._descriptor, 1, self._size - 1) != b"\n":
            line = b"\n" + line  # the end of an earlier one did not fit on the disk
        while line:
            written = os.write(self._descriptor, line)
            self._size += written
            line = line[written:]

    def _open(self) -> None:
        self._descriptor = os.open(self._path, _FLAGS, 0o600)
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            self._close()
            raise OSError(f"{self._path} is not a regular file")
        self._size = status.st_size

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _rotate(self) -> None:
        """audit.jsonl becomes .1, .1 becomes .2, and so on; the oldest goes."""
        names = [self._path, *(Path(f"{self._path}.{n}") for n in range(1, self._keep + 1))]
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            if newer.exists():
                newer.replace(older)


def _rendered(entry: AuditEntry) -> Line:
    line: dict[str, str | int | float] = {
        "time": _time(entry.wall),
        "name": entry.name,
        "role": entry.role,
        "proof": entry.proof,
        "origin": entry.origin,
        "method": entry.method,
        "outcome": entry.outcome,
        "milliseconds": round(entry.milliseconds, 3),
    }
    owner = entry.owner if entry.owner != entry.name else ""
    line |= {
        key: text
        for key, text in (
            ("subject", entry.subject),
            ("owner", owner),
            ("request_id", entry.request_id),
            ("reason", entry.reason),
            ("message", entry.message),
        )
        if text
    }
    return line


def _encoded(line: Line) -> bytes:
    """All but plain ASCII escaped: what turns a terminal's text around does nothing here."""
    return json.dumps(line).encode() + b"\n"


def _time(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")
