"""The machine that looks for the ledger's bugs finds those that were put there: each of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.project.tree import ROOT
from tests.proof.record import record
from tests.proof.seeded.bugs import SEEDS, Seed

SEARCH = "from tests.ledger.test_machine import search; search()"
EXAMPLES = 600
SIDE_BY_SIDE = 2  # a search is bound by the processor
Run: TypeAlias = subprocess.CompletedProcess[str]
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Run], float]:
    """The searches through a sound ledger, which is the first, and each spoiled one; seconds."""
    began, folder = time.monotonic(), tmp_path_factory.mktemp("seeded")
    spoiled = [None, *SEEDS]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        copies = [folder / str(number) for number in range(len(spoiled))]
        return list(pool.map(searched, copies, spoiled)), time.monotonic() - began


def searched(copy: Path, seed: Seed | None) -> Run:
    """The machine in a copy of the ledger with this bug."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "gpud", copy / "gpud", ignore=ignored)
    for part in ("ledger", "fakes", "proof"):
        shutil.copytree(ROOT / "tests" / part, copy / "tests" / part, ignore=ignored)
    if seed is not None:
        path = copy / seed.file
        text = path.read_text()
        assert text.count(seed.old) == 1, f"{seed.what}: {seed.old!r} is not in {seed.file} once"
        path.write_text(text.replace(seed.old, seed.new))
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy),
        "PYTHONDONTWRITEBYTECODE": "1",
        "GPUD_TEST_EXAMPLES": str(EXAMPLES),
        # What was found in one spoiled ledger says nothing of the next.
        "HYPOTHESIS_STORAGE_DIRECTORY": str(copy / "found"),
    }
    return subprocess.run(
        [sys.executable, "-c", SEARCH],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.proof
def test_every_seeded_bug_is_caught(runs: tuple[list[Run], float]) -> None:
    (_, *found), seconds = runs
    missed = [
        (seed.what, run.stderr[-500:])
        for seed, run in zip(SEEDS, found, strict=True)
        if "AssertionError" not in run.stderr
    ]
    record(
        "R5 seeded bugs of the ledger, all caught",
        len(SEEDS),
        len(SEEDS) - len(missed),
        len(missed),
        seconds,
    )
    assert missed == [], "\n".join(f"{what}: {told}" for what, told in missed)


def test_the_copy_is_sound_without_a_seed(runs: tuple[list[Run], float]) -> None:
    """So what is caught above is the seed's doing."""
    (sound, *_), _ = runs
    assert sound.returncode == 0, sound.stderr[-2000:]
