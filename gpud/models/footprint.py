"""Pure: the bytes that llama-server will need, item by item, from the header and the options.

The laws (llama/) were derived from, and are checked against (tests/models/truth.py), the buffer
sizes that llama-server b11669 itself prints with `-lv 4`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gpud.devices.snapshot import DeviceKind
from gpud.models.architecture import Architecture
from gpud.models.gguf import GgufHeader
from gpud.models.llama.compute import FLOAT_BYTES, compute
from gpud.models.llama.kept import cache, state
from gpud.models.llama.plan import Plan, Share, shares
from gpud.models.llama.projector import projector_items
from gpud.models.llama.weights import weights
from gpud.models.model import (
    Confidence,
    Footprint,
    FootprintItem,
    FootprintWhat,
    ModelOptions,
)
from gpud.units import MIB, format_size

# What is held above the estimate. LAW: the figures printed by other builds moved by less.
# GUESS: no figure of this architecture was ever compared.
LAW_MARGIN: Final = (0.03, 16 * MIB)
GUESS_MARGIN: Final = (0.15, 64 * MIB)

# What a llama-server takes of memory that no file backs, its buffers apart: 2 … 6 MiB before its
# first request, 8.4 MiB at most after 200 of them over 8 connections, with 1 … 4 slots and models
# of 1 … 870 MiB. (18 MiB of libraries are cache of their files, which the kernel takes back.) So
# much is promised until a load was measured here, and never less than the second.
HOST_PROCESS_BYTES: Final = 12 * MIB
HOST_PROCESS_LEAST_BYTES: Final = 9 * MIB
# What a vocabulary adds on its heap: measured with 512 … 256 000 tokens and 0 … 446 000 merges.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTraits:
    """What of a device bears on a footprint.

    `context_bytes` is what a process of the engine was measured to take there beside its buffers
    (on the host: and beside its vocabulary); None: none was measured.
    """

    kind: DeviceKind
    model_name: str
    context_bytes: int | None = None


def estimate(
    header: GgufHeader,
    options: ModelOptions,
    device: DeviceTraits,
    share: Share | None = None,
    projector: GgufHeader | None = None,
) -> Footprint:
    """The bytes that a load with these options needs on this device.

    Options that are None are taken as llama-server's defaults with one slot. On the host all of
    it counts; on a card the share of the layers that it carries: `share` None means the dearest
    of those that the options spread it over. A `projector` lies on the first device. Raises
    GgufInvalid where the header does not describe a model.
    """
    if device.kind is DeviceKind.HOST:
        plans = [Plan.of(header, options, on_host=True)]
    else:
        wanted = (share,) if share is not None else shares(options)
        plans = [Plan.of(header, options, on_host=False, share=each) for each in wanted]
    seeing = projector_items(projector) if projector is not None else ()
    footprints = (
        _footprint(
            plan.architecture,
            (*_items(header, options, device, plan), *(seeing if plan.share.index == 0 else ())),
        )
        for plan in plans
    )
    return max(footprints, key=lambda each: each.total_bytes)


def _items(
    header: GgufHeader, options: ModelOptions, device: DeviceTraits, plan: Plan
) -> tuple[FootprintItem, ...]:
    return (
        weights(header, plan),
        cache(plan),
        state(plan),
        compute(plan),
        _output(plan),
        _context(plan.architecture, device),
        _prompts(options, device),
    )


def _footprint(shape: Architecture, found: tuple[FootprintItem, ...]) -> Footprint:
    """The items that there are, and what is held above them."""
    items = [item for item in found if item.bytes]
    confidence = Confidence.LAW if shape.verified else Confidence.GUESS
    subtotal = sum(item.bytes for item in items if item.what is not FootprintWhat.MARGIN)
    items.append(_margin(subtotal, confidence, shape.name))
    return Footprint(items=tuple(items), confidence=confidence)


def _output(plan: Plan) -> FootprintItem:
    """Logits, and embeddings where asked for, of each slot; always in host memory."""
    shape = plan.architecture
    rows = shape.embedding_width if plan.embedding else 0
    size = plan.slots * (shape.vocabulary + rows) * FLOAT_BYTES
    return FootprintItem(
        what=FootprintWhat.OUTPUT,
        bytes=size if plan.on_host else 0,
        source=f"{plan.slots} slots × ({shape.vocabulary} logits + {rows} embedding) × 4 B",
    )


def _context(shape: Architecture, device: DeviceTraits) -> FootprintItem:
    """What the engine's process costs beside its buffers; on the host its vocabulary too."""
    known = device.context_bytes
    if device.kind is DeviceKind.HOST:
        process = HOST_PROCESS_BYTES if known is None else known
        size = process + shape.vocabulary * TOKEN_BYTES + shape.merges * MERGE_BYTES
        how = "not yet measured here" if known is None else "as measured here"
        source = (
            f"{format_size(process)} a process, {how} + {shape.vocabulary} tokens × "
            f"{TOKEN_BYTES} B + {shape.merges} merges × {MERGE_BYTES} B"
        )
    elif known is not None:
        size, source = (
            known,
            f"{format_size(known)} a process beside its buffers, as measured here",
        )
    else:
        size = next(
            (size for cards, size in CUDA_CONTEXT_BYTES if cards.search(device.model_name)),
            CUDA_CONTEXT_DEFAULT_BYTES,
        )
        source = f"default for {device.model_name or 'an unknown card'}, unmeasured"
    return FootprintItem(what=FootprintWhat.CONTEXT, bytes=size, source=source)


def _prompts(options: ModelOptions, device: DeviceTraits) -> FootprintItem:
    """The cache of prompts, which lies in the host's memory whatever device computes."""
    size = options.cache_ram_bytes or 0
    return FootprintItem(
        what=FootprintWhat.HOST_CACHE,
        bytes=size if device.kind is DeviceKind.HOST else 0,
        source=f"cache_ram_bytes: up to {format_size(size)} of prompts",
    )


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
