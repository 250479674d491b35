"""Reads the header of a GGUF file (version 2 or 3), hostile or not, in bounded time and memory.

Layout, little-endian: magic, version, tensor count, key count; the keys with their values; one
record per tensor; padding to `general.alignment`; the tensors' data. Arrays are passed over, not
built, except short numeric ones: per-layer head counts and window patterns.
Source of the layout: the format's specification in ggml's docs/gguf.md.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import BinaryIO, Final

from gpud.models.ggml import TENSOR_TYPES

# Limits. The largest headers in use have some 50 keys, 2 000 tensors, 650 000 strings in two
# arrays (200 000 tokens, 450 000 merges) and 30 MB; each limit leaves room to grow.
MAX_KEYS: Final = 4096
MAX_TENSORS: Final = 65_536
MAX_KEY_BYTES: Final = 256
MAX_TENSOR_NAME_BYTES: Final = 63  # GGML_MAX_NAME without its NUL
MAX_STRING_BYTES: Final = 1 << 20
MAX_ARRAY_ELEMENTS: Final = 4 << 20
MAX_STRINGS: Final = 2 << 20  # in all arrays together: each costs one step of the interpreter
MAX_HEADER_BYTES: Final = 128 << 20
MAX_TENSOR_ELEMENTS: Final = 1 << 50
MAX_ALIGNMENT: Final = 1 << 20
# What is kept of a value; the rest is only counted.
KEPT_STRING_BYTES: Final = 256
KEPT_ARRAY_ELEMENTS: Final = 1024
KEPT_ARRAYS: Final = 64

_CHUNK_BYTES: Final = 1 << 18
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_SCALARS: Final = {
    0: struct.Struct("<B"), 1: struct.Struct("<b"), 2: struct.Struct("<H"), 3: struct.Struct("<h"),
    4: struct.Struct("<I"), 5: struct.Struct("<i"), 6: struct.Struct("<f"), 7: struct.Struct("<?"),
    10: struct.Struct("<Q"), 11: struct.Struct("<q"), 12: struct.Struct("<d"),
}  # fmt: skip
_STRING: Final = 8
_ARRAY: Final = 9
_ARCHITECTURE = re.compile(r"([a-z0-9][a-z0-9._-]{0,62})?")


class GgufInvalid(ValueError):
    """The bytes are no GGUF header that may be believed; the text is the problem in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A value that was passed over: so many array elements, or bytes of a long string."""

    count: int


Value = bool | int | float | str | tuple[bool | int | float, ...] | Skipped


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: `shape` innermost dimension first, `type_name` as ggml spells it, its bytes.

    Positional: a header may hold 65 536 of them.
    """

    name: str
    shape: tuple[int, ...]
    type_name: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """What a file says of itself. `data_offset` and `file_bytes` count bytes.

    `architecture` is empty in the later parts of a model that was split.
    """

    version: int
    architecture: str
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]
    data_offset: int
    file_bytes: int

    def integer(self, key: str) -> int | None:
        """The value of an integer key; None where it is missing or of another kind."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def text(self, key: str) -> str | None:
        """The value of a short string key; None where it is missing or of another kind."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def integers(self, key: str) -> tuple[int, ...] | None:
        """The elements of a short integer or boolean array; None where it is anything else."""
        value = self.metadata.get(key)
        if not isinstance(value, tuple):
            return None
        whole = tuple(int(element) for element in value if not isinstance(element, float))
        return whole if len(whole) == len(value) else None

    def count(self, key: str) -> int:
        """How many elements the array has; 0 where there is none."""
        value = self.metadata.get(key)
        if isinstance(value, Skipped):
            return value.count
        return len(value) if isinstance(value, tuple) else 0

    @property
    def context_length(self) -> int | None:
        """Tokens that the model was trained on."""
        return self.integer(f"{self.architecture}.context_length")

    @property
    def tensor_bytes(self) -> int:
        """All tensors together, without padding."""
        return sum(tensor.bytes for tensor in self.tensors)

    @property
    def parameter_count(self) -> int:
        """The elements of all tensors."""
        return sum(_product(tensor.shape) for tensor in self.tensors)


