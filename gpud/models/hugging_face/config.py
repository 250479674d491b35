"""Pure: what a config.json, and the tensors beside it, say of a model's shape."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gpud.models.hugging_face.safetensors import SafetensorsInvalid, Weight
from gpud.models.model import ModelKind

MAX_LAYERS: Final = 1024
MAX_WIDTH: Final = 1 << 24
_ARCHITECTURE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
_WORD = re.compile(r"[A-Za-z0-9_-]{1,40}")
# As config.json spells them, by what a number takes.
_TYPES: Final = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Tensors of one type together: `matrices` are split among ranks, `vectors` are not."""

    dtype: str  # as safetensors spells it
    matrix_elements: int
    vector_elements: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HfModel:
    """A model in the form of the transformers library. Widths and counts are elements.

    `latent_width` is what is kept of a token in a layer where keys and values are compressed into
    one vector (MLA); None elsewhere. `dtype` is empty where the file names none.
    """

    architecture: str
    layers: int
    hidden_width: int
    feed_forward_width: int
    heads: int
    kv_heads: int
    head_width: int
    latent_width: int | None
    vocabulary: int
    context_trained: int | None
    dtype: str
    quantization: str
    groups: tuple[Group, ...]

    @property
    def parameter_count(self) -> int:
        """Numbers in all tensors; packed ones of a quantized model count once."""
        return sum(group.matrix_elements + group.vector_elements for group in self.groups)

    @property
    def file_bytes(self) -> int:
        """The tensors as they lie in the files."""
        return sum(group.bytes for group in self.groups)


def model_of(config: Mapping[str, Any], weights: Iterable[Weight]) -> HfModel:
    """The shape. Raises SafetensorsInvalid where the file does not describe a model."""
    # What sees, hears or speaks has the language model's shape one level down.
    inner = config.get("text_config")
    shape = inner if isinstance(inner, Mapping) else config
    heads = _count(shape, "num_attention_heads", MAX_WIDTH)
    hidden = _count(shape, "hidden_size", MAX_WIDTH)
    rank = _optional(shape, "kv_lora_rank")
    return HfModel(
        architecture=_architecture(config),
        layers=_count(shape, "num_hidden_layers", MAX_LAYERS),
        hidden_width=hidden,
        feed_forward_width=_feed_forward(shape, hidden),
        heads=heads,
        kv_heads=_optional(shape, "num_key_value_heads") or heads,
        head_width=_optional(shape, "head_dim") or max(hidden // heads, 1),
        latent_width=rank + (_optional(shape, "qk_rope_head_dim") or 0) if rank else None,
        vocabulary=_count(shape, "vocab_size", MAX_WIDTH),
        context_trained=_optional(shape, "max_position_embeddings"),
        dtype=_dtype(shape) or _dtype(config),
        quantization=_quantization(config),
        groups=_grouped(weights),
    )


def kind_of(config: Mapping[str, Any], names: Iterable[str], *, template: bool) -> ModelKind:
    """What it is made for, by its architecture's last words and the files beside it.

    `template`: it has a chat template. modules.json is of an embedder (sentence-transformers).
    """
    architecture = _architecture(config)
    if "ForSequenceClassification" in architecture:
        return ModelKind.RERANK
    if "modules.json" in names or architecture.endswith(("Model", "ForMaskedLM")):
        return ModelKind.EMBEDDING
    return ModelKind.CHAT if template else ModelKind.COMPLETION


def _architecture(config: Mapping[str, Any]) -> str:
    names = config.get("architectures")
    first = names[0] if isinstance(names, list) and names else None
    if not isinstance(first, str) or not _ARCHITECTURE.fullmatch(first):
        raise SafetensorsInvalid("config.json names no architecture")
    return first


def _count(shape: Mapping[str, Any], key: str, most: int) -> int:
    value = shape.get(key)
    if type(value) is not int or not 1 <= value <= most:
        raise SafetensorsInvalid(f"config.json has no usable {key}: {str(value)[:40]}")
    return value


def _optional(shape: Mapping[str, Any], key: str) -> int | None:
    if shape.get(key) is None:
        return None
    return _count(shape, key, MAX_WIDTH * 64)


def _feed_forward(shape: Mapping[str, Any], hidden: int) -> int:
    """The widest that a token's intermediate result becomes, its experts together."""
    routed = _optional(shape, "moe_intermediate_size") or 0
    used = _optional(shape, "num_experts_per_tok") or 1
    dense = _optional(shape, "intermediate_size") or 4 * hidden
    return max(dense, routed * used)


def _dtype(shape: Mapping[str, Any]) -> str:
    for key in ("dtype", "torch_dtype"):
        value = shape.get(key)
        if isinstance(value, str) and value in _TYPES:
            return value
    return ""


def _quantization(config: Mapping[str, Any]) -> str:
    told = config.get("quantization_config") or config.get("compression_config")
    if told is None:
        return ""
    method = told.get("quant_method") if isinstance(told, Mapping) else None
    if not isinstance(method, str) or not _WORD.fullmatch(method):
        raise SafetensorsInvalid("config.json names no method of its quantization")
    return method


def _grouped(weights: Iterable[Weight]) -> tuple[Group, ...]:
    found: dict[str, list[int]] = {}
    for weight in weights:
        sums = found.setdefault(weight.dtype, [0, 0, 0])
        sums[0 if len(weight.shape) > 1 else 1] += weight.elements
        sums[2] += weight.bytes
    return tuple(
        Group(dtype=dtype, matrix_elements=matrix, vector_elements=vector, bytes=size)
        for dtype, (matrix, vector, size) in sorted(found.items())
    )
