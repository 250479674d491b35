"""strace: the system's own, else Debian's package unpacked into .build without being root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.project.tree import ROOT

PLACE = ROOT / ".build" / "strace"
LIBRARIES = PLACE / "usr" / "lib" / f"{os.uname().machine}-linux-gnu"
FETCH_SECONDS = 120.0


class StraceMissing(Exception):
    """There is none, and none could be had."""


@cache
def strace() -> tuple[str, ...]:
    """The command; what it runs gets the environment as it is. Raises StraceMissing."""
    own = PLACE / "usr" / "bin" / "strace"
    found = shutil.which("strace")
    if found is None and not own.exists():
        _fetch()
    if found is not None:
        return (found,)
    return ("env", f"LD_LIBRARY_PATH={LIBRARIES}", str(own), "-E", "LD_LIBRARY_PATH")


def _fetch() -> None:
    (ROOT / ".build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / ".build") as folder:
        try:
            for command in (
                ["apt-get", "download", "-qq", "strace", "libunwind8"],
                ["sh", "-c", "for deb in *.deb; do dpkg-deb -x $deb unpacked; done"],
            ):
                subprocess.run(
                    command, cwd=folder, check=True, capture_output=True, timeout=FETCH_SECONDS
                )
        except (OSError, subprocess.SubprocessError) as error:
            raise StraceMissing(
                f"cannot prove kills at system calls: no strace on PATH, and fetching Debian's "
                f"failed ({error}); install strace"
            ) from error
        shutil.move(Path(folder) / "unpacked", PLACE)
