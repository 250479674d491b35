"""Headers of safetensors files: whole ones read, hostile and damaged ones refused in words."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.models.hugging_face.safetensors import (
    MAX_HEADER_BYTES,
    SafetensorsInvalid,
    read_object,
    read_weights,
)
from tests.models.hugging_face.writing import Shape, packed, write_weights


def read(content: bytes) -> Any:
    return read_weights(io.BytesIO(content), len(content))


def one(**changes: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12], **changes}}


OVERLAPPING = {"b": {"dtype": "U8", "shape": [4], "data_offsets": [8, 12]}}


def test_a_whole_file_tells_its_tensors(tmp_path: Path) -> None:
    shape = Shape()
    write_weights(tmp_path / "m.safetensors", shape.tensors)
    content = (tmp_path / "m.safetensors").read_bytes()
    weights = read(content)
    assert {weight.name: weight.shape for weight in weights} == shape.tensors
    assert sum(weight.bytes for weight in weights) == 4 * sum(w.elements for w in weights)
    assert {weight.dtype for weight in weights} == {"F32"}


def test_types_of_less_than_a_byte_are_counted_in_bits() -> None:
    header = {"a": {"dtype": "F4", "shape": [3, 4], "data_offsets": [0, 6]}}
    assert read(packed(header, bytes(6)))[0].bytes == 6


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has 0 bytes"),
        (b"\0" * 8, "has 8 bytes"),
        (packed(one(), bytes(11)), "cut short: its tensors need 12 bytes, and 11 are there"),
        (packed(one(), bytes(13)), "has 1 bytes after its last tensor"),
        (packed(one(), bytes(12))[:30], "is cut short within its header"),
        ((MAX_HEADER_BYTES + 1).to_bytes(8, "little") + bytes(99), "its header would have"),
        ((2**64 - 1).to_bytes(8, "little") + bytes(99), "its header would have"),
        (packed(b"[]", bytes(9)), "does not begin with {"),
        (packed(b'{"a":1,"a":2}'), "names a key twice"),
        (packed(b'{"a":{"dtype":"F16","dtype":"F32"}}'), "names a key twice"),
        (packed(b'{"a":' + b"[" * 100_000), "is nested too deeply"),
        (packed(b'{"a":' + b"9" * 10_000 + b"}"), "is not JSON"),
        (packed(b'{"a":NaN}'), "which is no number of JSON"),
        (packed(b'{"\xff":1}'), "is not JSON"),
        (packed({"a": 1}), "does not describe the tensor 'a'"),
        (packed({"n" * 600: {}}), "does not describe the tensor"),
        (packed(one(dtype="Q9"), bytes(12)), "a type that is not known, 'Q9'"),
        (packed(one(shape=[-2, -3]), bytes(12)), "no usable shape"),
        (packed(one(shape=[2.0, 3]), bytes(12)), "no usable shape"),
        (packed(one(shape=[True, 6]), bytes(12)), "no usable shape"),
        (packed(one(shape=[1] * 9 + [6]), bytes(12)), "no usable shape"),
        (packed(one(shape=[2**40, 2**40]), bytes(12)), "gives 'a' 12 bytes for its shape"),
        (packed(one(shape=[7]), bytes(12)), "gives 'a' 12 bytes for its shape"),
        (packed(one(data_offsets=[12, 0]), bytes(12)), "gives 'a' -12 bytes"),
        (packed(one(data_offsets=[4, 16]), bytes(16)), "a hole or an overlap before 'a'"),
        (packed({**one(), **OVERLAPPING}, bytes(12)), "a hole or an overlap before 'b'"),
    ],
)  # fmt: skip
def test_what_may_not_be_believed_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(SafetensorsInvalid, match=words.replace("{", "[{]")):
        read(content)


@given(st.binary(max_size=400))
def test_property_no_bytes_do_anything_but_be_refused_or_read(content: bytes) -> None:
    for made in (content, packed(content), packed(b"{" + content)):
        try:
            weights = read(made)
        except SafetensorsInvalid:
            continue
        assert sum(weight.bytes for weight in weights) <= len(made)


@given(st.dictionaries(st.text(max_size=8), st.integers(0, 40), max_size=6))
def test_property_what_is_written_is_read(sizes: dict[str, int]) -> None:
    header: dict[str, Any] = {}
    at = 0
    for name, size in sizes.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}
        at += size
    header.pop("__metadata__", None)
    if not header:
        return
    weights = read(packed(header, bytes(sum(one["shape"][0] for one in header.values()))))
    assert {weight.name: weight.bytes for weight in weights} == {
        name: told["shape"][0] for name, told in header.items()
    }


def test_an_object_is_read_as_json_reads_it() -> None:
    value = {"a": [1, 2.5, None, True], "b": {"c": "ü"}}
    assert read_object(json.dumps(value).encode()) == value
