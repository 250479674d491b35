"""Pure: the buffer that llama-server computes a micro-batch in, at its largest moment.

In what follows E, F, Q, K are a model's embedding, feed-forward, query and key-value widths in
elements, and a token is one of a micro-batch (ubatch).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gpud.models.llama.plan import Plan
from gpud.models.llama.recurrence import recurrence_bytes
from gpud.models.model import FootprintItem, FootprintWhat
from gpud.units import format_size

FLOAT_BYTES: Final = 4
HALF_BYTES: Final = 2

# Bytes a token of the graph's inputs: token, position, cache indices; with a second, windowed
# cache its indices too. An encoder has no cache.
_INPUT_BYTES: Final = 36
_WINDOW_INPUT_BYTES: Final = 16
_ENCODER_INPUT_BYTES: Final = 20
# Rows of E that live through a graph of so many layers; the same number from 3 layers on.
_RESIDUAL_ROWS: Final = {1: 0, 2: 3}
_RESIDUAL_ROWS_DEEP: Final = 5
# Where several devices overlap batches, ggml keeps so many copies of a graph's inputs
# (GGML_SCHED_MAX_COPIES).
_PIPELINE_COPIES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """The largest moment: what lives throughout, and the widest step on top of it."""

    inputs_bytes: int
    residual_bytes: int
    steps: Mapping[str, int]

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.inputs_bytes + self.residual_bytes + max(self.steps.values())

    @property
    def widest(self) -> str:
        """The step that decides."""
        return max(self.steps, key=lambda name: self.steps[name])


def compute(plan: Plan) -> FootprintItem:
    """The graph's buffer: inputs, residual rows, and the widest step.

    tokens · (inputs + masks + 4 B · 5 E) + max(feed-forward, experts, attention, recurrence,
    logits). Exact for the usual proportions (F ≥ 2 E, K ≤ Q ≤ E); elsewhere the allocator's
    fragmentation is taken at its worst seen, up to a quarter above what it becomes. Every device
    of several is taken to meet the widest step.
    """
    found = parts(plan)
    copies = (_PIPELINE_COPIES - 1) * found.inputs_bytes if plan.pipelined else 0
    base = found.inputs_bytes + found.residual_bytes + copies
    again = f" ({_PIPELINE_COPIES} copies of the inputs)" if copies else ""
    return FootprintItem(
        what=FootprintWhat.COMPUTE,
        bytes=found.bytes + copies,
        source=f"{plan.tokens} tokens at once: inputs, masks and residual rows "
        f"{format_size(base)}{again}, {found.widest} {format_size(found.steps[found.widest])}",
    )


def host_compute_bytes(plan: Plan) -> int:
    """The host's buffer beside devices: the inputs and the embedded tokens, which it looks up.

    All of the graph where layers stay on the host.
    """
    found = parts(plan)
    if not plan.offloaded:
        return found.bytes
    row = FLOAT_BYTES * plan.tokens * plan.architecture.embedding_width
    return found.inputs_bytes * (_PIPELINE_COPIES if plan.pipelined else 1) + row


def parts(plan: Plan) -> Compute:
    """The largest moment of the graph, before it is spread."""
    shape, tokens = plan.architecture, plan.tokens
    if shape.encoder:
        return _encoder_parts(plan)
    rows = _RESIDUAL_ROWS.get(len(shape.layers), _RESIDUAL_ROWS_DEEP) + shape.side_rows
    inputs = tokens * _INPUT_BYTES
    inputs += tokens * _WINDOW_INPUT_BYTES if plan.windowed else 0
    return Compute(
        inputs_bytes=inputs + _mask_bytes(plan) + _transposed_index_bytes(plan),
        residual_bytes=tokens * rows * shape.embedding_width * FLOAT_BYTES,
        steps={
            "feed-forward": 3 * shape.feed_forward_width * FLOAT_BYTES * tokens,
            "experts": _experts_bytes(plan),
            "attention": _attention_bytes(plan),
            "recurrence": recurrence_bytes(plan),
            "logits": _logit_bytes(plan),
        },
    )


def _mask_bytes(plan: Plan) -> int:
    """A row of each cache's cells for every token: halves with flash attention, else floats."""
    if not any(layer.key_width for layer in plan.architecture.layers):
        return 0
    cells = plan.cells + (plan.window_cells if plan.windowed else 0)
    element = HALF_BYTES if plan.flash_attention else FLOAT_BYTES
    return plan.tokens * cells * element


