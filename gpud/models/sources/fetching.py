"""Brings the files of a model here before its load, and looks whether they are what was promised.

The one part of `sources` that the rest of gpud speaks to. Everything that blocks is done in jobs.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec
import structlog

from gpud.errors import ModelFileInvalid
from gpud.models.artifact import ArtifactRefused
from gpud.models.catalogue import Inspection
from gpud.models.model import HttpSource, HubSource, Model, Source
from gpud.models.sources.checksums import Checksums
from gpud.models.sources.hub import HubFetch, is_whole, read_manifest
from gpud.models.sources.jobs import Control, Jobs, JobStalled, Manner, NoTurn, Tell
from gpud.models.sources.refusals import (
    DigestMismatch,
    DiskInsufficient,
    DownloadFailed,
    DownloadRefused,
)
from gpud.models.sources.rules import folder_of, place_of, stem_of, words_of
from gpud.models.sources.transfer.download import Got, Terms, Wanted, download
from gpud.models.sources.transfer.part import SUFFIX
from gpud.models.sources.transfer.progress import Progress
from gpud.store import Row

log = structlog.get_logger()

# What is written in the folder of downloads but for whole files.
_UNDONE: Final = (SUFFIX, f"{SUFFIX}.json")
ROW_KIND: Final = "removal"
# Of whatever size, a file is gone within a second; a disk that hangs holds nobody up.
REMOVAL_SECONDS: Final = 60.0
# Nothing else is ever removed, whatever stands in a record.
_OURS: Final = re.compile(r"hub/[\w][\w.-]*-[0-9a-f]{12}|sha256-[0-9a-f]{64}\.gguf", re.ASCII)

# A type of event, what model it is about, and why.
Note = Callable[[str, Model, str], None]
Keep = Callable[[tuple[Row, ...]], None]
# Whether an entry is of the files of a stem; called in a thread.
IsWanted = Callable[[str], bool]


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

        `keep` makes rows durable some time.
        """
        self._directory = directory
        self._keep = keep
        self._due: dict[str, Path] = {}  # to be removed, and the folder that it lies in
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

        def work(control: Control) -> tuple[Got, ...]:
            return self._bring(source, control)

        place = self._directory / stem_of(source)
        try:
            brought = await self._jobs.run(f"fetch:{place}", work, tell)
            for got in brought:
                self._checksums.remember(got.status, got.sha256)
            if brought and brought is not self._noted:
                self._noted = brought
                size = sum(got.status.st_size for got in brought)
                self.note("model.downloaded", model, f"{size} bytes of {words_of(source)}")
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
        """Whether the files have the sums that were promised. Raises ModelFileInvalid."""
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
        return sum(_size(path) for path in _files(self._directory, stem_of(source)))

    def due(self, source: Source, *, removed: bool) -> Row:
        """The record that its files are to be removed: made durable before that is begun.

        `removed`: that they are not, any more.
        """
        body = None if removed else msgspec.json.encode(str(self._directory))
        return Row(kind=ROW_KIND, id=stem_of(source), body=body)

    def restore(self, rows: Iterable[tuple[str, bytes]]) -> None:
        """What an earlier life of the daemon was to remove."""
        for stem, body in rows:
            with suppress(msgspec.MsgspecError, ValueError):
                self._due[stem] = Path(msgspec.json.decode(body, type=str))

    async def remove(self, source: Source, is_wanted: IsWanted) -> int:
        """Remove what was downloaded, and what was begun; its bytes.

        Whatever fetches it ends first, and what comes meanwhile waits. `is_wanted`, called in a
        thread, says whether an entry is of these files: then they stay. What cannot be removed
        now is tried again when the daemon starts.
        """
        return await self._remove(self._directory, stem_of(source), is_wanted)

    async def sweep(self, is_wanted: IsWanted) -> None:
        """Remove what an earlier life could not, as it ended before."""
        for stem, directory in tuple(self._due.items()):
            await self._remove(directory, stem, is_wanted)

    async def _remove(self, directory: Path, stem: str, is_wanted: IsWanted) -> int:
        def work(control: Control) -> tuple[int, bool]:
            if not _OURS.fullmatch(stem) or is_wanted(stem):
                return 0, True
            freed = _removed(directory, stem)
            return freed, not any(True for _ in _files(directory, stem))

        manner = Manner(kind="remove", stall_seconds=REMOVAL_SECONDS, in_turn=False)
        try:
            freed, is_done = await self._jobs.run(
                f"fetch:{directory / stem}", work, lambda _: None, manner
            )
        except (OSError, NoTurn, JobStalled) as error:
            log.warning("models.not_removed", files=stem, problem=str(error) or "its disk hangs")
            return 0
        if is_done:
            self._due.pop(stem, None)
            self._keep((Row(kind=ROW_KIND, id=stem, body=None),))
        log.info("models.removed", files=stem, freed_bytes=freed)
        return freed


def _removed(directory: Path, stem: str) -> int:
    """The bytes of what is not there any more. Blocks on the disk."""
    freed = 0
    for path in list(_files(directory, stem)):
        size = _size(path)
        with suppress(OSError):
            path.unlink()
            freed += size
    if stem.startswith("hub/"):
        shutil.rmtree(directory / stem, ignore_errors=True)
    return freed


def _files(directory: Path, stem: str) -> Iterator[Path]:
    """What is there of it."""
    place = directory / stem
    for suffix in ("", *_UNDONE):
        path = place.with_name(place.name + suffix)
        if path.is_file():
            yield path
    for folder, _, names in os.walk(place):
        yield from (Path(folder) / name for name in names)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _mismatch(model: Model, name: str, expected: str, found: str) -> ModelFileInvalid:
    advice = (
        "nothing of it was kept: look at its source, or correct sha256"
        if model.source is not None and not name.startswith("/")
        else "put the right file there, or correct sha256"
    )
    if model.source is not None and name.startswith("/"):
        advice = "it was changed after it had been downloaded: remove it, a load fetches it anew"
    return ModelFileInvalid(
        model=model.name,
        path=name,
        problem=f"its checksum is {found}, promised was {expected}; {advice}",
    )
