"""The same cycles with the real vLLM, whose processes hide their names; `make prove` alone."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models.hugging_face.writing import write_folder
from tests.proof.cycling import Cycles
from tests.proof.record import PROVING, record
from tests.running import Gpud

# Where `make vllm` puts it.
PROGRAM = Path(__file__).parents[2] / ".build" / "vllm" / "bin" / "vllm"
CYCLES = 10
SEED = 5
START_SECONDS = 240.0  # on two busy cores
MODEL = """
[models.tiny]
engine = "vllm"
path = "tiny"
context_length = 512
max_num_seqs = 4
max_num_batched_tokens = 512
dtype = "float32"
enforce_eager = true
"""

pytestmark = [
    pytest.mark.proof,
    pytest.mark.timeout(CYCLES * 2 * START_SECONDS),
    pytest.mark.skipif(not PROVING, reason="ten starts of vLLM: `make prove` runs them"),
    pytest.mark.skipif(not PROGRAM.exists(), reason="no vLLM: run `make vllm` first"),
]


@pytest.fixture
def daemon() -> Iterator[Gpud]:
    """One that knows a tiny model; its folder's name is short, for vLLM's sockets lie there."""
    directory = Path(tempfile.mkdtemp(prefix="gpud-cycles."))
    write_folder(directory / "models" / "tiny")
    gpud = Gpud(
        directory=directory,
        cards=0,
        extra=f'\n[engines.vllm]\ncommand = ["{PROGRAM}", "serve"]\n'
        '[health]\nbackoff_first = "100ms"\nbackoff_most = "200ms"\n'
        f'[models]\nroots = ["{directory / "models"}"]\n{MODEL}',
    )
    try:
        yield gpud.start()
    finally:
        gpud.end()
        shutil.rmtree(directory, ignore_errors=True)


async def test_cycles_of_vllm_leave_nothing_behind(daemon: Gpud) -> None:
    cycles = Cycles(daemon=daemon, chance=random.Random(SEED), patience_seconds=START_SECONDS)
    began = time.monotonic()
    try:
        await cycles.run(cycles.kinds(CYCLES))
    finally:
        seconds = time.monotonic() - began
        record("cycles vllm", CYCLES, cycles.done, len(cycles.wrong), seconds)
    assert not cycles.wrong, "\n".join(cycles.wrong)
