"""gpud/v1 is what the pinned generator writes from proto/, byte for byte."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.project.tree import GENERATED, ROOT

GENERATOR = ROOT / ".build" / "gen" / "bin" / "python"


def test_committed_code_is_what_the_generator_writes(tmp_path: Path) -> None:
    if not GENERATOR.exists():
        pytest.fail(f"there is no {GENERATOR}; `make setup` installs the generator")
    subprocess.run(
        [ROOT / "proto" / "generate.sh", GENERATOR, tmp_path],
        check=True,
        capture_output=True,
        timeout=50,
    )
    fresh = {path.name: path.read_text() for path in (tmp_path / "gpud" / "v1").iterdir()}
    committed = {
        path.name: path.read_text()
        for path in GENERATED.glob("*_pb2*.py*")
        if path.suffix in {".py", ".pyi"}
    }
    assert sorted(committed) == sorted(fresh), "run `make proto` and commit what it writes"
    changed = [name for name in fresh if fresh[name] != committed[name]]
    assert not changed, "run `make proto` and commit what it writes"
