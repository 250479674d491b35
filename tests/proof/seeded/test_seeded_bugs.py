"""The machine that looks for the ledger's bugs finds those that were put there: each of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.project.tree import ROOT
from tests.proof.record import record
from tests.proof.seeded.bugs import SEEDS, Seed

SEARCH = "from tests.ledger.test_machine import search; search()"
EXAMPLES = 600


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger and its machine, to be spoiled."""
    folder = tmp_path_factory.mktemp("seeded")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "gpud", folder / "gpud", ignore=ignored)
    for part in ("ledger", "fakes", "proof"):
        shutil.copytree(ROOT / "tests" / part, folder / "tests" / part, ignore=ignored)
    return folder


def search(copy: Path) -> subprocess.CompletedProcess[str]:
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


def planted(copy: Path, seed: Seed) -> str:
    path = copy / seed.file
    text = path.read_text()
    assert text.count(seed.old) == 1, f"{seed.what}: {seed.old!r} is not in {seed.file} once"
    path.write_text(text.replace(seed.old, seed.new))
    return text


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_every_seeded_bug_is_caught(copy: Path) -> None:
    began = time.monotonic()
    missed = []
    for seed in SEEDS:
        clean = planted(copy, seed)
        run = search(copy)
        if "AssertionError" not in run.stderr:
            missed.append((seed.what, run.stderr[-500:]))
        (copy / seed.file).write_text(clean)
    record(
        "R5 seeded bugs of the ledger, all caught",
        len(SEEDS),
        len(SEEDS) - len(missed),
        len(missed),
        time.monotonic() - began,
    )
    assert missed == [], "\n".join(f"{what}: {told}" for what, told in missed)


def test_the_copy_is_sound_without_a_seed(copy: Path) -> None:
    """So what is caught above is the seed's doing."""
    run = search(copy)
    assert run.returncode == 0, run.stderr[-2000:]
