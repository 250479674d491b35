"""Pure: the bytes that llama-server will need, item by item, from the header and the options.

The laws were derived from, and are checked against (tests/models/truth.py), the buffer sizes that
llama-server b11669 itself prints with `-lv 4`. In what follows E, F, Q, K are a model's embedding,
feed-forward, query and key-value widths in elements, and a token is one of a micro-batch (ubatch).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gpud.devices.snapshot import DeviceKind
from gpud.models.architecture import Architecture, Layer
from gpud.models.ggml import TENSOR_TYPES_BY_NAME
from gpud.models.gguf import GgufHeader
from gpud.models.model import (
    Confidence,
    Footprint,
    FootprintItem,
    FootprintWhat,
    ModelOptions,
)
from gpud.units import MIB, format_size

FLOAT_BYTES: Final = 4
HALF_BYTES: Final = 2
CELL_PADDING: Final = 256  # llama.cpp rounds the cells of a cache up to this

# What is held above the estimate. LAW: the figures printed by other builds moved by less.
# GUESS: no figure of this architecture was ever compared.
LAW_MARGIN: Final = (0.03, 16 * MIB)
GUESS_MARGIN: Final = (0.15, 64 * MIB)

# Resident bytes of a llama-server without a model, and what a vocabulary adds on its heap:
# measured with 512 … 256 000 tokens and 0 … 446 000 merges.
HOST_PROCESS_BYTES: Final = 24 * MIB
TOKEN_BYTES: Final = 160
MERGE_BYTES: Final = 128
# A CUDA process before its first tensor: driver context, kernels, cuBLAS. By card generation,
# newest first; unmeasured, on the high side of what is reported for them.
CUDA_CONTEXT_BYTES: Final = (
    (re.compile(r"\b(B[123]00|GB[0-9]{3}|RTX 50|RTX PRO)", re.IGNORECASE), 700 * MIB),
    (re.compile(r"\b(H[12]00|H20|GH200)", re.IGNORECASE), 640 * MIB),
    (re.compile(r"\b(RTX 40|L4|L40S?)\b", re.IGNORECASE), 480 * MIB),
    (re.compile(r"\b(A100|A[1-9]0|A[2-6]000|RTX 30)", re.IGNORECASE), 448 * MIB),
    (re.compile(r"\b(V100|T4|RTX 20|GTX 16)", re.IGNORECASE), 352 * MIB),
    (re.compile(r"(P106|P10[0-9]|P40|P4\b|GTX 10|TITAN X)", re.IGNORECASE), 256 * MIB),
)
CUDA_CONTEXT_DEFAULT_BYTES: Final = 512 * MIB

# Bytes a token of the graph's inputs: token, position, cache indices; with a second, windowed
# cache its indices too. An encoder has no cache.
_INPUT_BYTES: Final = 36
_WINDOW_INPUT_BYTES: Final = 16
_ENCODER_INPUT_BYTES: Final = 20
# Rows of E that live through a graph of so many layers; the same number from 3 layers on.
_RESIDUAL_ROWS: Final = {1: 0, 2: 3}
_RESIDUAL_ROWS_DEEP: Final = 5
_BLOCK = re.compile(r"blk\.([0-9]{1,4})\.")
_OUTPUT = re.compile(r"output(_norm)?\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTraits:
    """What of a device bears on a footprint."""

    kind: DeviceKind
    model_name: str


def estimate(header: GgufHeader, options: ModelOptions, device: DeviceTraits) -> Footprint:
    """The bytes that a load with these options needs on this device.

    Options that are None are taken as llama-server's defaults with one slot. On the host all of
    it counts; on a card the share of the layers that it carries. Raises GgufInvalid where the
    header does not describe a model.
    """
    plan = _Plan.of(header, options, device)
    items = [
        item
        for item in (
            _weights(header, plan),
            _cache(plan),
            _state(plan),
            _compute(plan),
            _output(plan),
            _context(plan),
        )
        if item.bytes
    ]
    confidence = Confidence.LAW if plan.architecture.verified else Confidence.GUESS
    items.append(_margin(sum(item.bytes for item in items), confidence, plan.architecture.name))
    return Footprint(items=tuple(items), confidence=confidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A model, its options with nothing unsaid, and the layers that lie on the device."""

    architecture: Architecture
    device: DeviceTraits
    slots: int
    cells: int  # of the whole context, for one stream
    window_cells: int  # of the layers with a window, for one stream
    streams: int  # separate caches: one where the slots share
    tokens: int  # of one micro-batch
    key_type: str
    value_type: str
    flash_attention: bool
    embedding: bool
    device_layers: range
    device_output: bool

    @classmethod
    def of(cls, header: GgufHeader, options: ModelOptions, device: DeviceTraits) -> _Plan:
        architecture = Architecture.of(header)
        count = len(architecture.layers)
        context = options.context_length or architecture.context_trained or 4096
        slots = max(options.parallel or 1, 1)
        streams = 1 if options.kv_unified else slots
        cells = _padded(-(-context // streams))
        tokens = min(options.ubatch or 512, options.batch or 2048, context)
        window = (architecture.window or 0) * (slots // streams) + tokens
        host = device.kind is DeviceKind.HOST
        wanted = count + 1 if host or options.gpu_layers is None else options.gpu_layers
        return cls(
            architecture=architecture,
            device=device,
            slots=slots,
            cells=cells,
            window_cells=_padded(min(cells, window)),
            streams=streams,
            tokens=tokens,
            key_type=options.cache_type_k or "f16",
            value_type=options.cache_type_v or "f16",
            flash_attention=options.flash_attention != "off",
            embedding=bool(options.embedding),
            # llama.cpp moves the output first, then the layers from the last to the first.
            device_layers=range(min(max(count + 1 - wanted, 0), count), count),
            device_output=wanted >= 1,
        )

    @property
    def on_host(self) -> bool:
        return self.device.kind is DeviceKind.HOST

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The device's layers."""
        return tuple(self.architecture.layers[index] for index in self.device_layers)

    @property
    def windowed(self) -> bool:
        return any(layer.windowed for layer in self.architecture.layers)

    def layer_cells(self, layer: Layer) -> int:
        return self.window_cells if layer.windowed else self.cells


def _weights(header: GgufHeader, plan: _Plan) -> FootprintItem:
    """The tensors of the layers on the device, as large as in the file."""
    total = header.tensor_bytes
    if plan.on_host:
        source = f"{len(header.tensors)} tensors of the file"
        return FootprintItem(what=FootprintWhat.WEIGHTS, bytes=total, source=source)
    tied = not any(tensor.name == "output.weight" for tensor in header.tensors)
    size = 0
    for tensor in header.tensors:
        if block := _BLOCK.match(tensor.name):
            size += tensor.bytes if int(block[1]) in plan.device_layers else 0
        elif plan.device_output and (
            _OUTPUT.match(tensor.name) or (tied and tensor.name == "token_embd.weight")
        ):
            size += tensor.bytes
    layers = f"{len(plan.device_layers)} of {len(plan.architecture.layers)} layers"
    output = " and the output" if plan.device_output else ""
    return FootprintItem(
        what=FootprintWhat.WEIGHTS,
        bytes=size,
        source=f"{layers}{output}: {format_size(size)} of the file's {format_size(total)}",
    )


def _cache(plan: _Plan) -> FootprintItem:
    """Exact: layers · (key width · bytes + value width · bytes) · streams · cells.

    Cells are the context of one stream, rounded up to 256; in layers with a window
    min(that, window · slots that share the stream + ubatch), rounded up likewise.
    """
    total = 0
    shapes: dict[tuple[int, int, int], int] = {}
    for layer in plan.layers:
        cells = plan.layer_cells(layer)
        size = _row_bytes(layer.key_width, plan.key_type)
        size += _row_bytes(layer.value_width, plan.value_type)
        total += size * cells * plan.streams
        shape = (layer.key_width, layer.value_width, cells)
        if size:
            shapes[shape] = shapes.get(shape, 0) + 1
    parts = [
        f"{count} layers × ({key} {plan.key_type} + {value} {plan.value_type}) × "
        f"{plan.streams} × {cells} cells"
        for (key, value, cells), count in shapes.items()
    ]
    # A model may give each layer a shape of its own.
    more = f" + {len(parts) - 4} more shapes" if len(parts) > 4 else ""
    source = " + ".join(parts[:4]) + more
    return FootprintItem(what=FootprintWhat.KV_CACHE, bytes=total, source=source)


def _state(plan: _Plan) -> FootprintItem:
    """Exact: elements of state of the recurrent layers · 4 B · slots."""
    widths = [layer.state_width for layer in plan.layers if layer.state_width]
    return FootprintItem(
        what=FootprintWhat.STATE,
        bytes=sum(widths) * FLOAT_BYTES * plan.slots,
        source=f"{len(widths)} recurrent layers × {max(widths, default=0)} × 4 B × "
        f"{plan.slots} slots",
    )


def _compute(plan: _Plan) -> FootprintItem:
    """The largest moment of the graph: its inputs, the residual rows, and the widest step.

    tokens · (inputs + masks + 4 B · 5 E) + max(feed-forward, experts, attention, recurrence,
    logits). Exact for the usual proportions (F ≥ 2 E, K ≤ Q ≤ E); elsewhere the allocator's
    fragmentation is taken at its worst seen, up to a quarter above what it becomes.
    """
    shape = plan.architecture
    if shape.encoder:
        base, peaks = _encoder_parts(plan)
    else:
        rows = _RESIDUAL_ROWS.get(len(shape.layers), _RESIDUAL_ROWS_DEEP)
        inputs = plan.tokens * _INPUT_BYTES
        inputs += plan.tokens * _WINDOW_INPUT_BYTES if plan.windowed else 0
        residual = plan.tokens * rows * shape.embedding_width * FLOAT_BYTES
        base = inputs + residual + _mask_bytes(plan) + _transposed_index_bytes(plan)
        peaks = {
            "feed-forward": 3 * shape.feed_forward_width * FLOAT_BYTES * plan.tokens,
            "experts": _experts_bytes(plan),
            "attention": _attention_bytes(plan),
            "recurrence": _recurrence_bytes(plan),
            "logits": _logit_bytes(plan),
        }
    widest = max(peaks, key=lambda name: peaks[name])
    return FootprintItem(
        what=FootprintWhat.COMPUTE,
        bytes=base + peaks[widest],
        source=f"{plan.tokens} tokens at once: inputs, masks and residual rows "
        f"{format_size(base)}, {widest} {format_size(peaks[widest])}",
    )


def _mask_bytes(plan: _Plan) -> int:
    """A row of each cache's cells for every token: halves with flash attention, else floats."""
    if not any(layer.key_width for layer in plan.architecture.layers):
        return 0
    cells = plan.cells + (plan.window_cells if plan.windowed else 0)
    element = HALF_BYTES if plan.flash_attention else FLOAT_BYTES
    return plan.tokens * cells * element


def _transposed_index_bytes(plan: _Plan) -> int:
    """Without flash attention values are stored transposed: 8 B of index for each element."""
    if plan.flash_attention:
        return 0
    width = max((layer.value_width for layer in plan.architecture.layers), default=0)
    return plan.tokens * width * 8 * (2 if plan.windowed else 1)


def _experts_bytes(plan: _Plan) -> int:
    """Gate, up and product of the experts used, R each; then E for each expert.

    The latter in the space of the former two, where it fits there.
    """
    shape = plan.architecture
    routed, down = shape.routed_width, shape.experts_used * shape.embedding_width
    return FLOAT_BYTES * plan.tokens * (3 * routed + (down if down > 2 * routed else 0))


def _attention_bytes(plan: _Plan) -> int:
    """Queries before and after rotation, keys and values, scores where they are materialised."""
    shape, tokens = plan.architecture, plan.tokens
    scores = 0 if plan.flash_attention else FLOAT_BYTES * tokens * plan.cells * shape.heads
    if shape.latent is not None:
        head = shape.latent.head_width + 2 * shape.latent.rank + shape.latent.rope_width
        return FLOAT_BYTES * tokens * shape.heads * head + scores
    widths = [layer for layer in shape.layers if layer.key_width]
    if not widths:
        return 0
    query, row = shape.query_width, shape.embedding_width
    key = max(layer.key_width for layer in widths)
    # Up to a row of E they find room between the residual rows.
    elements = 2 * query if query > row else row
    if plan.flash_attention and key > row // 2:
        elements += 2 * key if key > row else row
    casts = _cast_bytes(plan) if plan.flash_attention else 0
    return FLOAT_BYTES * tokens * elements + scores + casts


def _cast_bytes(plan: _Plan) -> int:
    """Flash attention reads halves: a cache of floats is copied to halves, a layer at a time."""
    return max(
        HALF_BYTES
        * plan.layer_cells(layer)
        * plan.streams
        * (
            layer.key_width * (plan.key_type == "f32")
            + layer.value_width * (plan.value_type == "f32")
        )
        for layer in plan.architecture.layers
    )


def _recurrence_bytes(plan: _Plan) -> int:
    """Projection, convolution in and out, inner result; and the slots' states of one layer."""
    shape = plan.architecture.recurrence
    if shape is None:
        return 0
    elements = shape.projection_width + 2 * shape.convolution_width + shape.inner_width
    state = max(layer.state_width for layer in plan.architecture.layers)
    return FLOAT_BYTES * (plan.tokens * elements + plan.slots * state)


def _logit_bytes(plan: _Plan) -> int:
    """A row of the vocabulary for each answer: one a slot; without pooling, one a token."""
    if plan.embedding and plan.architecture.pooled:
        return 0
    rows = plan.tokens if plan.embedding else min(plan.slots, plan.tokens)
    return rows * plan.architecture.vocabulary * FLOAT_BYTES


def _encoder_parts(plan: _Plan) -> tuple[int, dict[str, int]]:
    """All tokens see each other: a mask of tokens², 7 E around attention, 2 E + 2 F after it."""
    shape, tokens = plan.architecture, plan.tokens
    element = HALF_BYTES if plan.flash_attention else FLOAT_BYTES
    scores = 0 if plan.flash_attention else FLOAT_BYTES * tokens * tokens * shape.heads
    base = tokens * (_ENCODER_INPUT_BYTES + element * tokens)
    row = FLOAT_BYTES * tokens * shape.embedding_width
    feed_forward = FLOAT_BYTES * tokens * shape.feed_forward_width
    return base, {"attention": 7 * row + scores, "feed-forward": 2 * row + 2 * feed_forward}


def _output(plan: _Plan) -> FootprintItem:
    """Logits, and embeddings where asked for, of each slot; always in host memory."""
    shape = plan.architecture
    rows = shape.embedding_width if plan.embedding else 0
    size = plan.slots * (shape.vocabulary + rows) * FLOAT_BYTES
    return FootprintItem(
        what=FootprintWhat.OUTPUT,
        bytes=size if plan.on_host else 0,
        source=f"{plan.slots} slots × ({shape.vocabulary} logits + {rows} embedding) × 4 B",
    )


def _context(plan: _Plan) -> FootprintItem:
    """What the engine's process costs beside its buffers."""
    shape = plan.architecture
    if plan.on_host:
        vocabulary = shape.vocabulary * TOKEN_BYTES + shape.merges * MERGE_BYTES
        size = HOST_PROCESS_BYTES + vocabulary
        source = (
            f"measured: {format_size(HOST_PROCESS_BYTES)} a process + {shape.vocabulary} tokens × "
            f"{TOKEN_BYTES} B + {shape.merges} merges × {MERGE_BYTES} B"
        )
    else:
        size = next(
            (size for cards, size in CUDA_CONTEXT_BYTES if cards.search(plan.device.model_name)),
            CUDA_CONTEXT_DEFAULT_BYTES,
        )
        source = f"default for {plan.device.model_name or 'an unknown card'}, unmeasured"
    return FootprintItem(what=FootprintWhat.CONTEXT, bytes=size, source=source)


def _margin(subtotal: int, confidence: Confidence, architecture: str) -> FootprintItem:
    share, fixed = LAW_MARGIN if confidence is Confidence.LAW else GUESS_MARGIN
    why = (
        f"the laws were checked for {architecture}"
        if confidence is Confidence.LAW
        else f"the laws were never checked for {architecture}"
    )
    return FootprintItem(
        what=FootprintWhat.MARGIN,
        bytes=int(subtotal * share) + fixed,
        source=f"{share:.0%} + {format_size(fixed)}: {why}",
    )


def _row_bytes(elements: int, type_name: str) -> int:
    """Bytes of one cell's row in a cache of that type."""
    known = TENSOR_TYPES_BY_NAME[type_name]
    return elements * known.block_bytes // known.block_elements


def _padded(cells: int) -> int:
    return -(-cells // CELL_PADDING) * CELL_PADDING
