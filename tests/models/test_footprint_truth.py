"""The estimate against the buffers that the real server prints, cell by cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpud.models.model import FootprintWhat
from tests.models.truth import CELLS, Cell, Workbench

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def workbench(llama_server: Path, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return Workbench(llama_server, tmp_path_factory.mktemp("phantoms"))


def name(cell: Cell) -> str:
    said = cell.options
    return f"{cell.model}-{said.context_length}-{said.parallel}"


@pytest.mark.parametrize("cell", CELLS, ids=name)
def test_the_estimate_is_what_the_server_takes(cell: Cell, workbench: Workbench) -> None:
    told = workbench.compare(cell)
    assert 0.95 <= told.ratio <= 1.05
    assert told.short_bytes <= told.footprint.margin_bytes
    for exact in (FootprintWhat.WEIGHTS, FootprintWhat.KV_CACHE, FootprintWhat.STATE):
        # The server prints hundredths of a MiB, a line a buffer.
        assert told.estimated.get(exact, 0) == pytest.approx(
            told.printed.get(exact, 0), abs=25_000
        )


def test_a_server_that_does_not_load_is_told(workbench: Workbench, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    with pytest.raises(RuntimeError, match="did not load"):
        workbench.printed(tmp_path / "bad.gguf", CELLS[0].options)
