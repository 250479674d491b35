"""Downloads one file: resumed where that is safe, bounded, and kept only when verified."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpud.models.sources.jobs import Control, Step
from gpud.models.sources.refusals import (
    DigestMismatch,
    DiskInsufficient,
    DownloadFailed,
    DownloadRefused,
    SourceInvalid,
)
from gpud.models.sources.rules import shown_url
from gpud.models.sources.transfer.connection import (
    CHUNK_BYTES,
    Answer,
    ConnectionBroken,
    Question,
    answered,
)
from gpud.models.sources.transfer.part import Part, PartTaken, open_part
from gpud.models.sources.transfer.resuming import Kept, Way, asking, kept_of, verdict
from gpud.models.sources.transfer.room import Room
from gpud.units import MIB

# A server that fails at each attempt, and one that always gives a little more: both end.
ATTEMPTS: Final = 6
MOST_ATTEMPTS: Final = 100
PROGRESS_BYTES: Final = MIB
MOST_BACK_OFF_SECONDS: Final = 30.0
ROOM_EVERY_BYTES: Final = 64 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What holds for every download."""

    room: Room
    max_bytes: int
    allow_http: bool = False
    stall_seconds: float = 60.0
    back_off_seconds: float = 1.0
    attempts: int = ATTEMPTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One file: where it is, where it is to lie, and what it must be; empty sums are not asked.

    `git_sha1` is that of git's blob (its size in front), and needs `size_bytes`.
    """

    url: str
    place: Path
    sha256: str = ""
    git_sha1: str = ""
    size_bytes: int | None = None
    token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """A file that is here now: its sum, and its status under its own name."""

    sha256: str
    status: os.stat_result


def download(
    wanted: Wanted, terms: Terms, control: Control, tell: Callable[[int, int | None], None]
) -> Got:
    """Bring the file; blocks for as long as it takes. `tell` has its bytes here, and of all.

    Raises DownloadRefused, DownloadFailed, DiskInsufficient, DigestMismatch and JobStopped.
    """
    try:
        with open_part(wanted.place) as part, terms.room.claiming(wanted.place):
            return _Download(wanted, terms, control, part, tell).run()
    except PartTaken as error:
        raise DownloadRefused(
            url=shown_url(wanted.url),
            problem="another gpud downloads it into the same folder",
            advice="wait for that one, or give each its own models.download_dir",
        ) from error
    except OSError as error:
        raise _unwritable(wanted, error) from error


def adopt(wanted: Wanted, control: Control) -> Got | None:
    """The file that lies there already, where it is the one that is wanted; else it is removed.

    Blocks on the disk. Raises JobStopped, DownloadRefused.
    """
    sums = _Sums(wanted)
    try:
        with wanted.place.open("rb") as file:
            while data := file.read(CHUNK_BYTES):
                sums.update(data)
                control.check()
                control.tell(Step(words="checks what is here", done_bytes=sums.bytes))
            status = os.fstat(file.fileno())
        sums.check(wanted)
    except DigestMismatch:
        wanted.place.unlink(missing_ok=True)
        return None
    except OSError as error:
        raise _unwritable(wanted, error) from error
    return Got(sha256=sums.sha256, status=status)


def _unwritable(wanted: Wanted, error: OSError) -> DownloadRefused:
    return DownloadRefused(
        url=shown_url(wanted.url),
        problem=f"{wanted.place.parent} cannot be used ({error.strerror})",
        advice="mend that, or set models.download_dir",
    )


class _Sums:
    """The sums of what is here, as far as it was read."""

    def __init__(self, wanted: Wanted) -> None:
        self._git_size = wanted.size_bytes if wanted.git_sha1 else None
        self.clear()

    def clear(self) -> None:
        self.bytes = 0
        self._sha256 = hashlib.sha256()
        self._git = hashlib.sha1(b"blob %d\0" % (self._git_size or 0), usedforsecurity=False)

    def update(self, data: bytes) -> None:
        self.bytes += len(data)
        self._sha256.update(data)
        if self._git_size is not None:
            self._git.update(data)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def check(self, wanted: Wanted) -> None:
        """Raises DigestMismatch."""
        for expected, found in (
            (wanted.sha256, self.sha256),
            (wanted.git_sha1, self._git.hexdigest()),
        ):
            if expected and expected != found:
                raise DigestMismatch(shown_url(wanted.url), expected, found)


class _Download:
    """One download, over as many connections as it takes."""

    def __init__(
        self,
        wanted: Wanted,
        terms: Terms,
        control: Control,
        part: Part,
        tell: Callable[[int, int | None], None],
    ) -> None:
        self._wanted = wanted
        self._terms = terms
        self._control = control
        self._part = part
        self._tell = tell
        self._url = shown_url(wanted.url)
        self._sums = _Sums(wanted)
        self._was_resumed = part.size_bytes > 0
        self._may_be_cut = False  # its end was that of the connection, whoever ended that

    def run(self) -> Got:
        self._bring()
        try:
            self._verify()
        except DigestMismatch:
            self._part.discard()
            self._sums.clear()
            if not self._was_resumed and not self._may_be_cut:
                raise
            # What lay here may have been at fault, as after a loss of power, or the connection,
            # where nothing told how long it was to be: once more, all of it.
            self._was_resumed = False
            self._bring()
            self._verify_or_discard()
        self._part.finish()
        return Got(sha256=self._sums.sha256, status=self._part.status())

    def _bring(self) -> None:
        failures = 0
        attempt = 0
        while True:
            attempt += 1
            before = self._part.size_bytes
            try:
                if self._attempt():
                    return
            except ConnectionBroken as error:
                self._control.check()
                gained = self._part.size_bytes - before
                failures = 1 if gained >= PROGRESS_BYTES else failures + 1
                if failures >= self._terms.attempts or attempt >= MOST_ATTEMPTS:
                    raise DownloadFailed(
                        url=self._url,
                        problem=str(error),
                        attempts=attempt,
                        kept_bytes=self._part.size_bytes,
                    ) from error
                pause = self._terms.back_off_seconds * 2 ** (failures - 1)
                self._control.pause(min(MOST_BACK_OFF_SECONDS, pause))

    def _attempt(self) -> bool:
        """One connection; whether all is here. Raises ConnectionBroken."""
        part, kept = self._part, self._kept()
        if kept is not None and kept.total_bytes == part.size_bytes:
            return True  # the daemon ended between its last byte and its name
        question = Question(
            url=self._wanted.url,
            headers=asking(kept, part.size_bytes),
            token=self._wanted.token,
            allow_http=self._terms.allow_http,
            stall_seconds=self._terms.stall_seconds,
        )
        try:
            with answered(question, self._control) as answer:
                return self._take(answer, kept if question.headers else None)
        except SourceInvalid as error:
            raise self._refused(f"it {error}", "name another URL") from error

    def _kept(self) -> Kept | None:
        kept = self._part.kept() if self._part.size_bytes else None
        return kept if kept is not None and kept.url == self._url else None

    def _take(self, answer: Answer, kept: Kept | None) -> bool:
        part = self._part
        found = verdict(answer.status, answer.headers, kept, part.size_bytes)
        match found.way:
            case Way.LATER:
                raise ConnectionBroken(found.problem)
            case Way.NO:
                raise self._refused(found.problem, _ADVICE.get(answer.status, "look at the URL"))
            case Way.AGAIN:
                part.discard()
                self._sums.clear()
                return False
            case Way.WHOLE:
                self._check_total(found.total_bytes, 0)
                part.begin(kept_of(self._url, answer.headers, found.total_bytes))
                self._sums.clear()
                self._was_resumed = False
                is_chunked = "transfer-encoding" in answer.headers
                self._may_be_cut = found.total_bytes is None and not is_chunked
            case Way.APPEND:
                self._was_resumed = True
                self._check_total(found.total_bytes, part.size_bytes)
        self._read(answer, found.total_bytes)
        return True

    def _check_total(self, total_bytes: int | None, have_bytes: int) -> None:
        """Raises DownloadRefused, DiskInsufficient."""
        promised = self._wanted.size_bytes
        if total_bytes is not None and promised not in {None, total_bytes}:
            raise self._refused(
                f"it has {total_bytes} bytes, promised were {promised}", "look at the repository"
            )
        total = total_bytes if total_bytes is not None else promised
        if total is not None and total > self._terms.max_bytes:
            raise self._too_large(f"{total} bytes")
        try:
            self._terms.room.check(self._wanted.place, (total or 0) - have_bytes)
        except DiskInsufficient:
            if not have_bytes:
                self._part.discard()
            raise

    def _read(self, answer: Answer, total_bytes: int | None) -> None:
        part, terms = self._part, self._terms
        limit = min(
            terms.max_bytes,
            total_bytes if total_bytes is not None else terms.max_bytes,
            self._wanted.size_bytes if self._wanted.size_bytes is not None else terms.max_bytes,
        )
        next_look = part.size_bytes + ROOM_EVERY_BYTES
        while data := answer.read():
            if part.size_bytes + len(data) > limit:
                part.discard()
                raise self._too_large(f"more than {limit} bytes")
            self._append(data)
            self._control.check()
            self._tell(part.size_bytes, total_bytes)
            if part.size_bytes >= next_look:
                next_look += ROOM_EVERY_BYTES
                terms.room.check(self._wanted.place, max(0, (total_bytes or 0) - part.size_bytes))
        self._control.check()
        whole = total_bytes if total_bytes is not None else self._wanted.size_bytes
        if whole is not None and part.size_bytes < whole:
            raise ConnectionBroken(
                f"the connection ended after {part.size_bytes} of {whole} bytes"
            )

    def _append(self, data: bytes) -> None:
        in_step = self._sums.bytes == self._part.size_bytes
        try:
            self._part.append(data)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            # What filled the disk is given back at once: the store has to be written.
            self._part.discard()
            raise DiskInsufficient(
                folder=str(self._wanted.place.parent),
                needed_bytes=len(data),
                free_bytes=0,
                promised_bytes=0,
                kept_bytes=0,
            ) from error
        if in_step:
            self._sums.update(data)

    def _verify(self) -> None:
        """Read what was not summed as it came; raises DigestMismatch."""
        part = self._part
        if self._sums.bytes != part.size_bytes:
            self._sums.clear()
            for data in part.content(CHUNK_BYTES):
                self._sums.update(data)
                self._control.check()
                self._control.tell(
                    Step(
                        words="checks",
                        done_bytes=self._sums.bytes,
                        total_bytes=part.size_bytes,
                    )
                )
        self._sums.check(self._wanted)

    def _verify_or_discard(self) -> None:
        try:
            self._verify()
        except DigestMismatch:
            self._part.discard()
            raise

    def _refused(self, problem: str, advice: str) -> DownloadRefused:
        return DownloadRefused(url=self._url, problem=problem, advice=advice)

    def _too_large(self, size: str) -> DownloadRefused:
        promised = self._wanted.size_bytes
        if promised is not None and promised <= self._terms.max_bytes:
            return self._refused(f"it has {size}, promised were {promised}", "look at its server")
        return self._refused(
            f"it has {size}, models.max_download_bytes is {self._terms.max_bytes}",
            "raise that, or take a smaller model",
        )


_ADVICE = {
    401: "it asks who we are: set HF_TOKEN for a hub, or use a URL that needs no login",
    403: "its server does not let us have it: a hub may ask to accept a licence first",
    404: "look at the URL: its server has nothing there",
}
