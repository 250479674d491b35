"""Pure: the bytes that vLLM will need, item by item, from a model's shape and the options.

The cache is exact, and pinned: vLLM is told its bytes (`memory.py` in engines/vllm). The weights
are what the files hold, in the type that is computed in. The rest is what vLLM 0.32 was measured
to take on a CPU, and stated defaults for cards, which nobody has measured; so the margin of a card
is the wider one until a load there was measured.

In what follows T is the tokens of one step, H the hidden width, F the feed-forward width, and a
rank one of the processes that a model is split among (tensor parallelism), each with a device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gpud.devices.snapshot import DeviceKind
from gpud.models.footprint import DeviceTraits
from gpud.models.hugging_face.config import Group, HfModel
from gpud.models.model import (
    Confidence,
    Footprint,
    FootprintItem,
    FootprintWhat,
    ModelOptions,
)
from gpud.units import MIB, format_size

# Architectures whose cache and weights were compared with vLLM 0.32's own figures.
VERIFIED: Final = frozenset({"LlamaForCausalLM"})
# They see all tokens at once and keep none between requests.
ENCODERS: Final = ("Bert", "Roberta", "XLMRoberta", "NomicBert", "ModernBert", "Gte", "MPNet")

# Tokens of one block of the cache: vLLM's choice for a CPU, and for cards.
HOST_BLOCK_TOKENS: Final = 128
CARD_BLOCK_TOKENS: Final = 16
CARD_LATENT_BLOCK_TOKENS: Final = 64  # kernels for compressed keys and values
DEFAULT_BYTES: Final = 2  # `auto` computes in half precision, whatever the file holds
TYPE_BYTES: Final = {"half": 2, "float16": 2, "bfloat16": 2, "float": 4, "float32": 4}
_FLOATS: Final = ("F16", "BF16", "F32", "F64")
_FLOAT_BYTES: Final = 4
_LOGIT_COPIES: Final = 3  # as computed, sorted, and as probabilities

# Resident bytes that no file backs (RssAnon), vLLM 0.32 on a CPU with a model of 0.5 MB, its cache
# apart: measured, idle and after requests. A tokenizer's share grows with its vocabulary.
API_SERVER_BYTES: Final = 424 * MIB
ENGINE_CORE_BYTES: Final = 392 * MIB
WORKER_BYTES: Final = 424 * MIB
TRACKER_BYTES: Final = 8 * MIB
COMPILED_BYTES: Final = 64 * MIB  # more in each worker without enforce_eager
COMPILER_BYTES: Final = 384 * MIB  # the C++ compiler beside it, while it starts
TOKEN_BYTES: Final = 1024
# Stated defaults of cards, unmeasured, on the high side of what is reported for them.
CARD_WORKER_BYTES: Final = 1024 * MIB  # RAM: CUDA's libraries and pinned buffers
# The driver's context with torch's kernels, and workspaces of cuBLAS and of attention.
CARD_CONTEXT_BYTES: Final = 896 * MIB
GRAPH_BYTES: Final = 128 * MIB  # CUDA graphs: once, and for each layer
GRAPH_LAYER_BYTES: Final = 12 * MIB
RANK_BYTES: Final = 512 * MIB  # NCCL's buffers, and those of all-reduce

LAW_MARGIN: Final = (0.03, 64 * MIB)
GUESS_MARGIN: Final = (0.10, 256 * MIB)
RAM_MARGIN: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A model, its options with nothing unsaid, and where it is to lie."""

    model: HfModel
    device: DeviceTraits
    ranks: int
    context: int
    sequences: int
    tokens: int  # of one step
    type_bytes: int
    cache_bits: int  # of one number in the cache
    eager: bool
    pinned_bytes: int | None

    @classmethod
    def of(cls, model: HfModel, options: ModelOptions, device: DeviceTraits) -> _Plan:
        context = options.context_length or model.context_trained or 4096
        type_bytes = TYPE_BYTES.get(options.dtype or "auto", DEFAULT_BYTES)
        return cls(
            model=model,
            device=device,
            ranks=options.tensor_parallel_size or 1,
            context=min(context, model.context_trained or context),
            sequences=options.max_num_seqs or 1,
            tokens=options.max_num_batched_tokens or context,
            type_bytes=type_bytes,
            cache_bits=_cache_bits(options.kv_cache_dtype or "auto", type_bytes),
            eager=bool(options.enforce_eager),
            pinned_bytes=options.kv_cache_bytes,
        )

    @property
    def on_host(self) -> bool:
        return self.device.kind is DeviceKind.HOST

    @property
    def split(self) -> str:
        return f", 1 of {self.ranks} ranks" if self.ranks > 1 else ""


