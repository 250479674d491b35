"""Our parser against gguf-py, and against files that mean harm."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpud.models.gguf import GgufHeader, GgufInvalid, Skipped, read_header
from tests.models import gguf_bytes as raw
from tests.models import phantoms

TINY = "tiny"
WRITERS = {
    TINY: phantoms.write_tiny,
    "llama": phantoms.decoder,
    "gpt-oss": phantoms.gpt_oss,
    "lfm2": phantoms.short_convolution,
    "bert": phantoms.encoder,
    "qwen3moe": phantoms.qwen3_experts,
}


def parse(data: bytes) -> GgufHeader:
    return read_header(io.BytesIO(data), len(data))


def parse_file(path: Path) -> GgufHeader:
    with path.open("rb") as file:
        return read_header(file, path.stat().st_size)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    phantoms.write_tiny(path)
    return path.read_bytes()


@pytest.mark.parametrize("name", WRITERS)
def test_reads_what_gguf_py_reads(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    WRITERS[name](path)
    ours, theirs = parse_file(path), gguf.GGUFReader(path)
    assert ours.data_offset == theirs.data_offset
    assert [
        (tensor.name, list(tensor.shape), tensor.type_name.upper(), tensor.bytes)
        for tensor in ours.tensors
    ] == [
        (tensor.name, tensor.shape.tolist(), tensor.tensor_type.name, int(tensor.n_bytes))
        for tensor in theirs.tensors
    ]
    fields = {key: field for key, field in theirs.fields.items() if not key.startswith("GGUF.")}
    assert ours.metadata.keys() == fields.keys()
    for key, value in ours.metadata.items():
        assert as_kept(fields[key].contents(), value) == value, key


def as_kept(contents: Any, value: object) -> object:
    """gguf-py's value, as far as ours keeps it."""
    if isinstance(value, Skipped):
        size = len(contents.encode()) if isinstance(contents, str) else len(contents)
        return Skipped(count=size)
    return tuple(contents) if isinstance(contents, list) else contents


def test_a_version_2_file_is_read() -> None:
    header = parse(raw.file([raw.ARCHITECTURE, raw.u32(b"a", 7)], version=2))
    assert (header.version, header.integer("a"), header.architecture) == (2, 7, "llama")


def test_arrays_are_counted_and_short_numeric_ones_kept() -> None:
    pattern = raw.array(b"pattern", raw.U8, 3, b"\1\0\1")
    words = raw.array(b"words", raw.STRING, 2, raw.string(b"a") + raw.string(b"b" * 70_000))
    header = parse(raw.file([raw.ARCHITECTURE, pattern, words, raw.u32(b"after", 1)]))
    assert header.integers("pattern") == (1, 0, 1)
    assert header.count("pattern") == 3
    assert header.count("words") == 2
    assert header.count("after") == header.count("absent") == 0
    assert header.integer("after") == 1


def test_values_of_another_kind_are_no_integers() -> None:
    header = parse(raw.file([raw.ARCHITECTURE, raw.key(b"f", raw.F32, b"\0" * 4)]))
    assert header.integer("f") is None
    assert header.integer("general.architecture") is None
    assert header.text("general.architecture") == "llama"


