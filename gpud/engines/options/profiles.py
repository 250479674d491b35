"""Pure: the profiles that gpud brings along: options for a kind of host, taken by name.

A profile of the configuration takes the place of one of the same name. What a load asks comes
before the model's entry, that before its profile, that before the engine's defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gpud.models.model import ModelOptions

BUILT_IN: Final[Mapping[str, ModelOptions]] = {
    # Eight mining cards of 6 GB behind a slow bus and two slow cores, 16 GB of RAM in all: small
    # batches keep the compute buffers small, a cache of bytes instead of halves doubles the
    # context, chunks are reused rather than computed again, and nothing is swapped.
    "p106-100": ModelOptions(
        context_length=8192,
        batch=128,
        ubatch=128,
        cache_type_k="q8_0",
        cache_type_v="q8_0",
        flash_attention="on",
        cache_reuse=256,
        continuous_batching=True,
        mlock=True,
        gpu_layers=999,  # all of them, as every build understands it
    ),
    # A text is embedded in one step, so `ubatch` is the longest text that is taken.
    "p106-100-embedding": ModelOptions(
        embedding=True,
        context_length=2048,
        batch=2048,
        ubatch=2048,
        cache_type_k="q8_0",
        cache_type_v="q8_0",
        flash_attention="on",
        continuous_batching=True,
        mlock=True,
        gpu_layers=999,
    ),
}