def estimate(model: HfModel, options: ModelOptions, device: DeviceTraits) -> Footprint:
    """The bytes that a load with these options needs on each of its devices.

    Options that are None are taken as one sequence of the whole context. On the host all that its
    processes need; on a card what lies there, the rest being `host_bytes`.
    """
    plan = _Plan.of(model, options, device)
    items = [_weights(plan), _cache(plan), _compute(plan), _output(plan), _context(plan)]
    checked = plan.on_host and model.architecture in VERIFIED and not model.quantization
    confidence = Confidence.LAW if checked else Confidence.GUESS
    items = [item for item in items if item.bytes]
    items.append(_margin(sum(item.bytes for item in items), confidence, plan))
    return Footprint(items=tuple(items), confidence=confidence)


def host_bytes(model: HfModel, options: ModelOptions, device: DeviceTraits) -> int:
    """The RAM that its processes need beside a card; 0 on the host itself."""
    plan = _Plan.of(model, options, device)
    if plan.on_host:
        return 0
    size = _front_bytes(plan)
    size += plan.ranks * (WORKER_BYTES + CARD_WORKER_BYTES + (0 if plan.eager else COMPILED_BYTES))
    if options.sleep_mode:
        # Where they lie while it sleeps: promised from the load on, so that no sleep can fail.
        size += plan.ranks * _weights(plan).bytes
    return int(size * (1 + RAM_MARGIN))


def cache_bytes(model: HfModel, options: ModelOptions, device: DeviceTraits) -> int:
    """What the cache is told to take on each device, in bytes; 0 for a model that keeps none.

    As pinned by kv_cache_bytes, else room for max_num_seqs sequences of context_length tokens at
    once, so that none is ever put off for want of it: layers · numbers a token · blocks, and one
    block more, which vLLM keeps for itself.
    """
    return _cache(_Plan.of(model, options, device)).bytes


def overhead_bytes(model: HfModel, options: ModelOptions, device: DeviceTraits) -> int:
    """What of its promise lies outside of torch's own memory: on a card the driver's context."""
    return _context(_Plan.of(model, options, device)).bytes


def keeps_nothing(model: HfModel) -> bool:
    """Whether it is an encoder, which has no cache."""
    return model.architecture.startswith(ENCODERS)


def _cache_bits(kind: str, type_bytes: int) -> int:
    if kind == "auto":
        return 8 * type_bytes
    if kind in {"bfloat16", "float16"}:
        return 16
    # Of 4 bits and fewer are kept with their scales; 8 is what the widest of them takes.
    return 8


def _weights(plan: _Plan) -> FootprintItem:
    """Floats in the type that is computed in; what is packed as in the file."""
    total = sum(_group_bytes(group, plan) for group in plan.model.groups)
    source = (
        f"{plan.model.parameter_count} numbers, {format_size(plan.model.file_bytes)} in the "
        f"files, computed in {plan.type_bytes} B{plan.split}"
    )
    return FootprintItem(what=FootprintWhat.WEIGHTS, bytes=total, source=source)