A = raw.ARCHITECTURE
HOSTILE = {
    "empty": (b"", "truncated"),
    "garbage": (b"\x7fELF" + b"x" * 200, "not a GGUF file"),
    "version 1": (raw.file([A], version=1), "version 1"),
    "big-endian": (raw.file([A], version=0x03000000), "big-endian"),
    "2^40 keys": (raw.file([A], counts=(0, 1 << 40)), "a key count of"),
    "2^40 tensors": (raw.file([A], counts=(1 << 40, 1)), "a tensor count of"),
    "fewer keys than told": (raw.head([A], counts=(0, 4096)), "truncated"),
    "array of 2^40": (raw.file([A, raw.array(b"a", raw.U32, 1 << 40, b"")]), "an array length"),
    "strings of 2^40": (raw.file([A, raw.array(b"a", 8, 1 << 40, b"")]), "an array length"),
    "4 Mi strings": (raw.file([A, raw.array(b"a", 8, 4 << 20, b"\0" * 64)]), "strings in its"),
    "2 Mi strings that are not there": (raw.file([A, raw.array(b"a", 8, 2 << 20, b"")]), "trunc"),
    "array of arrays": (raw.file([A, raw.array(b"a", raw.ARRAY, 1, b"\0" * 12)]), "of arrays"),
    "array of kind 99": (raw.file([A, raw.array(b"a", 99, 1, b"")]), "unknown kind"),
    "key of kind 99": (raw.file([A, raw.key(b"a", 99, b"")]), "unknown kind 99"),
    "a string of 2^40": (raw.file([A, raw.key(b"a", 8, b"\0\0\0\0\0\1\0\0")]), "a string length"),
    "a string of 2^40 in an array": (
        raw.file([A, raw.array(b"a", 8, 1, b"\0\0\0\0\0\1\0\0")]),
        "a string of 1099511627776",
    ),
    "a key of 2^63": (raw.file([b"\0" * 7 + b"\x80" + b"x" * 64], counts=(0, 1)), "a key length"),
    "a key without a name": (raw.file([A, raw.u32(b"", 1)]), "without a name"),
    "a key twice": (raw.file([A, raw.u32(b"a", 1), raw.u32(b"a", 1)]), "twice"),
    "a key that is not UTF-8": (raw.file([A, raw.u32(b"\xff", 1)]), "UTF-8"),
    "an architecture with a slash": (raw.file([raw.text(b"general.architecture", b"../x")]), "no"),
    "alignment 0": (raw.file([A, raw.u32(b"general.alignment", 0)]), "alignment 0"),
    "alignment 3": (raw.file([A, raw.u32(b"general.alignment", 3)]), "alignment 3"),
    "alignment 2^31": (raw.file([A, raw.u32(b"general.alignment", 1 << 31)]), "alignment"),
    "alignment of text": (raw.file([A, raw.text(b"general.alignment", b"32")]), "alignment 32"),
    "no dimension": (raw.file([A], [raw.tensor(b"t", (), 0)]), "of 0 dimensions"),
    "5 dimensions": (raw.file([A], [raw.tensor(b"t", (1,) * 5, 0)]), "of 5 dimensions"),
    "a dimension of 0": (raw.file([A], [raw.tensor(b"t", (4, 0), 0)]), "of shape [4, 0]"),
    "2^63 elements": (raw.file([A], [raw.tensor(b"t", (1 << 32, 1 << 31), 0)]), "of shape"),
    "type 31": (raw.file([A], [raw.tensor(b"t", (32,), 0, 31)]), "unknown type 31"),
    "rows that are no blocks": (raw.file([A], [raw.tensor(b"t", (33,), 0, 8)]), "blocks of 32"),
    "a tensor twice": (
        raw.file([A], [raw.tensor(b"t", (8,), 0), raw.tensor(b"t", (8,), 32)], data_bytes=64),
        "'t' twice",
    ),
    "tensors over each other": (
        raw.file([A], [raw.tensor(b"t", (8,), 0), raw.tensor(b"u", (8,), 0)], data_bytes=64),
        "at offset 0, where 32 is due",
    ),
    "a tensor beyond the file": (
        raw.file([A], [raw.tensor(b"t", (8,), 1 << 40)], data_bytes=32),
        "where 0 is due",
    ),
    "too little data": (raw.file([A], [raw.tensor(b"t", (8,), 0)], data_bytes=31), "truncated"),
    "a tensor name of 64 bytes": (
        raw.file([A], [raw.tensor(b"t" * 64, (8,), 0)]),
        "a tensor name",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_words(name: str) -> None:
    data, problem = HOSTILE[name]
    with pytest.raises(GgufInvalid) as refusal:
        parse(data)
    assert problem in str(refusal.value)


def test_a_file_cut_anywhere_is_truncated(tiny: bytes) -> None:
    whole = parse(tiny)
    cuts = [*range(4, whole.data_offset + 64, 64), len(tiny) - 1]
    for cut in cuts:
        with pytest.raises(GgufInvalid, match="truncated"):
            parse(tiny[:cut])
    assert parse(tiny) == whole


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_change_of_bytes_escapes_as_anything_but_a_refusal(tiny: bytes, data: Any) -> None:
    header = bytearray(tiny[: parse(tiny).data_offset])
    places = st.integers(min_value=0, max_value=len(header) - 1)
    for _ in range(data.draw(st.integers(min_value=1, max_value=8))):
        header[data.draw(places)] = data.draw(st.integers(min_value=0, max_value=255))
    with contextlib.suppress(GgufInvalid):
        parse(bytes(header) + tiny[len(header) :])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=2000))
