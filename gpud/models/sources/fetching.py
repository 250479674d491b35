"""Brings the files of a model here before its load, and looks whether they are what was promised.

The one part of `sources` that the rest of gpud speaks to. Everything that blocks is done in jobs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import structlog

from gpud.errors import GpudError, ModelFileInvalid
from gpud.models.artifact import ArtifactRefused
from gpud.models.catalogue import Inspection
from gpud.models.model import HttpSource, HubSource, Model, Source
from gpud.models.sources.checksums import Checksums
from gpud.models.sources.hub import HubFetch, is_whole, read_manifest
from gpud.models.sources.jobs import Control, Jobs, JobStalled, Manner, NoTurn, Tell
from gpud.models.sources.refusals import (
    ChecksumWrong,
    DigestMismatch,
    DiskInsufficient,
    DownloadFailed,
    DownloadRefused,
)
from gpud.models.sources.remains import (
    Begun,
    files_of,
    is_ours,
    removed,
    size_of,
    unfinished_removed,
    unused,
)
from gpud.models.sources.rules import folder_of, place_of, stem_of, words_of
from gpud.models.sources.transfer.download import Got, Terms, Wanted, download
from gpud.models.sources.transfer.progress import Progress
from gpud.store import Committed, Row
from gpud.threads import ThreadRefused

log = structlog.get_logger()

ROW_KIND: Final = "removal"
# Of whatever size, a file is gone within a second; a disk that hangs holds nobody up.
REMOVAL_SECONDS: Final = 60.0

# A type of event, what model it is about, and why.
Note = Callable[[str, Model, str], None]
# None: they cannot be made durable now.
Keep = Callable[[tuple[Row, ...]], "asyncio.Future[Committed] | None"]
# Whether an entry is of the files of a stem; called in a thread.
IsWanted = Callable[[str], bool]
T = TypeVar("T")


class _SourceFailed(Exception):
    """A download came to nothing, and of which source it was."""

    def __init__(self, source: Source, error: Exception) -> None:
        super().__init__(str(error))
        self.source = source
        self.error = error


class Fetching:
    """Downloads and checksums, of whatever model."""

    def __init__(
        self,
        directory: Path,
        terms: Terms,
        jobs: Jobs,
        checksums: Checksums,
        keep: Keep = lambda _: None,
    ) -> None:
        """`directory` is where downloads come to lie; it is made when the first one comes.

        `keep` makes rows durable; who need not know when does not wait for it.
        """
        self._directory = directory
        self._keep = keep
        self._due: dict[str, Path] = {}  # to be removed, and the folder that it lies in
        self._begun: list[Begun] = []  # by an earlier life of the daemon
        self._terms = terms
        self._jobs = jobs
        self._checksums = checksums
        self.note: Note = lambda *_: None
        self._noted: object = None  # what the loads that waited for one download share

    def configure(self, directory: Path, terms: Terms) -> None:
        """From the next download on; those under way go on as they began."""
        self._directory, self._terms = directory, replace(terms, room=self._terms.room)

    async def fetch(self, model: Model, tell: Tell) -> None:
        """See to it that the files are here; two loads of one model wait for one download.

        Raises DownloadRefused, DownloadFailed, DiskInsufficient, and ModelFileInvalid where what
        came is not what was promised. Cancelled, it ends unless somebody else waits for it.
        """
        source = model.source
        if source is None:
            return

        begun = await self._begin(source, tell)
        try:
            brought = await self._joined(source, tell)
            for got in brought:
                self._checksums.remember(got.status, got.sha256)
            if brought and brought is not self._noted:
                self._noted = brought
                size = sum(got.status.st_size for got in brought)
                self.note("model.downloaded", model, f"{size} bytes of {words_of(source)}")
            if begun is not None:
                _ = self._keep((begun.row(is_over=True),))
        except (DownloadFailed, DownloadRefused, DiskInsufficient) as error:
            if error is not self._noted:
                self._noted = error
                self.note("model.download_failed", model, str(error))
            raise
        except DigestMismatch as error:
            raise _mismatch(model, error.name, error.expected, error.found) from error
        except NoTurn as error:
            problem = "the downloads before it did not end in time"
            raise DownloadFailed(
                url=words_of(source), problem=problem, attempts=1, kept_bytes=0
            ) from error

    async def _joined(self, source: Source, tell: Tell) -> tuple[Got, ...]:
        """What the download of these files brought, whichever entry's load began it.

        One file may have several sources: another's that fails is no reason for this one to.
        """

        def work(control: Control) -> tuple[Got, ...]:
            try:
                return self._bring(source, control)
            except (DownloadRefused, DownloadFailed, DiskInsufficient, DigestMismatch) as error:
                raise _SourceFailed(source, error) from error

        key = f"fetch:{self._directory / stem_of(source)}"
        while True:
            try:
                return await self._jobs.run(key, work, tell)
            except _SourceFailed as failed:
                if failed.source == source:
                    raise failed.error from failed.error.__cause__

    async def _begin(self, source: Source, tell: Tell) -> Begun | None:
        """The intent, durable before anything is written; None: all of it is here already.

        As long as it stands, a later life of the daemon knows that what is unfinished is ours.
        """
        begun = Begun(directory=str(self._directory), stem=stem_of(source))
        manner = Manner(kind="look", in_turn=False)
        key = f"look:{begun.directory}/{begun.stem}"
        if await self._jobs.run(key, lambda _: self.is_here(source), tell, manner):
            return None
        done = self._keep((begun.row(),))
        with suppress(GpudError):  # a full disk is told when there is no room for the file
            if done is not None:
                await asyncio.shield(done)
        return begun

    def _bring(self, source: Source, control: Control) -> tuple[Got, ...]:
        """In a thread: what is not here yet."""
        place = self._directory / place_of(source)
        progress = Progress(control, "downloads")
        if isinstance(source, HubSource):
            folder = self._directory / folder_of(source)
            if is_whole(folder):
                return ()
            return HubFetch(source, folder, self._terms, control).run(progress)
        if place.exists():
            return ()
        progress.begin(f"asks {words_of(source)}")
        wanted = Wanted(url=source.url, place=place, sha256=source.sha256)
        return (download(wanted, self._terms, control, progress.file),)

    async def check(
        self, model: Model, inspection: Inspection, roots: Sequence[Path], tell: Tell
    ) -> None:
        """Whether the files have the sums that were promised.

        Raises ChecksumWrong, and ModelFileInvalid where a file cannot be read now.
        """
        promised = self._promised(model)
        for path, seen in zip(inspection.names, inspection.artifacts, strict=True):
            expected = promised.get(path)
            if expected is None:
                continue
            try:
                found = await self._checksums.of(path, seen, roots, tell)
            except JobStalled:
                problem = "gave nothing for a minute while it was read: its disk hangs"
            except NoTurn:
                problem = "was not read: the checksums of others before it did not end in time"
            except (ArtifactRefused, OSError) as error:
                problem = str(error)
            else:
                if found == expected:
                    continue
                raise _mismatch(model, path, expected, found)
            raise ModelFileInvalid(model=model.name, path=path, problem=problem)

    def _promised(self, model: Model) -> dict[str, str]:
        """The sums that are known beforehand, by the paths of the files."""
        source = model.source
        if isinstance(source, HubSource):
            folder = self._directory / folder_of(source)
            manifest = read_manifest(folder)
            return {str(folder / f.name): f.sha256 for f in manifest.files} if manifest else {}
        if isinstance(source, HttpSource):
            return {model.path: source.sha256}
        return {model.path: model.sha256} if model.sha256 else {}

    def known_sum(self, path: Path) -> str | None:
        """The sum of a file, where it was computed for the file as it is now."""
        with suppress(OSError):
            return self._checksums.known(path.stat())
        return None

    def is_here(self, source: Source) -> bool:
        """Whether all of it lies here. Looks at the disk."""
        if isinstance(source, HubSource):
            return is_whole(self._directory / folder_of(source))
        return (self._directory / place_of(source)).exists()

    def here_bytes(self, source: Source) -> int:
        """How much of it lies here, whole or not. Looks at the disk."""
        return sum(size_of(path) for path in files_of(self._directory, stem_of(source)))

    def due(self, source: Source, *, removed: bool) -> tuple[Row, ...]:
        """The records that its files are to be removed: made durable before that is begun.

        `removed`: that they are not, any more, and stay as they are, what is unfinished too.
        """
        stem, body = stem_of(source), msgspec.json.encode(str(self._directory))
        if not removed:
            return (Row(kind=ROW_KIND, id=stem, body=body),)
        begun = Begun(directory=str(self._directory), stem=stem)
        return (Row(kind=ROW_KIND, id=stem, body=None), begun.row(is_over=True))

    def restore(
        self, rows: Iterable[tuple[str, bytes]], begun: Iterable[tuple[str, bytes]] = ()
    ) -> None:
        """What an earlier life of the daemon was to remove, and what it had begun to bring."""
        for stem, body in rows:
            with suppress(msgspec.MsgspecError, ValueError):
                self._due[stem] = Path(msgspec.json.decode(body, type=str))
        for _, body in begun:
            with suppress(msgspec.MsgspecError, ValueError):
                self._begun.append(msgspec.json.decode(body, type=Begun))

    async def remove(self, source: Source, is_wanted: IsWanted) -> int:
        """Remove what was downloaded, and what was begun; its bytes.

        Whatever fetches it ends first, and what comes meanwhile waits. `is_wanted`, called in a
        thread, says whether an entry is of these files: then they stay. What cannot be removed
        now is tried again when the daemon starts.
        """
        return await self._remove(self._directory, stem_of(source), is_wanted)

    async def sweep(self, is_wanted: IsWanted) -> None:
        """Remove what an earlier life could not, as it ended before.

        And what it had begun to bring and no entry asks for any more, or not into that folder.
        What is whole stays though its entry left the configuration, which may come back: of that
        the log tells.
        """
        for stem, directory in tuple(self._due.items()):
            await self._remove(directory, stem, is_wanted)
        for begun in self._begun:
            await self._sweep_begun(begun, is_wanted)
        self._begun = []
        await self._tell_unused(is_wanted)

    async def _tell_unused(self, is_wanted: IsWanted) -> None:
        directory = self._directory
        manner = Manner(kind="unused", stall_seconds=REMOVAL_SECONDS, in_turn=False)

        def work(control: Control) -> dict[str, int]:
            return unused(directory, is_wanted)

        with suppress(OSError, JobStalled, ThreadRefused):
            found = await self._jobs.run(f"look:{directory}", work, lambda _: None, manner)
            for stem, size in found.items():
                log.warning("models.unused", folder=str(directory), files=stem, bytes=size)

    async def _sweep_begun(self, begun: Begun, is_wanted: IsWanted) -> None:
        directory, stem = Path(begun.directory), begun.stem

        def work(control: Control) -> int | None:
            is_asked_for = directory == self._directory and is_wanted(stem)
            if is_asked_for or not is_ours(stem) or not directory.is_absolute():
                return None
            return unfinished_removed(directory, stem)

        freed = await self._removal(directory, stem, work)
        if freed is not None:
            _ = self._keep((begun.row(is_over=True),))
            log.info("models.swept", files=stem, freed_bytes=freed)

    async def _remove(self, directory: Path, stem: str, is_wanted: IsWanted) -> int:
        is_over = Row(kind=ROW_KIND, id=stem, body=None)
        is_gone = Begun(directory=str(directory), stem=stem).row(is_over=True)

        def work(control: Control) -> tuple[int, tuple[Row, ...]]:
            if not is_ours(stem) or is_wanted(stem):
                return 0, (is_over,)
            freed = removed(directory, stem)
            is_left = any(True for _ in files_of(directory, stem))
            return freed, () if is_left else (is_gone, is_over)

        freed, rows = await self._removal(directory, stem, work) or (0, ())
        if rows:
            self._due.pop(stem, None)
            _ = self._keep(rows)
        if rows or freed:
            log.info("models.removed", files=stem, freed_bytes=freed)
        return freed

    async def _removal(self, directory: Path, stem: str, work: Callable[[Control], T]) -> T | None:
        """Done after whatever fetches it has ended; None: it could not be done now."""
        manner = Manner(kind="remove", stall_seconds=REMOVAL_SECONDS, in_turn=False)
        key = f"fetch:{directory / stem}"
        try:
            return await self._jobs.run(key, work, lambda _: None, manner)
        except (OSError, NoTurn, JobStalled, ThreadRefused) as error:
            log.warning("models.not_removed", files=stem, problem=str(error) or "its disk hangs")
            return None


def _mismatch(model: Model, name: str, expected: str, found: str) -> ChecksumWrong:
    advice = (
        "nothing of it was kept: look at its source, or correct sha256"
        if model.source is not None and not name.startswith("/")
        else "put the right file there, or correct sha256"
    )
    if model.source is not None and name.startswith("/"):
        advice = "it was changed after it had been downloaded: remove it, a load fetches it anew"
    return ChecksumWrong(
        model=model.name,
        path=name,
        problem=f"its checksum is {found}, promised was {expected}; {advice}",
    )
