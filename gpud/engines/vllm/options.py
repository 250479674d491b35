"""Pure: the options of a vLLM model: defaults, ranges, choices, and what its model allows."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from gpud.engines.options.limits import check_choices, check_ranges
from gpud.engines.options.ownership import refuse_others
from gpud.errors import OptionInvalid
from gpud.models.hugging_face.config import HfModel
from gpud.models.hugging_face.footprint import keeps_nothing
from gpud.models.model import EngineKind, ModelOptions

DEFAULTS: Final = ModelOptions(
    dtype="auto",
    kv_cache_dtype="auto",
    max_num_seqs=16,
    max_num_batched_tokens=2048,
    tensor_parallel_size=1,
    enforce_eager=False,
    sleep_mode=False,
    embedding=False,
)
# Tokens of one sequence where nobody said, and the model was trained on at least so many.
DEFAULT_CONTEXT: Final = 4096
RANGES: Final = {
    "context_length": (1, 2**24),
    "max_num_seqs": (1, 2**14),
    "max_num_batched_tokens": (1, 2**20),
    "tensor_parallel_size": (1, 16),
    "kv_cache_bytes": (2**20, 2**44),
}
CHOICES: Final = {
    "dtype": ("auto", "half", "float16", "bfloat16", "float", "float32"),
    "kv_cache_dtype": ("auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2"),
}
# As vLLM names its methods; which of them there are depends on the build, and it says so itself.
_METHOD = re.compile(r"[a-z][a-z0-9_-]{0,39}")


def check_options(options: ModelOptions) -> ModelOptions:
    """The options with the defaults filled in. Raises OptionInvalid naming the field.

    `context_length` stays None where it was not said: what it then is, the model decides.
    """
    refuse_others(options, EngineKind.VLLM)
    checked = options.over(DEFAULTS)
    check_ranges(checked, RANGES)
    check_choices(checked, CHOICES)
    if checked.quantization is not None and not _METHOD.fullmatch(checked.quantization):
        problem = f"{checked.quantization[:40]!r} is no name of a method, such as awq or fp8"
        raise OptionInvalid(field="quantization", problem=problem)
    _check_together(checked)
    return checked


def _check_together(options: ModelOptions) -> None:
    tokens, sequences = options.max_num_batched_tokens or 0, options.max_num_seqs or 0
    if tokens < sequences:
        problem = f"{tokens} is less than max_num_seqs, {sequences}: each takes one of a step"
        raise OptionInvalid(field="max_num_batched_tokens", problem=problem)


def settle(options: ModelOptions, model: HfModel) -> ModelOptions:
    """Checked options with what the model decides filled in; nothing that matters is unsaid then.

    An encoder sees a whole text in one step, so its steps hold a whole context. Raises
    OptionInvalid for what this model cannot do.
    """
    trained = model.context_trained
    context = options.context_length
    if context is None:
        context = min(DEFAULT_CONTEXT, trained or DEFAULT_CONTEXT)
    elif trained is not None and context > trained:
        problem = f"{context} is more than the {trained} tokens that the model was trained on"
        raise OptionInvalid(field="context_length", problem=problem)
    ranks = options.tensor_parallel_size or 1
    if model.heads % ranks:
        problem = f"{model.heads} attention heads cannot be shared evenly by {ranks}"
        raise OptionInvalid(field="tensor_parallel_size", problem=problem)
    tokens = options.max_num_batched_tokens or context
    if keeps_nothing(model):
        tokens = max(tokens, context)
    return replace(options, context_length=context, max_num_batched_tokens=tokens)
