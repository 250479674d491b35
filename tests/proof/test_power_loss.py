"""Power is lost at any moment of a recorded history: what was acknowledged is there after it."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpud.errors import StateDirectoryRefused
from gpud.state_directory import state_directory
from gpud.store import SqliteStore
from tests.bench.compiler import compile_library
from tests.project.tree import ROOT
from tests.proof.disk import MODES, Disk, Step, lay_out, steps
from tests.proof.history import PARTS, SEED, fingerprint, fingerprints, writes
from tests.proof.record import asked, record

pytestmark = [pytest.mark.proof, pytest.mark.timeout(900)]

IMAGES = asked(600, 6000)
LIFE_SECONDS = 60.0


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("recorder") / "recorder.so"
    compile_library(Path(__file__).with_name("recorder.c"), library)
    return library


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Images are thrown away at once: where there is memory for them, no disk is worn."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    yield folder
    shutil.rmtree(folder)


def recorded(folder: Path, recorder: Path, synchronous: str) -> list[Step]:
    """What three lives of the store told the disk."""
    root, log = folder / "root", folder / "log"
    root.mkdir()
    environment = {
        **os.environ,
        "LD_PRELOAD": str(recorder),
        "RECORD_FOLDER": str(root.resolve()),
        "RECORD_LOG": str(log),
    }
    for part in range(len(PARTS) - 1):
        subprocess.run(
            [sys.executable, "-m", "tests.proof.history", str(root), str(part), synchronous],
            check=True, timeout=LIFE_SECONDS, env=environment, cwd=ROOT,
        )  # fmt: skip
    return list(steps(log.read_bytes()))


def content(directory: Path) -> bytes:
    """What a starting daemon reads from an image. Raises when it cannot start, or finds damage."""
    with state_directory(directory) as own:
        store = SqliteStore(own)
        try:
            (sound,) = store._reader.execute("PRAGMA integrity_check").fetchone()
            assert sound == "ok", sound
            rows = store._reader.execute("SELECT kind, id, body FROM rows").fetchall()
            events = store._reader.execute(
                "SELECT sequence, type, subject, body FROM events"
            ).fetchall()
        finally:
            store._writer.close()
            store.close()
    return fingerprint(rows, events)


class Loss:
    """Images of one record, and what was found wrong with each."""

    def __init__(self, record_: list[Step], scratch: Path) -> None:
        self._steps = record_
        self._scratch = scratch
        self._prefixes = {found: number for number, found in enumerate(fingerprints(writes()))}
        self._folders = {step.path for step in record_ if step.op == "M"}
        self.images = 0
        self.wrong: list[str] = []

    def try_moments(self, count: int) -> None:
        """Images spread over the whole record, each mode of loss in its turn."""
        chance = random.Random(SEED)
        times = Counter(
            int(at * len(self._steps) / count) for at in range(count)
        )  # how many images after each step
        disk, acknowledged = Disk(), 0
        for at, step in enumerate(self._steps):
            if step.path == "acknowledged":
                acknowledged = int(step.data) if step.op == "W" else acknowledged
            else:
                disk.tell(step)
            for _ in range(times[at]):
                mode = MODES[self.images % len(MODES)]
                problem = self._problem(disk.lose_power(mode, chance), acknowledged)
                if problem:
                    self.wrong.append(
                        f"after step {at} ({step.op} {step.path}), {mode}: {problem}"
                    )

    def _problem(self, image: dict[str, bytes], acknowledged: int) -> str:
        root = self._scratch / f"i{self.images}"
        self.images += 1
        lay_out(image, self._folders, root)
        try:
            prefix = self._prefixes.get(content(root / "state"))
        except (StateDirectoryRefused, sqlite3.Error, AssertionError) as error:
            return str(error)
        finally:
            shutil.rmtree(root)
        if prefix is None:
            return f"it holds what no {acknowledged} or more writes in their order leave"
        return f"{prefix} of {acknowledged} are there" if prefix < acknowledged else ""


def test_a_loss_of_power_loses_nothing_that_was_acknowledged(
    tmp_path: Path, recorder: Path, scratch: Path
) -> None:
    began = time.monotonic()
    told = recorded(tmp_path, recorder, "FULL")
    # The record reaches all that SQLite does: the journal of the first transaction, a checkpoint
    # into the database while the log goes on, the removal of the log at an orderly end.
    done = Counter((step.op, step.path.removeprefix("state/")) for step in told)
    assert done["S", "state"] > 1
    assert done["S", "state.db"] >= 3
    assert done["U", "state.db-wal"] == 1
    assert done["W", "acknowledged"] == PARTS[-1]

    loss = Loss(told, scratch)
    loss.try_moments(IMAGES)

    record("R3 power loss, synchronous=FULL: images", IMAGES, loss.images, len(loss.wrong),
           time.monotonic() - began)  # fmt: skip
    assert loss.wrong == []


def test_the_proof_finds_out_a_store_that_does_not_sync(
    tmp_path: Path, recorder: Path, scratch: Path
) -> None:
    began = time.monotonic()
    loss = Loss(recorded(tmp_path, recorder, "NORMAL"), scratch)
    loss.try_moments(IMAGES // 4)
    lost = [problem for problem in loss.wrong if "are there" in problem]
    title = "R3 the same with synchronous=NORMAL must lose: images that lost something, at least"
    seconds, none = time.monotonic() - began, int(len(lost) <= IMAGES // 40)
    record(title, IMAGES // 40, len(lost), none, seconds)
    assert len(lost) > IMAGES // 40