def _group_bytes(group: Group, plan: _Plan) -> int:
    """Of one rank: matrices are split, vectors are not."""
    elements = group.matrix_elements + group.vector_elements
    if not elements:
        return 0
    whole = elements * plan.type_bytes if group.dtype in _FLOATS else group.bytes
    matrices = whole * group.matrix_elements // elements
    return -(-matrices // plan.ranks) + whole - matrices


def _cache(plan: _Plan) -> FootprintItem:
    """Layers · 2 · heads of the cache · head width · type, for each token of each block."""
    model = plan.model
    size, source = 0, "an encoder keeps none"
    if plan.pinned_bytes is not None and not keeps_nothing(model):
        size, source = plan.pinned_bytes, "as pinned by kv_cache_bytes"
    elif not keeps_nothing(model):
        block = _block_tokens(plan)
        blocks = plan.sequences * -(-plan.context // block) + 1
        heads = max(1, -(-model.kv_heads // plan.ranks))
        width = model.latent_width or 2 * heads * model.head_width
        size = model.layers * width * plan.cache_bits * block * blocks // 8
        source = (
            f"{model.layers} layers × {width} × {plan.cache_bits} bit × {blocks} blocks of "
            f"{block} tokens: {plan.sequences} sequences of {plan.context}, and one block"
            f"{plan.split}"
        )
    return FootprintItem(what=FootprintWhat.KV_CACHE, bytes=size, source=source)


def _block_tokens(plan: _Plan) -> int:
    if plan.on_host:
        return HOST_BLOCK_TOKENS
    return CARD_LATENT_BLOCK_TOKENS if plan.model.latent_width else CARD_BLOCK_TOKENS


def _compute(plan: _Plan) -> FootprintItem:
    """T · (4 H + the wider of attention and feed-forward) numbers, and the graphs' own memory.

    Residual, its norm and two results of H; queries, keys and values, and the same once more laid
    out anew; or gate, up and their product, F each. On a CPU the kernels keep half as much again,
    and all of it once as floats: fitted to peaks of a model of 61 M numbers in two types.
    """
    model = plan.model
    heads = -(-model.heads // plan.ranks) + 2 * max(1, -(-model.kv_heads // plan.ranks))
    attention = 2 * heads * model.head_width
    feed_forward = 3 * -(-model.feed_forward_width // plan.ranks)
    row = 4 * model.hidden_width + max(attention, feed_forward)
    cost = 3 * plan.type_bytes // 2 + _FLOAT_BYTES if plan.on_host else plan.type_bytes
    size, source = plan.tokens * row * cost, f"{plan.tokens} tokens × {row} × {cost} B"
    if not plan.on_host and not plan.eager:
        graphs = GRAPH_BYTES + model.layers * GRAPH_LAYER_BYTES
        size += graphs
        source += f" + {format_size(graphs)} of CUDA graphs, unmeasured"
    return FootprintItem(what=FootprintWhat.COMPUTE, bytes=size, source=source)


def _output(plan: _Plan) -> FootprintItem:
    """Logits of each sequence: as computed, sorted, and as probabilities."""
    size = plan.sequences * plan.model.vocabulary * _FLOAT_BYTES * _LOGIT_COPIES
    if keeps_nothing(plan.model):
        size = 0
    source = f"{plan.sequences} sequences × {plan.model.vocabulary} logits × 4 B × {_LOGIT_COPIES}"
    return FootprintItem(what=FootprintWhat.OUTPUT, bytes=size, source=source)


def _context(plan: _Plan) -> FootprintItem:
    """What the processes cost beside the model: on the host all of them, on a card CUDA's part."""
    if plan.device.context_bytes is not None:
        size, source = plan.device.context_bytes, "as measured here at earlier loads"
    elif plan.on_host:
        worker = WORKER_BYTES + (0 if plan.eager else COMPILED_BYTES + COMPILER_BYTES)
        size = _front_bytes(plan) + plan.ranks * worker
        source = (
            f"as vLLM 0.32 takes: {format_size(API_SERVER_BYTES)} API server, "
            f"{format_size(ENGINE_CORE_BYTES)} engine core, {format_size(worker)} a worker, "
            f"{plan.model.vocabulary} tokens × {TOKEN_BYTES} B"
        )
    else:
        size = CARD_CONTEXT_BYTES + (RANK_BYTES if plan.ranks > 1 else 0)
        source = (
            f"default for {plan.device.model_name or 'an unknown card'}, unmeasured{plan.split}"
        )
    return FootprintItem(what=FootprintWhat.CONTEXT, bytes=size, source=source)


def _front_bytes(plan: _Plan) -> int:
    """The processes that there is one of, however many ranks."""
    front = API_SERVER_BYTES + ENGINE_CORE_BYTES + TRACKER_BYTES
    return front + plan.model.vocabulary * TOKEN_BYTES


def _margin(subtotal: int, confidence: Confidence, plan: _Plan) -> FootprintItem:
    checked = confidence is Confidence.LAW
    share, fixed = LAW_MARGIN if checked else GUESS_MARGIN
    what = plan.model.architecture if plan.on_host else "a card"
    why = f"the laws were {'checked' if checked else 'never checked'} for {what}"
    return FootprintItem(
        what=FootprintWhat.MARGIN,
        bytes=int(subtotal * share) + fixed,
        source=f"{share:.0%} + {format_size(fixed)}: {why}",
    )
