"""Options that come to nothing are told."""

from __future__ import annotations

import pytest

from gpud.instances.starting.ignoring import ignored_words
from gpud.models.model import EngineKind, ModelOptions

LLAMA = EngineKind.LLAMA_CPP
OF_CARDS = "tensor_split, split_mode, gpu_layers: no effect on host alone"
LOCKED = "mlock = false: no effect, policy.swap_disabled has it locked"


@pytest.mark.parametrize(
    ("options", "on_host", "is_locked", "told"),
    [
        ({"tensor_split": (1.0,), "split_mode": "row", "gpu_layers": 0}, True, False, OF_CARDS),
        ({"tensor_split": (1.0,), "split_mode": "row", "gpu_layers": 0}, False, False, ""),
        ({"gpu_layers": 7}, True, False, "gpu_layers: no effect on host alone"),
        ({"mlock": False}, True, True, LOCKED),
        ({"mlock": False}, False, False, ""),
        ({"mlock": True}, False, True, ""),
        ({}, True, True, ""),
    ],
)
def test_they_are_named_with_the_reason(
    options: dict[str, object], on_host: bool, is_locked: bool, told: str
) -> None:
    said = ModelOptions(**options)  # type: ignore[arg-type]
    assert ignored_words(LLAMA, said, on_host=on_host, is_locked=is_locked) == told
    assert ignored_words(EngineKind.VLLM, said, on_host=on_host, is_locked=is_locked) == ""
