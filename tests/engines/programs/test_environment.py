"""What a server's environment holds, and what it inherits: nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpud.engines.programs.environment import server_environment
from tests.engines.conftest import Request


def test_environment_is_made_from_nothing(
    request_for: Request, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "1")
    own = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    base = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    host = server_environment(request_for(), None)
    assert host == base | own | {"CUDA_VISIBLE_DEVICES": ""}
    cards = server_environment(request_for(devices=("GPU-1", "GPU-2")), "/opt/cuda/lib64")
    assert cards["CUDA_VISIBLE_DEVICES"] == "GPU-1,GPU-2"
    assert cards["LD_LIBRARY_PATH"] == "/opt/cuda/lib64"
    # An empty part, or a relative one, is a folder that the engine may write to.
    mixed = server_environment(
        request_for(), ":/opt/cuda/lib64::lib:$ORIGIN:/usr/local/nvidia/lib"
    )
    assert mixed["LD_LIBRARY_PATH"] == "/opt/cuda/lib64:/usr/local/nvidia/lib"
    assert "LD_LIBRARY_PATH" not in server_environment(request_for(), ":lib:\n/x")
