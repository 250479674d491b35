"""The program of a command: looked at before it is executed with gpud's rights."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from gpud.errors import EngineMissing


class ProgramRefused(EngineMissing):
    """A command's program is not there, or others than root and gpud's user could change it."""

    def __str__(self) -> str:
        return f"cannot run {self.program}: {self.problem}"


def check_program(path: str) -> None:
    """Raise ProgramRefused unless root or our user owns it, and nobody else can put another there.

    Links are followed; of what they lead to each folder counts too, as whoever may write to one
    can replace what lies in it. Blocks on the disk, for a few calls of stat.
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


def _refused(path: str, problem: str) -> ProgramRefused:
    return ProgramRefused(engine="command", program=path, problem=problem)
