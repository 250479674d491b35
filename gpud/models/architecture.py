"""Pure: what a GGUF header says of a model's shape, layer by layer."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from gpud.models.gguf import GgufHeader, GgufInvalid

MAX_LAYERS: Final = 1024
MAX_WIDTH: Final = 1 << 24

# Architectures whose laws (footprint.py) were compared with llama-server's own figures,
# build 11669; tests/models/truth.py repeats the comparison.
VERIFIED: Final = frozenset(
    {
        "baichuan", "bert", "cohere2", "deci", "deepseek2", "ernie4_5", "exaone", "falcon-h1",
        "gemma", "gemma2", "gemma3", "gpt-oss", "granite", "granitehybrid", "granitemoe",
        "hunyuan-dense", "internlm2", "jamba", "lfm2", "llama", "llama4", "mamba", "mamba2",
        "minicpm", "mistral3", "nemotron_h", "nomic-bert", "olmo2", "phi3", "qwen2", "qwen2moe",
        "qwen3", "qwen35", "qwen3moe", "qwen3next", "refact", "rwkv7", "smollm3", "xverse",
    }
)  # fmt: skip

# Every n-th layer sees the whole context, the others a window, where the file does not say so
# itself. An architecture that is not here is taken to see everything, which errs upwards: so
# phi3, whose files name a window that llama.cpp leaves aside.
_WINDOW_PERIODS: Final = {"cohere2": 4, "gemma2": 2, "gemma3": 6, "gpt-oss": 2, "llama4": 4}
# Windows that are not in the file at all.
_WINDOWS: Final = {"llama4": 8192}
# Attention and feed-forward (or state) beside each other: a row of E more waits for the other.
_SIDE_ROWS: Final = {"cohere2": 1, "falcon-h1": 1}
# Rows of E in an RWKV layer beside the residual ones: receptance, key, value, decay, …
_WKV_ROWS: Final = 15
# Linear attention by gated delta nets; their full attention has a gate as wide as its queries.
_DELTA_NETS: Final = frozenset({"qwen35", "qwen35moe", "qwen3next"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What one layer keeps between tokens.

    `key_width` and `value_width` are elements a cell of the cache, 0 where there is none;
    `state_width` is elements of recurrent state a slot, whatever the context.
    """

    key_width: int
    value_width: int
    windowed: bool
    state_width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Latent:
    """Attention over one compressed vector a token (MLA), and the widths of a head."""

    rank: int
    rope_width: int
    head_width: int