def read_header(file: BinaryIO, file_bytes: int) -> GgufHeader:
    """Parse from the file's current position, which is its start; blocks on the disk.

    Takes at most 64 MiB and a second on any input. Raises GgufInvalid, and OSError as the disk
    gives it.
    """
    reader = _Reader(file, file_bytes)
    version, tensor_count, key_count = _read_preamble(reader)
    metadata = _read_metadata(reader, key_count)
    alignment = _alignment(metadata)
    tensors, data_bytes = _read_tensors(reader, tensor_count, alignment)
    data_offset = _padded(reader.position, alignment) if tensors else reader.position
    if data_offset + data_bytes > file_bytes:
        raise GgufInvalid(
            f"is truncated: its tensors end at byte {data_offset + data_bytes}, "
            f"the file at byte {file_bytes}"
        )
    architecture = metadata.get("general.architecture", "")
    if not isinstance(architecture, str) or not _ARCHITECTURE.fullmatch(architecture):
        raise GgufInvalid("has no word for its architecture (key general.architecture)")
    return GgufHeader(
        version=version,
        architecture=architecture,
        metadata=metadata,
        tensors=tensors,
        data_offset=data_offset,
        file_bytes=file_bytes,
    )


class _Reader:
    """A window over the file that moves forward only; every wish beyond the limits is refused."""

    def __init__(self, file: BinaryIO, file_bytes: int) -> None:
        self._file = file
        self._limit = min(file_bytes, MAX_HEADER_BYTES)
        self._window = b""
        self._base = 0  # file offset of the window's first byte
        self._at = 0  # the next byte, counted in the window
        self._strings_left = MAX_STRINGS

    @property
    def position(self) -> int:
        """Offset of the next byte in the file."""
        return self._base + self._at

    def take(self, count: int) -> bytes:
        """The next bytes."""
        start = self._at
        if start + count > len(self._window):
            self._refill(count)
            start = 0
        self._at = start + count
        return self._window[start : self._at]

    def scalar(self, packing: struct.Struct) -> bool | int | float:
        """The next number."""
        value: bool | int | float = packing.unpack(self.take(packing.size))[0]
        return value

    def u32(self) -> int:
        """The next 4 bytes as a number."""
        value: int = _U32.unpack(self.take(4))[0]
        return value

    def u64(self) -> int:
        """The next 8 bytes as a number."""
        value: int = _U64.unpack(self.take(8))[0]
        return value

    def length(self, limit: int, what: str) -> int:
        """The next count, at most `limit`."""
        count = self.u64()
        if count > limit:
            raise GgufInvalid(f"has {what} of {count}; at most {limit} is believed")
        return count

    def skip(self, count: int) -> None:
        """Pass over bytes without reading those beyond the window."""
        if self._at + count <= len(self._window):
            self._at += count
            return
        self._check(count)
        self._base = self._file.seek(self.position + count)
        self._window, self._at = b"", 0

    def skip_strings(self, count: int) -> None:
        """Pass over the strings of an array: the only loop that a file can make long."""
        self._strings_left -= count
        if self._strings_left < 0:
            raise GgufInvalid(f"has more than {MAX_STRINGS} strings in its arrays")
        # Locals: a vocabulary of 256 000 tokens passes here.
        unpack, window, at = _U64.unpack_from, self._window, self._at
        last = len(window) - 8
        for _ in range(count):
            if at > last:
                self._at = at
                self._refill(8)
                window, at = self._window, 0
                last = len(window) - 8
            length = unpack(window, at)[0]
            at += 8 + length
            if at > len(window):
                if length > MAX_STRING_BYTES:
                    raise GgufInvalid(f"has a string of {length} bytes")
                self._at = at - length
                self.skip(length)
                window, at = self._window, self._at
                last = len(window) - 8
        self._at = at

    def _check(self, count: int) -> None:
        if self.position + count > self._limit:
            if self._limit == MAX_HEADER_BYTES:
                raise GgufInvalid(f"has a header of more than {MAX_HEADER_BYTES >> 20} MiB")
            raise GgufInvalid(f"is truncated: its header goes on after byte {self._limit}")

    def _refill(self, count: int) -> None:
        """Move the window to the next byte and make it hold at least `count` bytes."""
        self._check(count)
        rest = self._window[self._at :]
        self._base, self._at = self.position, 0
        parts, held = [rest], len(rest)
        while held < count:
            part = self._file.read(max(count - held, _CHUNK_BYTES))
            if not part:
                raise GgufInvalid(f"is truncated: its header goes on after byte {self._base}")
            parts.append(part)
            held += len(part)
        self._window = b"".join(parts)


def _read_preamble(reader: _Reader) -> tuple[int, int, int]:
    """Version, number of tensors, number of keys."""
    if reader.take(4) != b"GGUF":
        raise GgufInvalid("is not a GGUF file (it does not begin with the letters GGUF)")
    version = reader.u32()
    if version not in (2, 3):
        swapped = int.from_bytes(version.to_bytes(4, "big"), "little")
        order = " in big-endian order" if swapped in (2, 3) else ""
        raise GgufInvalid(
            f"is GGUF version {swapped if order else version}{order}; 2 and 3 are read"
        )
    return (
        version,
        reader.length(MAX_TENSORS, "a tensor count"),
        reader.length(MAX_KEYS, "a key count"),
    )


