"""Programs that engine tests run: the stub always, the real llama-server where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpud.engines.engine import StartRequest
from gpud.engines.llama_command import DEFAULTS
from gpud.models.model import EngineKind, Model, ModelKind, ModelOptions

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def llama_server() -> str:
    """A real llama-server: $LLAMA_SERVER, else PATH, else the one in the project's own folder."""
    own = ROOT / ".build" / "llama" / "llama-server"
    found = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server")
    found = found or (str(own) if own.exists() else None)
    if found is None:
        pytest.skip("no llama-server; `make engine` gets one")
    return found


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid model of 1 MB with random weights."""
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    writer = ROOT / "packaging" / "tiny_model.py"
    subprocess.run([sys.executable, str(writer), str(path)], check=True, timeout=30)
    return path


Request = Callable[..., StartRequest]


@pytest.fixture
def request_for(tmp_path: Path) -> Request:
    """Makes a start request; `options` over the defaults."""

    def make(
        model_path: Path = Path("/srv/models/tiny.gguf"),
        *,
        kind: ModelKind = ModelKind.CHAT,
        options: ModelOptions | None = None,
        devices: tuple[str, ...] = (),
        port: int = 18080,
    ) -> StartRequest:
        return StartRequest(
            model=Model(
                id="tiny",
                engine=EngineKind.LLAMA_CPP,
                kind=kind,
                path=str(model_path),
                options=ModelOptions(),
            ),
            options=(options or ModelOptions()).over(DEFAULTS),
            model_path=model_path,
            host="127.0.0.1",
            port=port,
            visible_devices=devices,
            directory=tmp_path,
        )

    return make
