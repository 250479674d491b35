"""The program vllm on this host: found, its version, and its --help read once and kept.

Its --help takes it ten to twenty seconds, so it is read once for each build and kept in a file of
the state directory, and never by anybody who starts the daemon.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from gpud.engines.engine import EngineProgram
from gpud.engines.programs.asking import Asking, ask
from gpud.engines.vllm import command
from gpud.errors import EngineMissing
from gpud.models.model import EngineKind

HELP_LIMIT_SECONDS: Final = 180.0  # it took 8 s of a quiet machine of two cores, 24 of a busy one
VERSION_LIMIT_SECONDS: Final = 10.0
OUTPUT_LIMIT_BYTES: Final = 4 * 1024 * 1024  # 0.32 prints 155 kB
KEPT_NAME: Final = "flags.json"
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+!_-]{0,63}")
_SHEBANG = re.compile(rb"#!(/[^\s]+)")
_PYTHON = re.compile(r"python[0-9.]*")
_ASK_VERSION: Final = "import importlib.metadata as m; print(m.version('vllm'))"


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """What tells one installation from another at the same place, and what its --help names."""

    path: str
    words: tuple[str, ...]
    modified_nanoseconds: int
    size_bytes: int
    version: str
    flags: dict[str, str] = {}


class Programs:
    """Finds the program of a command; `folder` is where what was read of it is kept."""

    def __init__(self, words: tuple[str, ...], folder: Path) -> None:
        """`words` are the program, by its name on PATH or absolute, and what follows it."""
        self._words = words
        self._folder = folder
        self._known: Build | None = None
        self._reading = asyncio.Lock()

    async def find(self) -> EngineProgram:
        """The program with its version and flags. Raises EngineMissing."""
        async with self._reading:  # the second to ask waits for the first one's answer
            build = await self._identify()
            if self._known is None or not _same(self._known, build):
                self._known = await asyncio.to_thread(self._kept, build)
            if self._known is None:
                self._known = await self._examine(build)
                await asyncio.to_thread(self._keep, self._known)
        found = self._known
        return EngineProgram(
            kind=EngineKind.VLLM, path=found.path, version=found.version, flags=found.flags
        )

    async def _identify(self) -> Build:
        build = self._place()
        return msgspec.structs.replace(build, version=await self._version(Path(build.path)))

    def _place(self) -> Build:
        """Where it lies, and what tells this installation from another there."""
        name = self._words[0]
        path = shutil.which(name)
        if path is None:
            problem = "no such program" if "/" in name else "not on PATH"
            raise self._missing(name, f"{problem}: name it in engines.vllm.command")
        # Absolute, because the shim executes it in another directory.
        absolute = Path(path).absolute()
        stat = absolute.stat()
        return Build(
            path=str(absolute),
            words=self._words[1:],
            modified_nanoseconds=stat.st_mtime_ns,
            size_bytes=stat.st_size,
            version="",
        )

    async def _version(self, program: Path) -> str:
        """By the metadata of its interpreter's packages; "unknown" where that does not tell."""
        interpreter = _interpreter(program)
        if interpreter is None:
            return "unknown"
        asked = (interpreter, "-I", "-c", _ASK_VERSION)
        said = (await self._output_of(asked, VERSION_LIMIT_SECONDS)).strip()
        return said if _VERSION.fullmatch(said) else "unknown"

    async def _examine(self, build: Build) -> Build:
        asked = (build.path, *build.words, "--help=all")
        flags = command.read_flags(await self._output_of(asked, HELP_LIMIT_SECONDS))
        lacking = [flag for flag in command.NEEDED_FLAGS if flag not in flags]
        if lacking:
            problem = f"no vLLM that gpud can use: its --help lacks {', '.join(lacking)}"
            raise self._missing(build.path, problem)
        return msgspec.structs.replace(build, flags=flags)

    def _kept(self, build: Build) -> Build | None:
        """What an earlier life read of this very build."""
        try:
            kept = msgspec.json.decode((self._folder / KEPT_NAME).read_bytes(), type=Build)
        except (OSError, msgspec.DecodeError):
            return None
        return kept if _same(kept, build) else None

    def _keep(self, build: Build) -> None:
        """Best effort: without it, it is read again."""
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            new = self._folder / f"{KEPT_NAME}.new"
            new.write_bytes(msgspec.json.encode(build))
            new.replace(self._folder / KEPT_NAME)

    async def _output_of(self, asked: tuple[str, ...], limit_seconds: float) -> str:
        """What it prints when asked. Raises EngineMissing: it hangs, or cannot run."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        library_path = os.environ.get("LD_LIBRARY_PATH")
        asking = Asking(
            environment=command.bare_environment(library_path, str(self._folder)),
            limit_seconds=limit_seconds,
            limit_bytes=OUTPUT_LIMIT_BYTES,
            cwd=self._folder,
        )
        try:
            return await ask(asked, asking)
        except TimeoutError:
            problem = f"gives no end of {asked[-1]} within {limit_seconds:g} s"
            raise self._missing(asked[0], problem) from None
        except OSError as error:
            raise self._missing(asked[0], f"cannot be executed: {error.strerror}") from error

    def _missing(self, program: str, problem: str) -> EngineMissing:
        return EngineMissing(engine=EngineKind.VLLM.value, program=program, problem=problem)


def _same(one: Build, other: Build) -> bool:
    return msgspec.structs.replace(one, flags={}) == msgspec.structs.replace(other, flags={})


def _interpreter(program: Path) -> str | None:
    """Python itself where that is the program, else the one that the script names."""
    if _PYTHON.fullmatch(program.name):
        return str(program)
    try:
        with program.open("rb") as file:
            found = _SHEBANG.match(file.read(512))
    except OSError:
        return None
    interpreter = os.fsdecode(found[1]) if found else ""
    return interpreter if _PYTHON.fullmatch(Path(interpreter).name) else None
