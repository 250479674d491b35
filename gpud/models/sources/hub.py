"""Takes what a server needs from a repository of a model hub; it is here whole, or not at all."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from gpud.models.hugging_face.folder import CONFIG, INDEX, OPTIONAL, SINGLE
from gpud.models.hugging_face.safetensors import SafetensorsInvalid, read_object
from gpud.models.model import HubSource
from gpud.models.sources import listing
from gpud.models.sources.jobs import Control
from gpud.models.sources.refusals import DownloadFailed, DownloadRefused
from gpud.models.sources.rules import check_file, check_url, words_of
from gpud.models.sources.transfer.download import Got, Terms, Wanted, adopt, download
from gpud.models.sources.transfer.part import keep_whole, part_bytes
from gpud.models.sources.transfer.progress import Progress

MANIFEST: Final = ".gpud.json"
LISTING_SECONDS: Final = 60.0
MAX_LISTING_BYTES: Final = 16 * 1024 * 1024
MAX_FILES: Final = 1024
_PART = re.compile(r"(.+)-00001-of-([0-9]{5})(\.gguf)")
# What the library reads of its surroundings: where the hub is, who asks, and the way there.
_ENVIRONMENT: Final = re.compile(
    r"HF_\w+|HUGGING\w+|(?:https?|all|no)_proxy|SSL_CERT_\w+|PATH|HOME|XDG_CACHE_HOME|"
    r"LANG|TMPDIR",
    re.IGNORECASE,
)


class HubFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a repository, as its hub lists it."""

    name: str
    size_bytes: int | None
    git_sha1: str
    sha256: str
    url: str


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """A repository at one commit, or in `error` why there is none."""

    commit: str = ""
    token: str = ""
    files: tuple[HubFile, ...] = ()
    error: str = ""
    words: str = ""


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was taken, by its name in the folder."""

    name: str
    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken; it is written last, so where it is, all of it is."""

    repository: str
    commit: str
    files: tuple[Taken, ...]


def read_manifest(folder: Path) -> Manifest | None:
    """What lies in a folder; None: it is not whole. Blocks on the disk."""
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError, ValueError):
        return None


def is_whole(folder: Path) -> bool:
    """Whether every file that was taken lies there, of its size."""
    manifest = read_manifest(folder)
    if manifest is None:
        return False
    with suppress(OSError):
        return all(
            (folder / each.name).stat().st_size == each.size_bytes for each in manifest.files
        )
    return False


