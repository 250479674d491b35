"""Daemons with models: the real llama-server, and a stub whose manners a test chooses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.stub_engine import write_stub
from tests.running import Gpud

MakeGpud = Callable[..., Gpud]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def llama_server() -> Path:
    """The real one: $LLAMA_SERVER, else on PATH, else the project's own."""
    found = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server")
    path = Path(found) if found else ROOT / ".build" / "llama" / "llama-server"
    if not path.exists():
        pytest.fail("no llama-server: run packaging/get_engine.sh, or set $LLAMA_SERVER")
    return path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a few MiB that loads and answers nonsense."""
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    writer = ROOT / "packaging" / "tiny_model.py"
    subprocess.run(
        [sys.executable, str(writer), str(path), "--ctx", "32768"], check=True, timeout=60
    )
    return path


@pytest.fixture
def modelled(gpud: MakeGpud, tiny_model: Path) -> MakeGpud:
    """Makes daemons that know the model `tiny`, served by the program given."""

    def make(engine: Path, models: str = "", stall: str = "60s", **settings: Any) -> Gpud:
        made = gpud(cards=2, **settings)
        roots = made.directory / "models"
        roots.mkdir()
        shutil.copy(tiny_model, roots / "tiny.gguf")
        made.extra += (
            f'\n[engines.llama_cpp]\nbinary = "{engine}"\nload_stall = "{stall}"\n'
            f'[models]\nroots = ["{roots}"]\n'
            f'[models.tiny]\npath = "tiny.gguf"\ncontext_length = 512\nparallel = 1\n{models}'
        )
        return made

    return make


@pytest.fixture
def stubbed(modelled: MakeGpud, tmp_path: Path) -> MakeGpud:
    """Makes daemons whose engine is the stub, with the manners given."""

    def make(*manners: str, **settings: Any) -> Gpud:
        return modelled(write_stub(tmp_path, *manners), **settings)

    return make