class RecurrenceKind(enum.Enum):
    """How a layer's state is computed."""

    SCAN = "scan"  # Mamba
    DELTA = "delta"  # a gated delta net
    WKV = "wkv"  # RWKV


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence:
    """Widths of a recurrent layer's intermediate results, in elements a token.

    `convolution_rows` are what the convolution keeps of the tokens before.
    """

    kind: RecurrenceKind
    projection_width: int
    convolution_width: int
    convolution_rows: int
    inner_width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A model's shape. Widths and counts are elements, never bytes."""

    name: str
    layers: tuple[Layer, ...]
    embedding_width: int
    feed_forward_width: int
    routed_width: int  # of the experts used for one token, together; 0 without experts
    experts_used: int
    heads: int
    head_width: int
    window: int | None
    latent: Latent | None
    recurrence: Recurrence | None
    side_rows: int  # of E, beside those of a graph of plain blocks
    gated_attention: bool  # its result is multiplied with a gate as wide as the queries
    gated_feed_forward: bool
    encoder: bool  # sees all tokens at once and keeps none
    pooled: bool
    vocabulary: int
    merges: int
    context_trained: int | None

    @property
    def verified(self) -> bool:
        """Whether the laws were compared with the engine for this architecture."""
        return self.name in VERIFIED

    @property
    def query_width(self) -> int:
        """Elements of all heads' queries."""
        return self.heads * self.head_width

    @classmethod
    def of(cls, header: GgufHeader) -> Architecture:
        """Read the shape. Raises GgufInvalid where the header contradicts itself or the limits."""
        if not header.architecture:
            raise GgufInvalid("names no architecture: not the first part of a model")
        keys = _Keys(header)
        count = keys.within("block_count", 1, MAX_LAYERS)
        embedding = keys.within("embedding_length", 1, MAX_WIDTH)
        heads = max(keys.per_layer("attention.head_count", count, 1), default=1)
        used = keys.optional("expert_used_count", 0)
        feed_forward = max(keys.per_layer("feed_forward_length", count, 0), default=0)
        expert_width = keys.optional("expert_feed_forward_length", 0) or feed_forward
        encoder = header.metadata.get(f"{header.architecture}.attention.causal") is False
        _refuse_zeros(keys, count)
        return cls(
            name=header.architecture,
            layers=_layers(keys, count, embedding, encoder=encoder),
            embedding_width=embedding,
            feed_forward_width=feed_forward,
            routed_width=used * expert_width,
            experts_used=used,
            heads=heads,
            head_width=keys.optional("attention.key_length", embedding // max(heads, 1)),
            window=_window(keys),
            latent=_latent(keys),
            recurrence=_recurrence(keys, embedding),
            side_rows=_SIDE_ROWS.get(header.architecture, 0),
            gated_attention=header.architecture in _DELTA_NETS,
            gated_feed_forward=any(t.name == "blk.0.ffn_gate.weight" for t in header.tensors),
            encoder=encoder,
            pooled=bool(keys.optional("pooling_type", 0)),
            vocabulary=header.count("tokenizer.ggml.tokens") or keys.optional("vocab_size", 0),
            merges=header.count("tokenizer.ggml.merges"),
            context_trained=keys.optional("context_length", 0) or None,
        )


class _Keys:
    """The header's keys of its own architecture, each within its limits."""

    def __init__(self, header: GgufHeader) -> None:
        self.header = header
        self.architecture = header.architecture

    def full(self, key: str) -> str:
        return f"{self.architecture}.{key}"

    def within(self, key: str, least: int, most: int) -> int:
        value = self.header.integer(self.full(key))
        if value is None:
            raise GgufInvalid(f"lacks the key {self.full(key)}")
        return self._bounded(key, value, least, most)

    def optional(self, key: str, default: int) -> int:
        value = self.header.integer(self.full(key))
        return default if value is None else self._bounded(key, value, 0, 1 << 31)

    def per_layer(self, key: str, count: int, default: int) -> tuple[int, ...]:
        """One value a layer, from an array or from one number for all."""
        if self.full(key) not in self.header.metadata:
            return (default,) * count
        values = self.header.integers(self.full(key))
        if values is None:
            return (self.within(key, 0, MAX_WIDTH),) * count
        if len(values) < count:
            raise GgufInvalid(f"has {len(values)} values of {self.full(key)} for {count} layers")
        return tuple(self._bounded(key, value, 0, MAX_WIDTH) for value in values[:count])

    def _bounded(self, key: str, value: int, least: int, most: int) -> int:
        if not least <= value <= most:
            raise GgufInvalid(f"has {self.full(key)} = {value}; {least} to {most} is believed")
        return value


def _refuse_zeros(keys: _Keys, count: int) -> None:
    """Zeros that no model has, and that end the engine at its first token or before.

    Layers without attention have no heads, but then they are recurrent, or others are not.
    """
    if keys.header.integer(keys.full("context_length")) == 0:
        raise GgufInvalid(f"has {keys.full('context_length')} = 0")
    if _recurrence(keys, 0) is not None:
        return
    for key in ("attention.head_count", "attention.head_count_kv"):
        if max(keys.per_layer(key, count, 1)) == 0:
            raise GgufInvalid(f"has {keys.full(key)} = 0, and no recurrent layers instead")


def _layers(keys: _Keys, count: int, embedding: int, *, encoder: bool) -> tuple[Layer, ...]:
    heads = keys.per_layer("attention.head_count", count, 0)
    kv_heads = (
        keys.per_layer("attention.head_count_kv", count, 0)
        if keys.full("attention.head_count_kv") in keys.header.metadata
        else heads
    )
    windowed = _windowed(keys, count)
    state = _state_width(keys, embedding)
    recurrent = _recurrent(keys, kv_heads)
    # Attention beside the state in every layer, unless it is RWKV, which has none.
    parallel = all(recurrent) and not keys.optional("wkv.head_size", 0)
    # The last layers of some models read the cache of an earlier one.
    own_cache = 0 if encoder else count - keys.optional("attention.shared_kv_layers", 0)
    latent = _latent(keys)
    layers: list[Layer] = []
    for index in range(count):
        default = embedding // max(heads[index], 1)
        key, value = _head_widths(keys, default, windowed=windowed[index])
        cached = index < own_cache and (parallel or not recurrent[index])
        if latent is not None:
            key_width, value_width = latent.rank + latent.rope_width, 0
        else:
            key_width, value_width = kv_heads[index] * key, kv_heads[index] * value
        layers.append(
            Layer(
                key_width=key_width if cached else 0,
                value_width=value_width if cached else 0,
                windowed=windowed[index],
                state_width=state if recurrent[index] else 0,
            )
        )
    return tuple(layers)


def _head_widths(keys: _Keys, default: int, *, windowed: bool) -> tuple[int, int]:
    """Elements of one head's key and value; layers with a window may have their own."""
    key = keys.optional("attention.key_length", default)
    value = keys.optional("attention.value_length", default)
    if not windowed:
        return key, value
    return (
        keys.optional("attention.key_length_swa", key),
        keys.optional("attention.value_length_swa", value),
    )


def _window(keys: _Keys) -> int | None:
    """Tokens that a layer with a window sees; None: every layer sees all."""
    default = _WINDOWS.get(keys.architecture, 0)
    return keys.optional("attention.sliding_window", default) or None


def _windowed(keys: _Keys, count: int) -> tuple[bool, ...]:
    """Which layers see a window of the context only."""
    pattern = keys.full("attention.sliding_window_pattern")
    if _window(keys) is None:
        return (False,) * count
    if flags := keys.header.integers(pattern):
        if len(flags) < count:
            raise GgufInvalid(f"has {len(flags)} values of {pattern} for {count} layers")
        return tuple(bool(flag) for flag in flags[:count])
    period = keys.header.integer(pattern) or _WINDOW_PERIODS.get(keys.architecture, 1)
    return tuple(index % period < period - 1 for index in range(count))


def _recurrent(keys: _Keys, kv_heads: tuple[int, ...]) -> tuple[bool, ...]:
    """Which layers keep a state instead of, or beside, a cache."""
    count = len(kv_heads)
    if keys.optional("wkv.head_size", 0):
        return (True,) * count
    if not (keys.optional("ssm.state_size", 0) or keys.optional("shortconv.l_cache", 0)):
        return (False,) * count
    if interval := keys.optional("full_attention_interval", 0):
        return tuple((index + 1) % interval != 0 for index in range(count))
    if 0 in kv_heads:
        # Where some layers are but a feed-forward, its width is told layer by layer.
        each = keys.header.integers(keys.full("feed_forward_length")) is not None
        widths = keys.per_layer("feed_forward_length", count, 0) if each else (0,) * count
        return tuple(
            heads == 0 and width == 0 for heads, width in zip(kv_heads, widths, strict=True)
        )
    return (True,) * count


def _state_width(keys: _Keys, embedding: int) -> int:
    """Elements of state a slot in a recurrent layer: convolution rows and state-space cells."""
    if rows := keys.optional("shortconv.l_cache", 0):
        return embedding * (rows - 1)
    recurrence = _recurrence(keys, embedding)
    if recurrence is None:
        return 0
    cells = keys.optional("ssm.state_size", 0) * recurrence.inner_width
    if recurrence.kind is RecurrenceKind.WKV:
        cells = keys.optional("wkv.head_size", 0) * embedding
    return recurrence.convolution_rows * recurrence.convolution_width + cells


def _recurrence(keys: _Keys, embedding: int) -> Recurrence | None:
    if keys.optional("wkv.head_size", 0):
        return Recurrence(
            kind=RecurrenceKind.WKV,
            projection_width=_WKV_ROWS * embedding,
            convolution_width=embedding,
            convolution_rows=keys.optional("token_shift_count", 2),
            inner_width=embedding,
        )
    inner = keys.optional("ssm.inner_size", 0)
    if not inner:
        return None
    groups = keys.optional("ssm.group_count", 0)
    convolution = inner + 2 * groups * keys.optional("ssm.state_size", 0)
    # With groups (Mamba 2) the time steps come out of the same projection.
    steps = keys.optional("ssm.time_step_rank", 0) if groups else 0
    delta = keys.architecture in _DELTA_NETS
    return Recurrence(
        kind=RecurrenceKind.DELTA if delta else RecurrenceKind.SCAN,
        projection_width=inner + convolution + steps,
        convolution_width=convolution,
        convolution_rows=max(keys.optional("ssm.conv_kernel", 1), 1) - 1,
        inner_width=inner,
    )


def _latent(keys: _Keys) -> Latent | None:
    """MLA, where the file was converted for it (older files expand every head instead)."""
    rank = keys.optional("attention.kv_lora_rank", 0)
    head = keys.optional("attention.key_length_mla", 0)
    if not rank or not head:
        return None
    return Latent(rank=rank, rope_width=keys.optional("rope.dimension_count", 0), head_width=head)
