"""Pure: what a model keeps between tokens: its cache, and the state of recurrent layers."""

from __future__ import annotations

from typing import Final

from gpud.models.ggml import TENSOR_TYPES_BY_NAME
from gpud.models.llama.plan import Plan
from gpud.models.model import FootprintItem, FootprintWhat

STATE_BYTES: Final = 4  # an element of state is a float, whatever the cache's types
_SHAPES_TOLD: Final = 4


def cache(plan: Plan) -> FootprintItem:
    """Exact: layers · (key width · bytes + value width · bytes) · streams · cells.

    Cells are the context of one stream, rounded up to 256; in layers with a window
    min(that, window · slots that share the stream + ubatch), rounded up likewise.
    """
    total = 0
    shapes: dict[tuple[int, int, int], int] = {}
    for layer in plan.layers:
        cells = plan.layer_cells(layer)
        size = row_bytes(layer.key_width, plan.key_type)
        size += row_bytes(layer.value_width, plan.value_type)
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
    more = f" + {len(parts) - _SHAPES_TOLD} more shapes" if len(parts) > _SHAPES_TOLD else ""
    source = " + ".join(parts[:_SHAPES_TOLD]) + more
    return FootprintItem(what=FootprintWhat.KV_CACHE, bytes=total, source=source)


def state(plan: Plan) -> FootprintItem:
    """Exact: elements of state of the recurrent layers · 4 B · slots."""
    widths = [layer.state_width for layer in plan.layers if layer.state_width]
    return FootprintItem(
        what=FootprintWhat.STATE,
        bytes=sum(widths) * STATE_BYTES * plan.slots,
        source=f"{len(widths)} recurrent layers × {max(widths, default=0)} × 4 B × "
        f"{plan.slots} slots",
    )


def row_bytes(elements: int, type_name: str) -> int:
    """Bytes of one cell's row in a cache of that type."""
    known = TENSOR_TYPES_BY_NAME[type_name]
    return elements * known.block_bytes // known.block_elements
