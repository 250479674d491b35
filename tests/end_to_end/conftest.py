"""Daemons with models: the real llama-server, and a stub whose manners a test chooses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.stub_engine import write_stub
from tests.running import Gpud

MakeGpud = Callable[..., Gpud]
HANG_SECONDS = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole lives of daemons and engines: on a slow host a test of this room takes its minutes."""
    for item in items:
        is_ours = Path(__file__).parent in item.path.parents
        if is_ours and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(HANG_SECONDS))


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
