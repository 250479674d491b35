"""Daemons to be killed, and which proofs are for `make prove` alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.stub_engine import write_stub
from tests.proof.record import PROVING
from tests.real_engine import write_tiny
from tests.running import Gpud

# Minutes, and strace.
collect_ignore = [] if PROVING else ["test_syscalls.py"]


@pytest.fixture
def killable(tmp_path: Path) -> Callable[[int], Gpud]:
    def make(number: int) -> Gpud:
        directory = tmp_path / f"c{number}"
        directory.mkdir()
        write_tiny(directory / "tiny.gguf")
        engine = write_stub(directory)
        extra = (
            f'[engines.llama_cpp]\nbinary = "{engine}"\n[models]\nroots = ["{directory}"]\n'
            '[models.tiny]\npath = "tiny.gguf"\ncontext_length = 512\nparallel = 1\n'
        )
        return Gpud(directory=directory, cards=4, interval="20ms", extra=extra)

    return make
