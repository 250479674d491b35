"""Random loads, unloads and kills on one daemon: no orphan, byte or descriptor stays behind."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench.compiler import compile_library
from tests.end_to_end.conftest import modelled  # noqa: F401 — a fixture
from tests.proof.cycling import KINDS, Cycles, folders_gone
from tests.proof.faults.world import World
from tests.proof.record import asked, record
from tests.running import Gpud

pytestmark = [
    pytest.mark.engine,
    pytest.mark.proof,
    pytest.mark.timeout(1800),
]
MakeGpud = Callable[..., Gpud]

CYCLES = asked(len(KINDS), 190)
SEED = 20261121
QUICK = '[health]\nbackoff_first = "20ms"\nbackoff_most = "100ms"\n'


async def test_cycles_of_llama_cpp_leave_nothing_behind(
    modelled: MakeGpud,  # noqa: F811
    llama_server: Path,
    tmp_path: Path,
) -> None:
    compile_library(Path(__file__).parent / "faults" / "world.c", tmp_path / "world.so")
    daemon = modelled(llama_server, models=QUICK)
    world = World(tmp_path, tmp_path / "world.so")
    daemon.environment |= world.environment
    daemon.start()
    cycles, began = Cycles(daemon=daemon, chance=random.Random(SEED)), time.monotonic()
    try:
        async with folders_gone(daemon, world.step_wall):
            await cycles.run(cycles.kinds(CYCLES))
    finally:
        seconds = time.monotonic() - began
        record("cycles llama.cpp", CYCLES, cycles.done, len(cycles.wrong), seconds)
    assert not cycles.wrong, "\n".join(cycles.wrong)
