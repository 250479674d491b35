"""Each fault of an engine in each phase of its life: state, bytes, event and code as written."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench.compiler import compile_library
from tests.end_to_end.conftest import modelled  # noqa: F401 — a fixture
from tests.proof.engine_faults.cells import FAULTS, IN_TEST, MATRIX, PHASES, Expected
from tests.proof.engine_faults.playing import SETTINGS, STALL, Stage
from tests.proof.record import PROVING, record
from tests.running import Gpud

APPLICABLE = {names: cell for names, cell in MATRIX.items() if isinstance(cell, Expected)}
ASKED = tuple(APPLICABLE) if PROVING else IN_TEST
MakeGpud = Callable[..., Gpud]


def test_every_cell_is_there() -> None:
    assert set(MATRIX) == {(fault, phase) for fault in FAULTS for phase in PHASES}
    assert set(IN_TEST) <= set(APPLICABLE)
    assert {fault for fault, _ in IN_TEST} == set(FAULTS)


@pytest.mark.proof
@pytest.mark.timeout(900)
async def test_each_fault_in_each_phase(
    modelled: MakeGpud,  # noqa: F811
    tmp_path: Path,
) -> None:
    compile_library(Path(__file__).with_name("refuse.c"), tmp_path / "refuse.so")
    (tmp_path / "stub").mkdir()
    engine, refusal = tmp_path / "llama-server", tmp_path / "refuse"
    daemon = modelled(engine, models=SETTINGS, stall=STALL)
    daemon.environment |= {
        "LD_PRELOAD": str(tmp_path / "refuse.so"),
        "REFUSE_SPAWNS": str(refusal),
    }
    stage = Stage(daemon=daemon, engine=engine, refusal=refusal, held=tmp_path / "held")
    stage._write_engine([])
    daemon.start()
    wrong, done, began = [], 0, time.monotonic()
    try:
        for names in ASKED:
            found = await stage.play(*names)
            done += 1
            if found != APPLICABLE[names]:
                wrong.append(f"{' × '.join(names)}: {found}, not {APPLICABLE[names]}")
    finally:
        seconds = time.monotonic() - began
        record("R4 faults of engines × phases: cells", len(ASKED), done, len(wrong), seconds)
    assert not wrong, "\n".join(wrong)