def _transposed_index_bytes(plan: Plan) -> int:
    """Without flash attention values are stored transposed: 8 B of index for each element."""
    if plan.flash_attention:
        return 0
    width = max((layer.value_width for layer in plan.architecture.layers), default=0)
    return plan.tokens * width * 8 * (2 if plan.windowed else 1)


def _experts_bytes(plan: Plan) -> int:
    """Gate, up and product of the experts used, R each; then E for each expert.

    The latter in the space of the former two, where it fits there.
    """
    shape = plan.architecture
    routed, down = shape.routed_width, shape.experts_used * shape.embedding_width
    return FLOAT_BYTES * plan.tokens * (3 * routed + (down if down > 2 * routed else 0))


def _attention_bytes(plan: Plan) -> int:
    """Queries before and after rotation, keys and values, scores where they are materialised."""
    shape, tokens = plan.architecture, plan.tokens
    scores = 0 if plan.flash_attention else FLOAT_BYTES * tokens * plan.cells * shape.heads
    if shape.latent is not None:
        head = shape.latent.head_width + 2 * shape.latent.rank + shape.latent.rope_width
        return FLOAT_BYTES * tokens * shape.heads * head + scores + _cast_bytes(plan)
    widths = [layer for layer in shape.layers if layer.key_width]
    if not widths:
        return 0
    query, row = shape.query_width, shape.embedding_width
    key = max(layer.key_width for layer in widths)
    # Up to a row of E they find room between the residual rows.
    elements = 2 * query if query > row else row
    if plan.flash_attention and key > row // 2:
        elements += 2 * key if key > row else row
    if shape.gated_attention:
        elements += query  # what the result is multiplied with waits for it
    return FLOAT_BYTES * tokens * elements + scores + _cast_bytes(plan)


def _cast_bytes(plan: Plan) -> int:
    """Flash attention reads halves: a cache of floats is copied to halves, a layer at a time.

    The values of a latent cache are the first part of its keys.
    """
    if not plan.flash_attention:
        return 0
    latent = plan.architecture.latent
    rank = latent.rank if latent is not None and plan.key_type == "f32" else 0
    return max(
        HALF_BYTES
        * plan.layer_cells(layer)
        * plan.streams
        * (
            layer.key_width * (plan.key_type == "f32")
            + layer.value_width * (plan.value_type == "f32")
            + rank
        )
        for layer in plan.architecture.layers
    )


def _logit_bytes(plan: Plan) -> int:
    """A row of the vocabulary for each answer: one a slot; without pooling, one a token."""
    if plan.embedding and plan.architecture.pooled:
        return 0
    rows = plan.tokens if plan.embedding else min(plan.slots, plan.tokens)
    return rows * plan.architecture.vocabulary * FLOAT_BYTES


def _encoder_parts(plan: Plan) -> Compute:
    """All tokens see each other: a mask of tokens², 7 E around attention, 2 E + 2 F after it.

    With a gate 5 E + 3 F: queries, keys and values come out of one matrix there.
    """
    shape, tokens = plan.architecture, plan.tokens
    element = HALF_BYTES if plan.flash_attention else FLOAT_BYTES
    scores = 0 if plan.flash_attention else FLOAT_BYTES * tokens * tokens * shape.heads
    row = FLOAT_BYTES * tokens * shape.embedding_width
    wide = FLOAT_BYTES * tokens * shape.feed_forward_width
    after = 5 * row + 3 * wide if shape.gated_feed_forward else 2 * row + 2 * wide
    return Compute(
        inputs_bytes=tokens * (_ENCODER_INPUT_BYTES + element * tokens),
        residual_bytes=0,
        steps={"attention": 7 * row + scores, "feed-forward": after},
    )
