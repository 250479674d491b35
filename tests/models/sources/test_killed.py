"""SIGKILL at any point of a download: what is left can be gone on with, or is nothing, or all."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpud.units import MIB
from tests.models.sources.downloading import fetch, left
from tests.models.sources.origin import Origin, cut, serving
from tests.proof.record import asked

CONTENT = random.Random(3).randbytes(2 * MIB + 5)
SEED = 5
# Downloads, and ends by SIGKILL just before the n-th time that anything is done to a file.
CHILD = """
import os, signal, sys
from pathlib import Path
from gpud.clock import SystemClock
from gpud.models.sources.jobs import Control
from gpud.models.sources.transfer import download, part
from gpud.models.sources.transfer.room import Room

url, sha256, folder, count = sys.argv[1:]
left, place = int(count), Path(folder) / "tiny.gguf"

def passing(call):
    def passed(*arguments, **named):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **named)
    return passed

for name in ("open", "pwrite", "ftruncate", "fsync", "rename", "replace", "unlink"):
    setattr(os, name, passing(getattr(os, name)))
terms = download.Terms(room=Room(0), max_bytes=2**30, back_off_seconds=0.001)
wanted = download.Wanted(url=url, place=place, sha256=sha256)
download.download(wanted, terms, Control(SystemClock(), lambda _: None), lambda *_: None)
print("points", -left)
"""


@pytest.fixture
def origin() -> Iterator[Origin]:
    with serving(Origin(CONTENT)) as made:
        yield made


def child(origin: Origin, folder: Path, number: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CHILD, origin.url, origin.sha256, str(folder), str(number)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_download_killed_anywhere(origin: Origin, tmp_path: Path) -> None:
    """The second connection goes on with what the first one brought: both ways are passed."""
    origin.manners.append(cut(MIB))
    ended = child(origin, tmp_path / "all", 0)
    assert ended.returncode == 0, ended.stderr
    points = int(ended.stdout.split()[1])
    assert points > 10
    chosen = random.Random(SEED).sample(range(1, points + 1), asked(12, points))
    kills = sum(killed_at(origin, tmp_path / f"{number}", number) for number in chosen)
    # The network may cut the body into fewer pieces than the first time: one may end before.
    assert kills >= len(chosen) // 2


def killed_at(origin: Origin, folder: Path, number: int) -> bool:
    """Whether it was killed there; what it left is as it may be, and the next one ends well."""
    origin.manners.clear()
    origin.manners.append(cut(MIB))
    ended = child(origin, folder, number)
    assert ended.returncode in {0, -signal.SIGKILL}, (number, ended.stderr)
    names, file = left(folder), folder / "tiny.gguf"
    assert set(names) <= {file.name, f"{file.name}.part", f"{file.name}.part.json"}
    if file.name not in names:
        assert ended.returncode != 0
        origin.manners.clear()
        fetch(origin, folder)
    assert file.read_bytes() == CONTENT, number
    shutil.rmtree(folder)
    return ended.returncode != 0
