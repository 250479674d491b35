"""Pure: options that somebody asked for and that come to nothing here, to be told rather than met.

They are not refused: a model's entry says them once, for whichever device it is loaded on.
"""

from __future__ import annotations

from typing import Final

from gpud.models.model import EngineKind, ModelOptions

# Of llama.cpp: what says how a model lies on cards.
_OF_CARDS: Final = ("tensor_split", "split_mode", "gpu_layers")


def ignored_words(
    engine: EngineKind, options: ModelOptions, *, on_host: bool, is_locked: bool
) -> str:
    """`gpu_layers: there is no card on host`; empty where all that was asked for holds.

    `is_locked`: policy.swap_disabled has the engine lock its memory.
    """
    if engine is not EngineKind.LLAMA_CPP:
        return ""
    said = [name for name in _OF_CARDS if getattr(options, name) is not None] if on_host else []
    parts = [f"{', '.join(said)}: no effect on host alone"] if said else []
    if options.mlock is False and is_locked:
        parts.append("mlock = false: no effect, policy.swap_disabled has it locked")
    return "; ".join(parts)