class HubFetch:
    """One repository into one folder, from within a job."""

    def __init__(self, source: HubSource, folder: Path, terms: Terms, control: Control) -> None:
        self._source = source
        self._folder = folder
        self._terms = terms
        self._control = control
        self._url = words_of(source)

    def run(self, progress: Progress) -> tuple[Got, ...]:
        """Fetch what is not here yet; blocks. Raises as `download` does, and SourceInvalid."""
        progress.begin("asks the hub what is there")
        found = self._listed()
        by_name = {each.name: each for each in found.files}
        names = self._chosen(by_name)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        got: dict[str, Got] = {}
        if INDEX in names:
            # Which of the weights a server reads stands in their index.
            got[INDEX] = self._bring(by_name[INDEX], found.token, progress)
            names = [*names, *self._shards(by_name)]
        rest = [by_name[name] for name in names if name not in got]
        progress.total_bytes = sum(by_name[name].size_bytes or 0 for name in names)
        self._terms.room.look(
            self._folder / MANIFEST, sum(each.size_bytes or 0 for each in rest) - self._here(rest)
        )
        for each in rest:
            got[each.name] = self._bring(each, found.token, progress)
        self._note(found.commit, got)
        return tuple(got.values())

    def _listed(self) -> Listing:
        """What the hub says is there. Raises DownloadRefused, DownloadFailed, JobStopped."""
        code, answer = self._ask_child()
        self._control.check()
        if code != 0:
            raise self._failed(f"its listing ended with {code}")
        try:
            found = msgspec.json.decode(answer, type=Listing)
        except (msgspec.MsgspecError, ValueError) as error:
            raise self._failed(f"its listing cannot be read ({error})") from error
        if found.error in _REFUSALS:
            problem, advice = _REFUSALS[found.error]
            raise DownloadRefused(url=self._url, problem=problem, advice=advice)
        if found.error:
            raise self._failed(f"the hub cannot be asked ({found.words})")
        return found

    def _ask_child(self) -> tuple[int, bytes]:
        """How the program of its own ended, and what it said, of which no more is kept than fits.

        It is named by its file, and neither the working directory nor PYTHONPATH leads it to
        modules: who may write there would run code of his as gpud's user.
        """
        asked = {"repository": self._source.repository, "revision": self._source.revision}
        environment = {
            name: value for name, value in os.environ.items() if _ENVIRONMENT.fullmatch(name)
        }
        late = threading.Event()
        with (
            subprocess.Popen(
                [sys.executable, "-P", listing.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={**environment, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_VERBOSITY": "error"},
            ) as child,
            self._control.closing(child.kill),
            _killed_after(LISTING_SECONDS, child, late),
        ):
            assert child.stdin is not None  # noqa: S101 — pipes were asked for
            assert child.stdout is not None  # noqa: S101
            with suppress(BrokenPipeError):  # then it has ended, and its code says why
                child.stdin.write(msgspec.json.encode(asked))
                child.stdin.close()
            answer = child.stdout.read(MAX_LISTING_BYTES + 1)
            if len(answer) > MAX_LISTING_BYTES:
                child.kill()
                raise self._failed(f"its listing has more than {MAX_LISTING_BYTES} bytes")
            code = child.wait()
        self._control.check()
        if late.is_set():
            raise self._failed(f"the hub does not answer within {LISTING_SECONDS:g} s")
        return code, answer

    def _chosen(self, by_name: Mapping[str, HubFile]) -> list[str]:
        """The files to take; of weights with an index, which are named there, only that."""
        if self._source.file:
            return self._parts(by_name)
        if CONFIG not in by_name:
            raise self._refused(
                f"it has no {CONFIG}", "name one file of it, or another repository"
            )
        weights = INDEX if INDEX in by_name else SINGLE
        if weights not in by_name:
            raise self._refused("it has no weights in safetensors", "name another repository")
        return [CONFIG, weights, *(name for name in OPTIONAL if name in by_name)]

    def _parts(self, by_name: Mapping[str, HubFile]) -> list[str]:
        file = self._source.file
        match = _PART.fullmatch(file)
        count = min(int(match[2]), MAX_FILES) if match else 1
        names = [file] if match is None else [
            f"{match[1]}-{number:05}-of-{match[2]}{match[3]}" for number in range(1, count + 1)
        ]  # fmt: skip
        missing = [name for name in names if name not in by_name]
        if missing:
            there = [name for name in by_name if name.endswith(".gguf")]
            shown = f"it has {', '.join(there[:10])}" if there else "it has no GGUF file"
            raise self._refused(f"it has no {missing[0]}", f"{shown}; name one that is there")
        return names

    def _shards(self, by_name: Mapping[str, HubFile]) -> list[str]:
        """The files that the index names."""
        try:
            mapping = read_object((self._folder / INDEX).read_bytes()).get("weight_map")
        except SafetensorsInvalid as error:
            raise self._refused(f"its {INDEX} {error}", "name another repository") from error
        names = sorted(set(map(str, mapping.values()))) if isinstance(mapping, dict) else []
        missing = [name for name in names if name not in by_name]
        if missing or not 0 < len(names) <= MAX_FILES:
            problem = f"its {INDEX} names {len(names)} files, {len(missing)} of them not there"
            raise self._refused(problem, "name another repository")
        return names

    def _bring(self, file: HubFile, token: str, progress: Progress) -> Got:
        """One file, which may be here already, in whole or in part."""
        place = self._folder / check_file(file.name)
        wanted = Wanted(
            url=check_url(file.url, allow_http=self._terms.allow_http),
            place=place,
            sha256=file.sha256,
            git_sha1="" if file.sha256 else file.git_sha1,
            size_bytes=file.size_bytes,
            token=token,
        )
        if not wanted.sha256 and (not wanted.git_sha1 or file.size_bytes is None):
            raise self._refused(f"its hub tells no checksum of {file.name}", "take another one")
        got = adopt(wanted, self._control) if place.exists() else None
        got = got or download(wanted, self._terms, self._control, progress.file)
        progress.end_file(got.status.st_size)
        return got

    def _here(self, files: Iterable[HubFile]) -> int:
        places = [self._folder / each.name for each in files]
        return sum(
            place.stat().st_size if place.exists() else part_bytes(place) for place in places
        )

    def _note(self, commit: str, got: Mapping[str, Got]) -> None:
        """From now on it is whole."""
        manifest = Manifest(
            repository=self._source.repository,
            commit=commit,
            files=tuple(
                Taken(name=name, size_bytes=each.status.st_size, sha256=each.sha256)
                for name, each in got.items()
            ),
        )
        keep_whole(self._folder / MANIFEST, msgspec.json.encode(manifest))

    def _refused(self, problem: str, advice: str) -> DownloadRefused:
        return DownloadRefused(url=self._url, problem=problem, advice=advice)

    def _failed(self, problem: str) -> DownloadFailed:
        return DownloadFailed(url=self._url, problem=problem, attempts=1, kept_bytes=0)


@contextmanager
def _killed_after(
    seconds: float, child: subprocess.Popen[bytes], late: threading.Event
) -> Iterator[None]:
    """While in here, a child that takes longer is killed, and `late` is set."""

    def end() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


_REFUSALS: Final = {
    "missing": (
        "huggingface_hub is not installed",
        "install it beside gpud (`pip install '.[hub]'` in its folder), or fetch the files "
        "yourself and name their path",
    ),
    "gated": (
        "its licence has to be accepted first",
        "accept it on the hub, and set HF_TOKEN for gpud",
    ),
    "no_repository": (
        "there is no such repository, or it is private",
        "look at its name, or set HF_TOKEN for gpud",
    ),
    "no_revision": ("it has no such revision", "name a branch, a tag or a commit that it has"),
    "disabled": ("the hub has disabled it", "name another repository"),
}
