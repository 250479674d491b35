"""Each fault in each phase: state, bytes, event and code are as the matrix says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.bench.compiler import compile_library
from tests.proof.faults.__main__ import table
from tests.proof.faults.expected import FAULTS, PHASES, Expectation, NotApplicable
from tests.proof.faults.matrix import IN_TEST, MATRIX
from tests.proof.faults.on_desk import ON_DESK
from tests.proof.faults.playing import play
from tests.proof.record import PROVING, record
from tests.proof.test_full_disk import allowed

APPLICABLE = {names: cell for names, cell in MATRIX.items() if isinstance(cell, Expectation)}
ASKED = tuple(APPLICABLE) if PROVING else IN_TEST


@dataclass
class Tally:
    done: int = 0
    wrong: int = 0


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    """How many cells were shown, kept for the table of proofs."""
    counted, began = Tally(), time.monotonic()
    yield counted
    record("R4 faults × phases: cells", len(ASKED), counted.done, counted.wrong,
           time.monotonic() - began)  # fmt: skip


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("world") / "world.so"
    compile_library(Path(__file__).with_name("world.c"), target)
    return target


def test_every_cell_is_there() -> None:
    assert set(MATRIX) == {(fault, phase) for fault in FAULTS for phase in PHASES}
    for names, cell in MATRIX.items():
        if isinstance(cell, NotApplicable):
            assert cell.why, names
        else:
            assert all((cell.state, cell.bytes, cell.event, cell.code)), names
            assert bool(cell.on_desk) == (names in ON_DESK), names


def test_what_the_tests_have_time_for_shows_each_phase_and_each_fault_but_one() -> None:
    assert set(IN_TEST) <= set(APPLICABLE)
    assert {fault for fault, _ in IN_TEST} == set(FAULTS) - {"samples stale"}
    assert {phase for _, phase in IN_TEST} == set(PHASES)


def test_the_table_has_a_line_for_each_cell() -> None:
    lines = table().splitlines()
    assert len([line for line in lines if line.startswith(PHASES)]) == len(MATRIX)


@pytest.mark.proof
@pytest.mark.parametrize("names", ASKED, ids=" × ".join)
async def test_cell(names: tuple[str, str], tmp_path: Path, library: Path, tally: Tally) -> None:
    expected = APPLICABLE[names]
    if names[0] == "disk full" and not allowed(tmp_path):
        pytest.skip("no file system of its own may be mounted here")
    tally.done += 1
    tally.wrong += 1  # until it has ended well
    if names in ON_DESK:
        found, log = ON_DESK[names](), ""
        expected = replace(expected, on_desk="")
    else:
        found, log = await play(tmp_path / "d", library, names, expected)
    tally.wrong -= found == expected
    assert found == expected, f"{' × '.join(names)}\n{log}"