def _read_metadata(reader: _Reader, key_count: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    arrays_kept = 0
    for _ in range(key_count):
        key = _read_name(reader, MAX_KEY_BYTES, "a key")
        if not key or key in metadata:
            raise GgufInvalid(f"has the key {key!r} twice" if key else "has a key without a name")
        kind = reader.u32()
        if kind in _SCALARS:
            metadata[key] = reader.scalar(_SCALARS[kind])
        elif kind == _STRING:
            metadata[key] = _read_string(reader)
        elif kind == _ARRAY:
            metadata[key] = _read_array(reader, key, keep=arrays_kept < KEPT_ARRAYS)
            arrays_kept += isinstance(metadata[key], tuple)
        else:
            raise GgufInvalid(f"has the key {key!r} of the unknown kind {kind}")
    return metadata


def _read_name(reader: _Reader, limit: int, what: str) -> str:
    raw = reader.take(reader.length(limit, f"{what} length"))
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise GgufInvalid(f"has {what} that is not UTF-8") from None


def _read_string(reader: _Reader) -> str | Skipped:
    length = reader.length(MAX_STRING_BYTES, "a string length")
    if length > KEPT_STRING_BYTES:
        reader.skip(length)
        return Skipped(count=length)
    return reader.take(length).decode(errors="replace")


def _read_array(reader: _Reader, key: str, *, keep: bool) -> Value:
    kind = reader.u32()
    count = reader.length(MAX_ARRAY_ELEMENTS, "an array length")
    if kind == _STRING:
        reader.skip_strings(count)
        return Skipped(count=count)
    packing = _SCALARS.get(kind)
    if packing is None:
        raise GgufInvalid(f"has the array {key!r} of arrays or of an unknown kind ({kind})")
    if keep and count <= KEPT_ARRAY_ELEMENTS:
        raw = reader.take(count * packing.size)
        return tuple(value for (value,) in packing.iter_unpack(raw))
    reader.skip(count * packing.size)
    return Skipped(count=count)


def _alignment(metadata: dict[str, Value]) -> int:
    value = metadata.get("general.alignment", 32)
    if (
        not isinstance(value, int)
        or isinstance(value, bool)
        or not 1 <= value <= MAX_ALIGNMENT
        or value & (value - 1)
    ):
        raise GgufInvalid(f"has the alignment {value}; a power of two up to 1 MiB is needed")
    return value


def _read_tensors(reader: _Reader, count: int, alignment: int) -> tuple[tuple[Tensor, ...], int]:
    """The tensors' records and the bytes of their data, padding between them included.

    ggml demands that each tensor begins where the one before it ends, so does this.
    """
    tensors: list[Tensor] = []
    names: set[str] = set()
    end = 0
    for _ in range(count):
        tensor, offset = _read_tensor(reader)
        if tensor.name in names:
            raise GgufInvalid(f"has the tensor {tensor.name!r} twice")
        start = _padded(end, alignment)
        if offset != start:
            raise GgufInvalid(
                f"has the tensor {tensor.name!r} at offset {offset}, where {start} is due"
            )
        names.add(tensor.name)
        tensors.append(tensor)
        end = start + tensor.bytes
    return tuple(tensors), end


def _read_tensor(reader: _Reader) -> tuple[Tensor, int]:
    """One record and the offset of its data."""
    name = _read_name(reader, MAX_TENSOR_NAME_BYTES, "a tensor name")
    dimensions = reader.u32()
    if not 1 <= dimensions <= 4:
        raise GgufInvalid(f"has the tensor {name!r} of {dimensions} dimensions")
    shape: tuple[int, ...] = struct.unpack(f"<{dimensions}Q", reader.take(8 * dimensions))
    elements = _product(shape)
    if not 1 <= elements <= MAX_TENSOR_ELEMENTS:
        raise GgufInvalid(f"has the tensor {name!r} of shape {list(shape)}")
    kind = reader.u32()
    known = TENSOR_TYPES.get(kind)
    if known is None:
        raise GgufInvalid(f"has the tensor {name!r} of the unknown type {kind}")
    if shape[0] % known.block_elements:
        raise GgufInvalid(
            f"has the tensor {name!r} with rows of {shape[0]}: {known.name} comes in blocks of "
            f"{known.block_elements}"
        )
    size = elements // known.block_elements * known.block_bytes
    return Tensor(name, shape, known.name, size), reader.u64()


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for dimension in shape:
        product *= dimension
    return product


def _padded(offset: int, alignment: int) -> int:
    return (offset + alignment - 1) & -alignment
