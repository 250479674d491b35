"""Pure: which engine each option of a model belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Final

from gpud.errors import OptionInvalid
from gpud.models.model import EngineKind, ModelOptions

_VLLM_ALONE: Final = frozenset(
    {
        "dtype",
        "quantization",
        "kv_cache_dtype",
        "max_num_seqs",
        "max_num_batched_tokens",
        "tensor_parallel_size",
        "enforce_eager",
        "kv_cache_bytes",
        "sleep_mode",
    }
)
# `embedding` says what is served, which vLLM has to be told as well.
_BOTH: Final = frozenset({"context_length", "embedding"})
_ALL: Final = frozenset(field.name for field in fields(ModelOptions))

OPTIONS_OF: Final[Mapping[EngineKind, frozenset[str]]] = {
    EngineKind.LLAMA_CPP: _ALL - _VLLM_ALONE,
    EngineKind.VLLM: _VLLM_ALONE | _BOTH,
    # Its options are in its own argv, whatever they are.
    EngineKind.COMMAND: frozenset(),
}


def refuse_others(options: ModelOptions, kind: EngineKind) -> None:
    """Raise OptionInvalid for an option that was said and is not this engine's."""
    for name in sorted(_ALL - OPTIONS_OF[kind]):
        if getattr(options, name) is not None:
            owners = [other.value for other, names in OPTIONS_OF.items() if name in names]
            problem = f"it is an option of {' and '.join(owners)}, not of {kind.value}"
            raise OptionInvalid(field=name, problem=f"{problem}; leave it out")
