"""All engines that gpud knows, made from the configuration."""

from __future__ import annotations

from pathlib import Path

from gpud.engines.command.engine import CommandEngine, SpecAt
from gpud.engines.engine import Engine
from gpud.engines.llama.engine import LlamaCpp
from gpud.engines.probe import HttpProbe
from gpud.engines.vllm.engine import Vllm
from gpud.models.model import EngineKind
from gpud.settings import Engines


def engines(settings: Engines, directory: Path, spec_at: SpecAt) -> dict[EngineKind, Engine]:
    """By kind. `directory` is where one may keep what it found out about its program."""
    probe = HttpProbe()
    return {
        EngineKind.LLAMA_CPP: LlamaCpp(settings.llama_cpp.binary, probe),
        EngineKind.VLLM: Vllm(settings.vllm.command, directory / "vllm", probe),
        EngineKind.COMMAND: CommandEngine(probe, spec_at),
    }
