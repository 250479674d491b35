"""The audit: a line of JSON for each change and each refusal.

Lines are collected for a moment and written by a thread, in order; nobody waits for the disk.
"""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog
from msgspec import structs

from gpud.access.auditing.file import AuditEntry, AuditFile
from gpud.access.auditing.restraint import Refusal, Restraint
from gpud.access.refusals import AccessWithdrawn, IdentityMissing, NotOwner, RoleMissing
from gpud.access.rights import known_method
from gpud.clock import Clock
from gpud.events import Event
from gpud.settings import Audit as AuditSettings

__all__ = ["Audit", "AuditEntry", "event_of"]

log = structlog.get_logger()

FILE_NAME = "audit.jsonl"
FLUSH_SECONDS = 0.05
# No longer does anybody wait for a disk that hangs.
MAX_WAIT_SECONDS = 2.0
MAX_TEXT_CHARACTERS = 256
# Those who lack a right are told in the journal too.
_RIGHTS = frozenset(
    kind.reason for kind in (IdentityMissing, RoleMissing, NotOwner, AccessWithdrawn)
)
_TEXTS = tuple(field.name for field in structs.fields(AuditEntry) if field.type is str)


def event_of(entry: AuditEntry) -> Event | None:
    """The event that tells of a missing right; None for all else. To be posted if recorded."""
    if entry.reason not in _RIGHTS:
        return None
    return Event(
        wall=entry.wall,
        type="access.refused",
        subject="node",
        actor=_cut(entry.name) or "unknown",
        reason=_cut(entry.message),
        details={"method": _cut(entry.method), "origin": _cut(entry.origin)},
    )


class Audit:
    """The file of a daemon, `audit.jsonl` in its state directory unless the settings say where.

    Nothing is opened before there is something to write. To be used on one event loop.
    """

    def __init__(self, settings: AuditSettings, directory: Path, clock: Clock) -> None:
        self.path = Path(settings.path) if settings.path else directory / FILE_NAME
        self._clock = clock
        self._file = AuditFile(self.path, int(settings.max_bytes), settings.keep, clock)
        self._restraint = Restraint()
        # Of its own: those of the loop may all hang on other disks.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="audit")
        self._is_scheduled = False
        self._writing: asyncio.Future[None] | None = None

    def record(self, entry: AuditEntry, *, decided: bool = False) -> bool:
        """Have it written soon; False: it is one refusal of many alike, and was only counted.

        What changed anything (`decided`) is always written. Never blocks and never raises,
        whatever the disk does.
        """
        if any(len(getattr(entry, name)) > MAX_TEXT_CHARACTERS for name in _TEXTS):
            entry = structs.replace(entry, **{name: _cut(getattr(entry, name)) for name in _TEXTS})
        if entry.outcome.upper() != "OK" and not decided:
            refusal = Refusal(entry.name, known_method(entry.method), entry.reason)
            if not self._restraint.admits(refusal, self._clock.now().boottime):
                return False
        self._file.add(entry)
        self._write_soon()
        return True

    async def flush(self) -> None:
        """Write what was recorded, and what was only counted in minutes that are over.

        Returns once that is in the file or lost; on a disk that hangs, after some seconds.
        """
        self._tell_suppressed(self._clock.now().boottime)
        if self._writing is not None:
            # It may have begun before the newest line; whatever begins from now on has that one.
            await asyncio.wait({self._writing}, timeout=MAX_WAIT_SECONDS)
        if self._file.pending or self._is_writing:
            await asyncio.wait({self._write()}, timeout=MAX_WAIT_SECONDS)

    async def close(self) -> None:
        """Write all that there is, and how many were only counted."""
        self._tell_suppressed(math.inf)
        await self.flush()

    def _tell_suppressed(self, until: float) -> None:
        for each in self._restraint.over(until):
            self._file.add(each)

    def _write_soon(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._write_later)

    def _write_later(self) -> None:
        self._is_scheduled = False
        self._tell_suppressed(self._clock.now().boottime)
        if self._is_writing:
            self._write_soon()  # a slow disk is given one thread, not all
        elif self._file.pending:
            _ = self._write()

    @property
    def _is_writing(self) -> bool:
        return self._writing is not None and not self._writing.done()

    def _write(self) -> asyncio.Future[None]:
        """The write that is under way, or one that begins now."""
        if self._writing is None or self._writing.done():
            loop = asyncio.get_running_loop()
            self._writing = loop.run_in_executor(self._thread, self._file.write)
            self._writing.add_done_callback(self._written)
        return self._writing

    def _written(self, done: asyncio.Future[None]) -> None:
        if not done.cancelled() and done.exception() is not None:
            log.error("audit.bug", path=str(self.path), exc_info=done.exception())


def _cut(text: str) -> str:
    return text[:MAX_TEXT_CHARACTERS]
