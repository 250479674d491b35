"""The estimate of every cell of the grid against the buffers that the real server prints."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.models.grid.cells import GRID
from tests.models.truth import Workbench, summary, table, wrong
from tests.proof.record import asked, record

pytestmark = [pytest.mark.proof, pytest.mark.engine, pytest.mark.timeout(600)]


def test_no_cell_of_the_grid_is_estimated_wrongly(llama_server: Path, tmp_path: Path) -> None:
    wanted = GRID[:: len(GRID) // asked(in_test=12, in_prove=len(GRID))]
    workbench = Workbench(llama_server, tmp_path)
    began = time.monotonic()
    done = [workbench.compare(cell) for cell in wanted]
    seconds = time.monotonic() - began
    violations = [problem for each in done for problem in wrong(each)]
    record("Footprint grid cells", len(wanted), len(done), len(violations), seconds)
    print(table(done))
    assert violations == [], summary(done)
