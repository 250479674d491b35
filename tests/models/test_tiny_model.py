"""The model that the demo and the tests run on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gpud.models.architecture import Architecture
from gpud.models.gguf import read_header
from tests.models import phantoms


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        phantoms.write_tiny(tmp_path / name, "--seed", seed, "--layers", "1")
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


def test_its_shape_is_what_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    phantoms.write_tiny(
        path, "--embd", "64", "--layers", "3", "--heads", "2", "--kv-heads", "1", "--ff", "96",
        "--ctx", "1024", "--vocab", "700",
    )  # fmt: skip
    with path.open("rb") as file:
        shape = Architecture.of(read_header(file, path.stat().st_size))
    assert (shape.embedding_width, shape.feed_forward_width, shape.heads) == (64, 96, 2)
    assert [layer.key_width for layer in shape.layers] == [32, 32, 32]
    assert (shape.context_trained, shape.vocabulary) == (1024, 700)


def test_heads_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        phantoms.write_tiny(tmp_path / "tiny.gguf", "--heads", "3")
    assert not (tmp_path / "tiny.gguf").exists()
