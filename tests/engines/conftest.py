"""Programs that engine tests run: the stub always, the real llama-server where there is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gpud.engines.engine import StartRequest
from gpud.engines.llama.options import DEFAULTS
from gpud.models.model import EngineKind, Model, ModelKind, ModelOptions

ROOT = Path(__file__).parents[2]


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
