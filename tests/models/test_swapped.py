"""A model's file that is another one between its check and the start of its engine."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pytest

from gpud.errors import ModelFileInvalid
from gpud.models.artifact import ArtifactRefused
from gpud.models.catalogue import CHANGED, Catalogue, hold_files, inspect_files
from gpud.models.gguf import read_header
from gpud.models.model import EngineKind, Model, ModelOptions
from tests.models import gguf_bytes as raw
from tests.proof.record import record

SWAPS = 1000
EXPECTED = {"first", "other", "changed", "refused"}
TINY = Model(
    id="tiny", engine=EngineKind.LLAMA_CPP, kind=None, path="tiny.gguf", options=ModelOptions()
)


def content(tag: bytes) -> bytes:
    """A model that says which one it is; all are of one size."""
    shape = [raw.u32(b"llama.block_count", 1), raw.u32(b"llama.embedding_length", 64)]
    return raw.file([raw.ARCHITECTURE, *shape, raw.text(b"tag", tag)])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    (root / "tiny.gguf").write_bytes(content(b"first"))
    (tmp_path / "stolen.gguf").write_bytes(content(b"theft"))
    return root


@contextmanager
def swapping(root: Path) -> Iterator[list[int]]:
    """A thread that puts one file after another at the path, some of them links out of it."""
    done, swaps = threading.Event(), [0]
    at, aside = root / "tiny.gguf", root / "aside"

    def swap() -> None:
        for kind in cycle(("first", "other", "theft")):
            if done.is_set():
                return
            if kind == "theft":
                aside.symlink_to(root.parent / "stolen.gguf")
            else:
                aside.write_bytes(content(kind.encode()))
            os.replace(aside, at)
            swaps[0] += 1

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield swaps
    finally:
        done.set()
        thread.join()


def start(root: Path) -> str:
    """Check it, then open it as for an engine: which file that one would read."""
    try:
        checked = inspect_files(TINY, [root], None)
        held = hold_files(TINY, [root], checked)
    except ArtifactRefused as refused:
        return "changed" if str(refused) == CHANGED else "refused"
    (file,) = held.by_name.values()
    read = read_header(file, checked.size_bytes).metadata["tag"]
    held.close()
    assert read == checked.header.metadata["tag"]
    return str(read)


@pytest.mark.proof
def test_a_thousand_swaps_start_the_file_that_was_checked_or_nothing(root: Path) -> None:
    began, seen = time.monotonic(), Counter[str]()
    with swapping(root) as swaps:
        while swaps[0] < SWAPS or seen.total() < SWAPS:
            seen[start(root)] += 1
    wrong = sum(count for what, count in seen.items() if what not in EXPECTED)
    record("R13 a model's path swapped before its start: swaps", SWAPS, swaps[0], wrong,
           time.monotonic() - began)  # fmt: skip
    assert not wrong, seen
    # Else the thread was never quick enough to try anything.
    assert seen["changed"] + seen["refused"] > 0


async def test_each_kind_of_change_is_seen_before_the_start(root: Path) -> None:
    shelf, at = Catalogue({TINY.id: TINY}, [root]), root / "tiny.gguf"

    def rewritten() -> None:
        at.write_bytes(content(b"other"))

    def replaced() -> None:
        aside = root / "aside"
        aside.write_bytes(at.read_bytes())
        status = at.stat()
        os.utime(aside, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.replace(aside, at)

    def cut() -> None:
        status = at.stat()
        os.truncate(at, status.st_size - 1)
        os.utime(at, ns=(status.st_atime_ns, status.st_mtime_ns))

    def touched() -> None:
        os.utime(at, ns=(1, 1))

    for change in (rewritten, replaced, touched, cut):
        checked = await shelf.inspect(TINY)
        await shelf.confirm(TINY, checked)
        held = await shelf.hold(TINY, checked)
        held.close()
        change()
        with pytest.raises(ModelFileInvalid, match="changed while it was being loaded"):
            await shelf.confirm(TINY, checked)
        with pytest.raises(ModelFileInvalid, match="changed while it was being loaded"):
            await shelf.hold(TINY, checked)


async def test_what_is_held_outlives_its_name(root: Path) -> None:
    shelf = Catalogue({TINY.id: TINY}, [root])
    held = await shelf.hold(TINY, await shelf.inspect(TINY))
    (root / "tiny.gguf").unlink()
    assert list(held.by_name) == ["tiny.gguf"]
    assert held.by_name["tiny.gguf"].read() == content(b"first")
    held.close()
