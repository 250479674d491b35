"""Pure: the options of a llama.cpp model: defaults, ranges, choices, and what excludes what."""

from __future__ import annotations

from typing import Final

from gpud.engines.options.limits import check_choices, check_ranges
from gpud.engines.options.ownership import refuse_others
from gpud.errors import OptionInvalid
from gpud.models.model import EngineKind, ModelOptions

DEFAULTS: Final = ModelOptions(
    context_length=4096,
    parallel=1,
    batch=2048,
    ubatch=512,
    cache_type_k="f16",
    cache_type_v="f16",
    flash_attention="auto",
    kv_unified=False,
    embedding=False,
)
# Least and most; wide enough for any model, narrow enough that no product overflows.
RANGES: Final = {
    "context_length": (1, 2**24),
    "parallel": (1, 256),
    "batch": (1, 2**16),
    "ubatch": (1, 2**16),
    "gpu_layers": (0, 9999),
    "threads": (1, 1024),
    "threads_batch": (1, 1024),
    "cache_reuse": (0, 2**20),
    "cache_ram_bytes": (0, 2**44),
    "sleep_idle_seconds": (0, 30 * 86400),
}
PLAIN_CACHE_TYPES: Final = ("f32", "f16", "bf16")
QUANTIZED_CACHE_TYPES: Final = ("q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
CHOICES: Final = {
    "cache_type_k": PLAIN_CACHE_TYPES + QUANTIZED_CACHE_TYPES,
    "cache_type_v": PLAIN_CACHE_TYPES + QUANTIZED_CACHE_TYPES,
    "flash_attention": ("on", "off", "auto"),
    "split_mode": ("none", "layer", "row"),
    "pooling": ("none", "mean", "cls", "last", "rank"),
}
MOST_DEVICES: Final = 16  # LLAMA_MAX_DEVICES, of llama.h
# Of a share, in any unit; below the least it would be written as nothing.
SHARE_RANGE: Final = (0.001, 10_000.0)


def check_options(options: ModelOptions) -> ModelOptions:
    """The options with the defaults filled in. Raises OptionInvalid naming the field."""
    refuse_others(options, EngineKind.LLAMA_CPP)
    checked = options.over(DEFAULTS)
    check_ranges(checked, RANGES)
    check_choices(checked, CHOICES)
    _check_together(checked)
    _check_split(checked)
    return checked


def _check_together(options: ModelOptions) -> None:
    """What is allowed by itself, but not with the rest."""
    context, slots = options.context_length or 0, options.parallel or 1
    batch, ubatch = options.batch or 0, options.ubatch or 0
    if ubatch > batch:
        raise OptionInvalid(field="ubatch", problem=f"{ubatch} is more than batch, {batch}")
    if context < slots:
        raise OptionInvalid(
            field="context_length", problem=f"{context} tokens are none for some of {slots} slots"
        )
    if options.cache_type_v in QUANTIZED_CACHE_TYPES and options.flash_attention == "off":
        raise OptionInvalid(
            field="cache_type_v",
            problem=f"{options.cache_type_v} needs flash_attention to be on or auto",
        )


def _check_split(options: ModelOptions) -> None:
    shares = options.tensor_split
    if shares is None:
        return
    least, most = SHARE_RANGE
    if not 1 <= len(shares) <= MOST_DEVICES:
        raise OptionInvalid(
            field="tensor_split", problem=f"{len(shares)} shares are not 1 to {MOST_DEVICES}"
        )
    for share in shares:
        if not least <= share <= most:  # nor is a NaN
            raise OptionInvalid(
                field="tensor_split",
                problem=f"{share:g} is not between {least:g} and {most:g}; "
                "a device that is to carry nothing is left out",
            )
    if len(shares) > 1 and options.split_mode == "none":
        raise OptionInvalid(
            field="split_mode",
            problem=f"none uses one device, and tensor_split names {len(shares)}",
        )
