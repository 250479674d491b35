"""Reads the header of a safetensors file, hostile or not, in bounded time and memory.

Layout: the header's length (8 bytes, little-endian), the header (JSON: name → dtype, shape,
data_offsets; `__metadata__` apart), then the tensors' data without holes, to the end of the file.
Source: the format section of the safetensors project's README.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

# The largest headers in use have some 10 000 tensors and 2 MB.
MAX_HEADER_BYTES: Final = 16 << 20
MAX_TENSORS: Final = 1 << 17
MAX_NAME_BYTES: Final = 512
MAX_DIMENSIONS: Final = 8
MAX_ELEMENTS: Final = 1 << 50

DTYPE_BITS: Final = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip
# Each begins before the data: 8 bytes and the header.
_LENGTH_BYTES: Final = 8


class SafetensorsInvalid(ValueError):
    """The bytes are no header that may be believed; the text is the problem in words."""


@dataclass(frozen=True, slots=True)
class Weight:
    """One tensor. Positional: a file may hold thousands."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def read_weights(file: BinaryIO, file_bytes: int) -> tuple[Weight, ...]:
    """The tensors that a file of so many bytes holds, none of them read.

    Raises SafetensorsInvalid, also for a file that was cut short or has bytes too many.
    """
    header = read_object(_header(file, file_bytes))
    data_bytes = file_bytes - _LENGTH_BYTES - _length(file)
    if len(header) > MAX_TENSORS:
        raise SafetensorsInvalid(f"has {len(header)} tensors, more than {MAX_TENSORS}")
    spans: list[tuple[int, int, Weight]] = []
    for name, told in header.items():
        if name != "__metadata__":
            spans.append(_span(name, told))
    _check_whole(spans, data_bytes)
    return tuple(weight for _, _, weight in spans)


def read_object(text: bytes) -> dict[str, Any]:
    """A JSON object in which no key comes twice, at any depth. Raises SafetensorsInvalid."""
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError:
        raise SafetensorsInvalid("is nested too deeply") from None
    except SafetensorsInvalid:
        raise
    except ValueError as error:  # no JSON, no UTF-8, or an integer of thousands of digits
        raise SafetensorsInvalid(f"is not JSON: {str(error)[:120]}") from None
    if not isinstance(found, dict):
        raise SafetensorsInvalid("is no JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise SafetensorsInvalid("names a key twice")
    return found


def _no_number(name: str) -> Any:
    raise SafetensorsInvalid(f"holds {name}, which is no number of JSON")


def _length(file: BinaryIO) -> int:
    file.seek(0)
    return int.from_bytes(file.read(_LENGTH_BYTES), "little")


def _header(file: BinaryIO, file_bytes: int) -> bytes:
    if file_bytes <= _LENGTH_BYTES:
        raise SafetensorsInvalid(f"is no safetensors file: it has {file_bytes} bytes")
    length = _length(file)
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise SafetensorsInvalid(f"is no safetensors file: its header would have {length} bytes")
    if length > file_bytes - _LENGTH_BYTES:
        raise SafetensorsInvalid(f"is cut short within its header of {length} bytes")
    text = file.read(length)
    if len(text) < length or not text.startswith(b"{"):
        raise SafetensorsInvalid("is no safetensors file: its header does not begin with {")
    return text


def _span(name: str, told: Any) -> tuple[int, int, Weight]:
    """Where its data begins and ends, and what it is."""
    if not isinstance(told, Mapping) or len(name.encode()) > MAX_NAME_BYTES:
        raise SafetensorsInvalid(f"does not describe the tensor {name[:80]!r}")
    bits = DTYPE_BITS.get(str(told.get("dtype")))
    shape, offsets = _counts(told.get("shape")), _counts(told.get("data_offsets"))
    if bits is None:
        raise SafetensorsInvalid(
            f"has a type that is not known, {str(told.get('dtype'))[:20]!r}, for {name[:80]!r}"
        )
    if shape is None or len(shape) > MAX_DIMENSIONS or offsets is None or len(offsets) != 2:
        raise SafetensorsInvalid(f"has no usable shape or offsets for {name[:80]!r}")
    begin, end = offsets
    elements = math.prod(shape)
    if elements > MAX_ELEMENTS or elements * bits != (end - begin) * 8:
        raise SafetensorsInvalid(f"gives {name[:80]!r} {end - begin} bytes for its shape")
    return begin, end, Weight(name, str(told["dtype"]), shape, end - begin)


def _counts(value: Any) -> tuple[int, ...] | None:
    """A list of whole numbers from 0; None where it is anything else."""
    if not isinstance(value, list):
        return None
    whole = [each for each in value if type(each) is int and 0 <= each <= MAX_ELEMENTS]
    return tuple(whole) if len(whole) == len(value) else None


def _check_whole(spans: list[tuple[int, int, Weight]], data_bytes: int) -> None:
    """Its data has no holes, no overlaps, and ends where the file does."""
    at = 0
    for begin, end, weight in sorted(spans, key=lambda each: each[:2]):
        if begin != at:
            raise SafetensorsInvalid(f"has a hole or an overlap before {weight.name[:80]!r}")
        at = end
    if at > data_bytes:
        raise SafetensorsInvalid(
            f"is cut short: its tensors need {at} bytes, and {data_bytes} are there"
        )
    if at < data_bytes:
        raise SafetensorsInvalid(f"has {data_bytes - at} bytes after its last tensor")
