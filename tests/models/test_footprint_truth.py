"""The estimate against the buffers that the real server prints, cell by cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpud.models.model import Confidence
from tests.models.grid.cells import GRID, SLICE, UNKNOWN, Cell
from tests.models.truth import Workbench, wrong

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def workbench(llama_server: Path, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return Workbench(llama_server, tmp_path_factory.mktemp("phantoms"))


@pytest.mark.parametrize("cell", SLICE, ids=lambda cell: cell.name)
def test_the_estimate_is_what_the_server_takes(cell: Cell, workbench: Workbench) -> None:
    assert wrong(workbench.compare(cell)) == []


def test_an_architecture_that_the_table_lacks_is_a_guess_with_a_wider_margin(
    workbench: Workbench,
) -> None:
    (unknown,) = [workbench.compare(cell) for cell in SLICE if cell.model in UNKNOWN]
    known = workbench.compare(SLICE[0])
    assert unknown.footprint.confidence is Confidence.GUESS
    assert known.footprint.confidence is Confidence.LAW
    assert unknown.footprint.margin_bytes > 0.15 * sum(unknown.estimated.values())
    assert unknown.short_bytes < unknown.footprint.margin_bytes


def test_the_grid_is_wide() -> None:
    assert len(GRID) >= 150
    assert len({cell.model for cell in GRID}) >= 24
    assert set(SLICE) <= set(GRID)


def test_a_server_that_does_not_load_is_told(workbench: Workbench, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    with pytest.raises(RuntimeError, match="did not load"):
        workbench.printed(tmp_path / "bad.gguf", SLICE[0].options)
