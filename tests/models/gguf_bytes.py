"""GGUF files written byte by byte, so that they can be wrong in any way."""

from __future__ import annotations

import struct

U8, U32, F32, STRING, ARRAY, U64 = 0, 4, 6, 8, 9, 10


def string(raw: bytes) -> bytes:
    return struct.pack("<Q", len(raw)) + raw


def key(name: bytes, kind: int, value: bytes) -> bytes:
    return string(name) + struct.pack("<I", kind) + value


def u32(name: bytes, value: int) -> bytes:
    return key(name, U32, struct.pack("<I", value))


def text(name: bytes, value: bytes) -> bytes:
    return key(name, STRING, string(value))


def array(name: bytes, kind: int, count: int, body: bytes) -> bytes:
    return key(name, ARRAY, struct.pack("<IQ", kind, count) + body)


def tensor(name: bytes, shape: tuple[int, ...], offset: int, kind: int = 0) -> bytes:
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return string(name) + dimensions + struct.pack("<IQ", kind, offset)


ARCHITECTURE = text(b"general.architecture", b"llama")


def head(
    keys: list[bytes],
    tensors: list[bytes] | None = None,
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """All up to the padding; `counts` of tensors and keys, where they are to be lies."""
    tensors = tensors or []
    told = counts or (len(tensors), len(keys))
    return b"".join((b"GGUF", struct.pack("<IQQ", version, *told), *keys, *tensors))


def file(
    keys: list[bytes],
    tensors: list[bytes] | None = None,
    *,
    data_bytes: int = 0,
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    start = head(keys, tensors, version=version, counts=counts)
    return start + bytes(-len(start) % 32 + data_bytes)
