"""The program of a command: looked at before it is executed with gpud's rights."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from gpud import threads
from gpud.errors import EngineMissing


class ProgramRefused(EngineMissing):
    """A command's program is not there, or others than root and gpud's user could change it."""

    def __str__(self) -> str:
        return f"cannot run {self.program}: {self.problem}"


# A disk that answers needs milliseconds.
LOOK_SECONDS: Final = 10.0


class Looks:
    """Looks at programs off the loop; at each by one thread, though that may hang for ever."""

    def __init__(self, check: Callable[[str], None] | None = None) -> None:
        """Another `check` stands in for a disk that misbehaves."""
        self._check = check or check_program
        self._under_way: dict[str, asyncio.Future[ProgramRefused | None]] = {}

    async def check(self, path: str, limit_seconds: float = LOOK_SECONDS) -> None:
        """As check_program. Raises ProgramRefused, also where there is no answer in time.

        And ThreadRefused.
        """
        asked = self._under_way.get(path) or self._begin(path)
        await asyncio.wait({asked}, timeout=limit_seconds)
        if not asked.done():
            raise _refused(path, f"cannot be looked at within {limit_seconds:g} s: its disk hangs")
        refused = asked.result()
        if refused is not None:
            raise _refused(path, refused.problem)

    def _begin(self, path: str) -> asyncio.Future[ProgramRefused | None]:
        loop = asyncio.get_running_loop()
        asked: asyncio.Future[ProgramRefused | None] = loop.create_future()

        def settle(refused: ProgramRefused | None) -> None:
            del self._under_way[path]
            asked.set_result(refused)

        def run() -> None:
            refused = None
            try:
                self._check(path)
            except ProgramRefused as error:
                refused = error
            except Exception as error:  # noqa: BLE001 — refused, whatever it is
                refused = _refused(path, str(error))
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, refused)

        threads.start(run, f"look {path[-40:]}", f"look at {path}")
        self._under_way[path] = asked
        return asked


def check_program(path: str) -> None:
    """Raise ProgramRefused unless root or our user owns it, and nobody else can put another there.

    Links are followed; of what they lead to each folder counts too, as whoever may write to one
    can replace what lies in it. A group may write where it is root's, or our own primary one.
    Blocks on the disk, for a few calls of stat: on a share that hangs, for ever.
    """
    real = Path(os.path.realpath(path))
    try:
        status = real.stat()
        if not stat.S_ISREG(status.st_mode):
            raise _refused(path, "is not a regular file")
        if not os.access(real, os.X_OK):
            raise _refused(path, "is not executable: chmod +x it")
        for place in (real, *real.parents):
            _check_place(path, place, place.stat())
    except OSError as error:
        raise _refused(path, (error.strerror or str(error)).lower()) from error


def _check_place(path: str, place: Path, status: os.stat_result) -> None:
    where = "" if str(place) == path else f"{place} "
    if status.st_uid not in {0, os.geteuid()}:
        raise _refused(
            path, f"{where}belongs to another user: give it to root or to the user gpud runs as"
        )
    shared = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & stat.S_IWOTH and not shared:
        raise _refused(path, f"{where}may be written by anybody: chmod o-w it")
    trusted = status.st_gid in {0, os.getegid()}
    if status.st_mode & stat.S_IWGRP and not trusted and not shared:
        raise _refused(path, f"{where}may be written by the group {status.st_gid}: chmod g-w it")


def _refused(path: str, problem: str) -> ProgramRefused:
    return ProgramRefused(engine="command", program=path, problem=problem)
