"""Brings the files of a model here before its load, and looks whether they are what was promised.

The one part of `sources` that the rest of gpud speaks to. Everything that blocks is done in jobs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from gpud.errors import ModelFileInvalid
from gpud.models.artifact import ArtifactRefused
from gpud.models.catalogue import Inspection
from gpud.models.model import HttpSource, HubSource, Model, Source
from gpud.models.sources.checksums import Checksums
from gpud.models.sources.hub import HubFetch, is_whole, read_manifest
from gpud.models.sources.jobs import Control, Jobs, Tell
from gpud.models.sources.refusals import DigestMismatch
from gpud.models.sources.rules import folder_of, place_of, words_of
from gpud.models.sources.transfer.download import Got, Terms, Wanted, download
from gpud.models.sources.transfer.part import SUFFIX
from gpud.models.sources.transfer.progress import Progress

log = structlog.get_logger()

# What is written in the folder of downloads but for whole files.
_UNDONE: Final = (SUFFIX, f"{SUFFIX}.json")


class Fetching:
    """Downloads and checksums, of whatever model."""

    def __init__(self, directory: Path, terms: Terms, jobs: Jobs, checksums: Checksums) -> None:
        """`directory` is where downloads come to lie; it is made when the first one comes."""
        self._directory = directory
        self._terms = terms
        self._jobs = jobs
        self._checksums = checksums

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

        place = self._directory / place_of(source)
        try:
            for got in await self._jobs.run(f"fetch:{place}", work, tell):
                self._checksums.remember(got.status, got.sha256)
        except DigestMismatch as error:
            raise _mismatch(model, error.name, error.expected, error.found) from error

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
            except TimeoutError:
                problem = "gave nothing for a minute while it was read: its disk hangs"
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
        return sum(_size(path) for path in self._files(source))

    def remove(self, source: Source) -> int:
        """Remove what was downloaded, and what was begun; its bytes. Blocks on the disk."""
        freed = 0
        for path in list(self._files(source)):
            size = _size(path)
            with suppress(FileNotFoundError):
                path.unlink()
                freed += size
        if isinstance(source, HubSource):
            shutil.rmtree(self._directory / folder_of(source), ignore_errors=True)
        log.info("models.removed", source=words_of(source), freed_bytes=freed)
        return freed

    def _files(self, source: Source) -> Iterator[Path]:
        place = self._directory / place_of(source)
        if isinstance(source, HttpSource):
            yield place
            yield from (place.with_name(place.name + suffix) for suffix in _UNDONE)
            return
        for folder, _, names in os.walk(self._directory / folder_of(source)):
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
