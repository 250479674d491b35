"""What lies in the folder of downloads of one source, whole or not, and how it is removed."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import msgspec

from gpud.models.sources.hub import is_whole
from gpud.models.sources.transfer.part import SUFFIX, PartTaken, open_part
from gpud.store import Row

BEGUN_ROW: Final = "download"
# What is written in the folder of downloads but for whole files.
_UNDONE: Final = (SUFFIX, f"{SUFFIX}.json")
# Nothing else is ever removed, whatever stands in a record.
_OURS: Final = re.compile(r"hub/[\w][\w.-]*-[0-9a-f]{12}|sha256-[0-9a-f]{64}\.gguf", re.ASCII)


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """That a download into a folder was begun: what is unfinished there of that stem is ours.

    Its name alone proves nothing: another gpud may use the folder too.
    """

    directory: str
    stem: str

    def row(self, *, is_over: bool = False) -> Row:
        """The record; `is_over`: that there is nothing unfinished any more."""
        body = None if is_over else msgspec.json.encode(self)
        return Row(kind=BEGUN_ROW, id=f"{self.directory}/{self.stem}", body=body)


def is_ours(stem: str) -> bool:
    """Whether gpud may have given something that name."""
    return _OURS.fullmatch(stem) is not None


def removed(directory: Path, stem: str) -> int:
    """Remove all of it; the bytes of what is not there any more. Blocks on the disk."""
    freed = 0
    for path in list(files_of(directory, stem)):
        size = size_of(path)
        with suppress(OSError):
            path.unlink()
            freed += size
    if stem.startswith("hub/"):
        shutil.rmtree(directory / stem, ignore_errors=True)
    return freed


def unfinished_removed(directory: Path, stem: str) -> int:
    """Remove what was begun of it and is not whole; its bytes. Blocks on the disk.

    What is whole stays, of a repository all of it, and so does what another gpud brings just now.
    """
    place = directory / stem
    if stem.startswith("hub/"):
        if is_whole(place):
            return 0
        parts = [path for path in files_of(directory, stem) if path.suffix == SUFFIX]
    else:
        parts = [path for path in (place.with_name(place.name + SUFFIX),) if path.is_file()]
    freed = 0
    with ExitStack() as held:
        try:
            for path in parts:
                part = held.enter_context(open_part(path.with_suffix("")))
                freed += part.size_bytes
        except PartTaken:
            return 0
        if stem.startswith("hub/"):
            return removed(directory, stem)
        for path in parts:
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}.json").unlink(missing_ok=True)
    return freed


def unused(directory: Path, is_wanted: Callable[[str], bool]) -> dict[str, int]:
    """What lies there whole and is of no entry any more, with its bytes. Blocks on the disk."""
    found = [*directory.glob("sha256-*.gguf"), *(directory / "hub").glob("*")]
    stems = [str(path.relative_to(directory)) for path in sorted(found)]
    return {
        stem: sum(size_of(path) for path in files_of(directory, stem))
        for stem in stems
        if is_ours(stem) and not is_wanted(stem)
    }


def files_of(directory: Path, stem: str) -> Iterator[Path]:
    """What is there of it. Looks at the disk."""
    place = directory / stem
    for suffix in ("", *_UNDONE):
        path = place.with_name(place.name + suffix)
        if path.is_file():
            yield path
    for folder, _, names in os.walk(place):
        yield from (Path(folder) / name for name in names)


def size_of(path: Path) -> int:
    """Of what lies there; 0 where nothing does. Looks at the disk."""
    try:
        return path.lstat().st_size
    except OSError:
        return 0