def test_no_bytes_after_the_magic_escape_as_anything_but_a_refusal(noise: bytes) -> None:
    with contextlib.suppress(GgufInvalid):
        parse(b"GGUF\3\0\0\0" + noise)


TOO_LARGE = "has a header of more than 128 MiB"


def largest_believed() -> bytes:
    """A file at every limit at once: 4 096 keys, 2 Mi strings, 65 536 tensors."""
    strings = 2 << 20
    keys = [A, raw.array(b"words", raw.STRING, strings, bytes(8 * strings))]
    keys += [raw.text(b"%0250d" % number, b"x" * 250) for number in range(4094)]
    tensors = [raw.tensor(b"%063d" % n, (1, 1, 1, 1), 32 * n) for n in range(65_536)]
    return raw.file(keys, tensors, data_bytes=32 * len(tensors))


MEASURE = textwrap.dedent("""
    import json, resource, sys, time
    from pathlib import Path
    from gpud.models.gguf import GgufInvalid, read_header
    path = Path(sys.argv[1])
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    before, seconds, refusal = peak(), [], ""
    for _ in range(3):
        began = time.process_time()
        with path.open("rb") as file:
            try:
                read_header(file, path.stat().st_size)
            except GgufInvalid as error:
                refusal = str(error)
        seconds.append(time.process_time() - began)
    print(json.dumps({"seconds": min(seconds), "bytes": peak() - before, "refusal": refusal}))
""")


def measured(path: Path) -> dict[str, Any]:
    """Best CPU time of three and the growth of the peak, in a process of its own."""
    run = [sys.executable, "-c", MEASURE, str(path)]
    done = subprocess.run(run, check=True, capture_output=True, timeout=50, cwd=phantoms.ROOT)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("name", ["largest", "sparse strings", "wide window"])
def test_no_file_takes_more_than_a_second_or_64_mib(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    if name == "largest":
        path.write_bytes(largest_believed())
    elif name == "sparse strings":
        with path.open("wb") as file:
            file.write(raw.head([A, raw.array(b"a", raw.STRING, 256, b"")]))
            for _ in range(256):
                file.write((1 << 20).to_bytes(8, "little"))
                file.seek(1 << 20, os.SEEK_CUR)
            file.truncate()
    else:
        numbers = [raw.array(b"%d" % n, raw.U8, 300_000, bytes(300_000)) for n in range(400)]
        path.write_bytes(raw.file([A, *numbers]))
    taken = measured(path)
    assert taken["seconds"] < 1.0
    assert taken["bytes"] < 64 << 20
    assert taken["refusal"] == ("" if name in {"largest", "wide window"} else TOO_LARGE)


def test_a_vocabulary_of_256_000_is_counted_at_once(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    words = b"".join(raw.string(b"%07d" % number) for number in range(256_000))
    path.write_bytes(
        raw.file([A, raw.array(b"tokenizer.ggml.tokens", raw.STRING, 256_000, words)])
    )
    assert parse_file(path).count("tokenizer.ggml.tokens") == 256_000
    assert measured(path)["seconds"] < 0.25
