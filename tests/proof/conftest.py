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


def daemon(directory: Path, engine: Path | None = None) -> Gpud:
    """Four simulated cards, and the model `tiny` on a stub, or on the engine given."""
    directory.mkdir()
    write_tiny(directory / "tiny.gguf")
    program = engine or write_stub(directory, "--lose-port", str(directory / "lose-port"))
    extra = (
        f'[engines.llama_cpp]\nbinary = "{program}"\n[models]\nroots = ["{directory}"]\n'
        '[models.tiny]\npath = "tiny.gguf"\ncontext_length = 512\nparallel = 1\n'
        '[health]\nbreaker_failures = 3\nbackoff_first = "50ms"\nbackoff_most = "100ms"\n'
        '[events]\nmax_bytes = "64KiB"\n'
    )
    return Gpud(directory=directory, cards=4, interval="20ms", extra=extra)


@pytest.fixture
def killable(tmp_path: Path) -> Callable[[int], Gpud]:
    """Makes them, numbered, with the stub."""
    return lambda number: daemon(tmp_path / f"c{number}")


@pytest.fixture
def real(tmp_path: Path, llama_server: Path) -> Gpud:
    """One with the real llama-server."""
    return daemon(tmp_path / "real", llama_server)
