"""Pure: a projector for images beside a model: its tensors, and what one image is computed in.

From the figures that llama-server b11669 prints for one of the kind `mlp` (CLIP): exact there.
Others cut an image into more or fewer pieces, so what lies above the estimate is wide.
"""

from __future__ import annotations

from typing import Final

from gpud.models.gguf import GgufHeader
from gpud.models.model import FootprintItem, FootprintWhat
from gpud.units import MIB, format_size

FLOAT_BYTES: Final = 4
_KNOWN: Final = frozenset({"mlp"})
# Of its compute, where its kind was never compared.
MARGIN: Final = 1.0
_MAX_SIDE: Final = 1 << 14
_CHANNELS: Final = 3


def projector_items(header: GgufHeader) -> tuple[FootprintItem, ...]:
    """Its weights, which are read whole to the device, its compute, and a margin of its own.

    3 S² of an image of S pixels a side, and the wider of 4 E + F and 5 E for each of its
    (S / patch)² + 1 pieces, with flash attention, which it uses wherever it can. What its file
    does not say is taken as CLIP's: 336, 14, 1024, 4096.
    """
    weights, size = header.tensor_bytes, _compute_bytes(header)
    known = header.metadata.get("clip.projector_type") in _KNOWN
    above = 0 if known else int(size * MARGIN) + 64 * MIB
    items = (
        FootprintItem(
            what=FootprintWhat.WEIGHTS,
            bytes=weights,
            source=f"the projector's {len(header.tensors)} tensors",
        ),
        FootprintItem(
            what=FootprintWhat.COMPUTE,
            bytes=size,
            source=f"the projector: an image of {_key(header, 'image_size', 336)} pixels a side",
        ),
        FootprintItem(
            what=FootprintWhat.MARGIN,
            bytes=above,
            source=f"{MARGIN:.0%} of the projector's compute + {format_size(64 * MIB)}: the law "
            "was never checked for its kind",
        ),
    )
    return tuple(item for item in items if item.bytes)


def _compute_bytes(header: GgufHeader) -> int:
    side = _key(header, "image_size", 336)
    patch = max(_key(header, "patch_size", 14), 1)
    width = _key(header, "embedding_length", 1024)
    wide = _key(header, "feed_forward_length", 4096)
    pieces = (side // patch) ** 2 + 1
    elements = _CHANNELS * side * side + pieces * max(4 * width + wide, 5 * width)
    return FLOAT_BYTES * elements


def _key(header: GgufHeader, name: str, default: int) -> int:
    """A number of the vision part, within what is believed of any."""
    value = header.integer(f"clip.vision.{name}")
    return default if value is None or not 0 < value <= _MAX_SIDE else value
