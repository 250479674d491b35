"""Pure: where a model's tensors lie: on which device, or in the host's memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gpud.models.gguf import GgufHeader, Tensor
from gpud.models.llama.plan import Plan
from gpud.models.model import FootprintItem, FootprintWhat
from gpud.units import format_size

_BLOCK: Final = re.compile(r"blk\.([0-9]{1,4})\.")
_OUTPUT: Final = re.compile(r"(output|cls)(_norm|\.output)?\.")
_EMBEDDING: Final = "token_embd.weight"
_MATRIX_DIMENSIONS: Final = 2  # what is split by rows: no vectors, and no stacks of experts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """A tensor and the number of its device; None: the host."""

    tensor: Tensor
    device: int | None


def weights(header: GgufHeader, plan: Plan) -> FootprintItem:
    """The tensors on the device, as large as in the file."""
    total = header.tensor_bytes
    if plan.on_host:
        source = f"{len(header.tensors)} tensors of the file"
        return FootprintItem(what=FootprintWhat.WEIGHTS, bytes=total, source=source)
    size = sum(_own_bytes(placed, plan) for placed in _placed(header, plan))
    layers = f"{len(plan.carried)} of {len(plan.architecture.layers)} layers"
    output = " and the output" if plan.carries_output else ""
    rows = ", matrices by rows" if plan.split_rows else ""
    return FootprintItem(
        what=FootprintWhat.WEIGHTS,
        bytes=size,
        source=f"{layers}{output}{rows}: {format_size(size)} of the file's {format_size(total)}",
    )


def host_weights(header: GgufHeader, plan: Plan) -> int:
    """Bytes of the tensors in the host's memory, beside however many devices."""
    return sum(each.tensor.bytes for each in _placed(header, plan) if each.device is None)


def _placed(header: GgufHeader, plan: Plan) -> Iterator[_Placed]:
    """Each tensor, and a second time the embedding that is the output too where that is offloaded.

    The inputs stay on the host whatever is offloaded.
    """
    names = {tensor.name for tensor in header.tensors}
    # An encoder that gives no logits has no output at all.
    bare = plan.architecture.encoder and "output_norm.weight" not in names
    tied = "output.weight" not in names and not bare
    output = plan.places[-1]
    for tensor in header.tensors:
        block = _BLOCK.match(tensor.name)
        if block and int(block[1]) < len(plan.places) - 1:
            yield _Placed(tensor=tensor, device=plan.places[int(block[1])])
        elif _OUTPUT.match(tensor.name):
            yield _Placed(tensor=tensor, device=output)
        else:
            yield _Placed(tensor=tensor, device=None)
            if tied and tensor.name == _EMBEDDING and output is not None:
                yield _Placed(tensor=tensor, device=output)


def _own_bytes(placed: _Placed, plan: Plan) -> int:
    """What of a tensor lies on the plan's device."""
    if placed.device is None:
        return 0
    size = placed.tensor.bytes
    if plan.split_rows and len(placed.tensor.shape) == _MATRIX_DIMENSIONS:
        low, high = plan.share.bounds
        return int(size * high) - int(size * low)
    return size if placed.device == plan.share.index else 0
