"""The catalogue: names, inspection off the loop, what is remembered and what is not."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gpud.errors import ModelFileInvalid, ModelNotFound
from gpud.models import catalogue as catalogue_module
from gpud.models.catalogue import Catalogue, Inspection, inspect_files
from gpud.models.model import EngineKind, HttpSource, Model, ModelKind, ModelOptions
from tests.models import gguf_bytes as raw
from tests.models import phantoms


def entry(path: str, kind: ModelKind | None = None, id_: str = "tiny") -> Model:
    return Model(id=id_, engine=EngineKind.LLAMA_CPP, kind=kind, path=path, options=ModelOptions())


def catalogue(root: Path, *models: Model) -> Catalogue:
    return Catalogue({model.id: model for model in models}, [root])


def test_a_model_is_found_by_either_name(tmp_path: Path) -> None:
    shelf = catalogue(tmp_path, entry("b.gguf", id_="b"), entry("a.gguf", id_="a"))
    assert shelf.get("a") is shelf.get("models/a")
    assert [model.id for model in shelf.list()] == ["a", "b"]
    with pytest.raises(ModelNotFound, match="models/c"):
        shelf.get("models/c")


def test_nothing_is_opened_before_it_is_asked_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.gguf")
    assert catalogue(tmp_path / "absent", entry("fifo.gguf")).list()


async def test_a_model_is_inspected_once_and_again_after_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    phantoms.write_tiny(path)
    shelf, model = catalogue(tmp_path, entry("tiny.gguf")), entry("tiny.gguf")
    first = await shelf.inspect(model)
    assert first.path == path
    assert first.size_bytes == path.stat().st_size
    assert first.header.architecture == "llama"
    assert first.header.context_length == 2048
    assert first.kind is ModelKind.CHAT
    assert await shelf.inspect(model) is first
    phantoms.write_tiny(path, "--layers", "1")
    second = await shelf.inspect(model)
    assert len(second.architecture.layers) == 1


async def test_a_kind_is_known_without_a_look_once_its_file_was_read(tmp_path: Path) -> None:
    phantoms.write_tiny(tmp_path / "a.gguf")
    model = entry("a.gguf")
    shelf = catalogue(tmp_path, model)
    assert shelf.kind_of(model) is None
    await shelf.inspect(model)
    (tmp_path / "a.gguf").unlink()
    assert shelf.kind_of(model) is ModelKind.CHAT
    assert shelf.kind_of(replace(model, kind=ModelKind.RERANK)) is ModelKind.RERANK


async def test_only_so_many_inspections_are_kept_those_asked_for_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []

    def look(model: Model, roots: Sequence[Path], seen: Inspection | None) -> Inspection:
        if seen is None:
            looks.append(model.path)
        return seen or Inspection(names=(), artifacts=(), kind=None)

    monkeypatch.setattr(catalogue_module, "MAX_SEEN", 2)
    shelf = Catalogue({}, [tmp_path], look=look)
    for name in ("a", "b", "a", "c", "a", "b"):
        await shelf.inspect(entry(name))
    assert looks == ["a", "b", "c", "b"]


async def test_a_file_that_went_bad_is_not_remembered_as_good(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    phantoms.write_tiny(path)
    shelf, model = catalogue(tmp_path, entry("tiny.gguf")), entry("tiny.gguf")
    await shelf.inspect(model)
    os.truncate(path, 100_000)
    with pytest.raises(ModelFileInvalid, match="is truncated"):
        await shelf.inspect(model)
    path.unlink()
    with pytest.raises(ModelFileInvalid, match="is missing"):
        await shelf.inspect(model)


def leave(path: Path) -> None:
    """Nothing there."""


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (leave, "is missing"),
    "empty": (Path.touch, "is empty"),
    "garbage": (lambda path: path.write_bytes(b"x" * 100), "is not a GGUF file"),
    "a fifo": (os.mkfifo, "a fifo"),
    "a link out": (lambda path: path.symlink_to("/etc/passwd"), "leaves the model roots"),
    "no architecture": (lambda path: path.write_bytes(raw.file([])), "names no architecture"),
    "no layers": (
        lambda path: path.write_bytes(raw.file([raw.ARCHITECTURE])),
        "lacks the key llama.block_count",
    ),
    "2^32 − 1 layers": (
        lambda path: path.write_bytes(
            raw.file([raw.ARCHITECTURE, raw.u32(b"llama.block_count", 0xFFFFFFFF)])
        ),
        "block_count = 4294967295",
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_file_is_refused_with_its_problem(name: str, tmp_path: Path) -> None:
    make, problem = BAD[name]
    make(tmp_path / "bad.gguf")
    with pytest.raises(ModelFileInvalid, match=r"cannot load models/tiny: bad\.gguf: ") as refused:
        await catalogue(tmp_path).inspect(entry("bad.gguf"))
    assert problem in refused.value.problem


@pytest.mark.parametrize(
    ("keys", "said", "kind"),
    [
        ([], None, ModelKind.COMPLETION),
        ([raw.text(b"tokenizer.chat_template", b"x" * 900)], None, ModelKind.CHAT),
        ([raw.u32(b"llama.pooling_type", 1)], None, ModelKind.EMBEDDING),
        ([raw.u32(b"llama.pooling_type", 4)], None, ModelKind.RERANK),
        ([raw.key(b"llama.attention.causal", 7, b"\0")], None, ModelKind.EMBEDDING),
        ([], ModelKind.RERANK, ModelKind.RERANK),
    ],
)
async def test_the_kind_is_the_entrys_or_else_the_files(
    keys: list[bytes], said: ModelKind | None, kind: ModelKind, tmp_path: Path
) -> None:
    shape = [raw.u32(b"llama.block_count", 1), raw.u32(b"llama.embedding_length", 64)]
    (tmp_path / "m.gguf").write_bytes(raw.file([raw.ARCHITECTURE, *shape, *keys]))
    inspection = await catalogue(tmp_path).inspect(entry("m.gguf", said))
    assert inspection.kind is kind


def write_split(root: Path, *, parts: int = 3, tensors: int = 3) -> None:
    """A model as llama-gguf-split leaves it: the keys in the first part, tensors in all."""
    shape = [raw.u32(b"llama.block_count", 1), raw.u32(b"llama.embedding_length", 64)]
    total = raw.u32(b"split.tensors.count", tensors)
    for number in range(parts):
        keys = [raw.u32(b"split.count", parts), total]
        keys += [raw.ARCHITECTURE, *shape] if not number else []
        tensor = raw.tensor(b"t%d" % number, (8,), 0)
        name = f"big-{number + 1:05}-of-{parts:05}.gguf"
        (root / name).write_bytes(raw.file(keys, [tensor], data_bytes=32))


async def test_all_parts_of_a_split_model_count(tmp_path: Path) -> None:
    write_split(tmp_path)
    shelf, model = catalogue(tmp_path), entry("big-00001-of-00003.gguf")
    whole = await shelf.inspect(model)
    assert [tensor.name for tensor in whole.header.tensors] == ["t0", "t1", "t2"]
    assert len(whole.artifacts) == 3
    assert await shelf.inspect(model) is whole
    os.utime(tmp_path / "big-00003-of-00003.gguf", (1, 1))
    assert await shelf.inspect(model) is not whole


async def test_a_split_model_must_be_complete_and_named_by_its_first_part(tmp_path: Path) -> None:
    write_split(tmp_path, tensors=4)
    with pytest.raises(ModelFileInvalid, match="3 tensors in 3 parts, not 4"):
        await catalogue(tmp_path).inspect(entry("big-00001-of-00003.gguf"))
    with pytest.raises(ModelFileInvalid, match="name the first"):
        await catalogue(tmp_path).inspect(entry("big-00002-of-00003.gguf"))


async def test_what_is_wrong_with_a_part_is_told_of_that_part(tmp_path: Path) -> None:
    write_split(tmp_path)
    shelf, model = catalogue(tmp_path), entry("big-00001-of-00003.gguf")
    part = tmp_path / "big-00002-of-00003.gguf"
    whole = await shelf.inspect(model)

    async def refused(problem: str) -> None:
        # By who looks for the first time, and by who has seen it whole.
        for asked in (catalogue(tmp_path).inspect(model), shelf.inspect(model)):
            with pytest.raises(ModelFileInvalid, match=problem) as error:
                await asked
            assert error.value.path == part.name

    os.utime(part, (1, 1))
    with pytest.raises(ModelFileInvalid, match="changed while") as changed:
        await shelf.confirm(model, whole)
    assert changed.value.path == part.name
    part.write_bytes(b"x" * 100)
    await refused("is not a GGUF file")
    part.unlink()
    await refused("is missing")
    first = tmp_path / model.path
    write_split(tmp_path)
    first.unlink()
    with pytest.raises(ModelFileInvalid, match="is missing") as missing:
        await shelf.inspect(model)
    assert missing.value.path == first.name


async def test_parts_of_different_models_make_none(tmp_path: Path) -> None:
    write_split(tmp_path)
    first, second, third = (tmp_path / f"big-0000{n}-of-00003.gguf" for n in (1, 2, 3))
    whole = second.read_bytes()
    second.write_bytes(third.read_bytes())
    with pytest.raises(ModelFileInvalid, match="in more than one of its parts"):
        await catalogue(tmp_path).inspect(entry(first.name))
    count, total = raw.u32(b"split.count", 3), raw.u32(b"split.tensors.count", 3)
    for keys in (
        [raw.u32(b"split.count", 4), total],
        [total],
        [count, total, raw.u32(b"split.no", 2)],
    ):
        second.write_bytes(raw.file(keys, [raw.tensor(b"t1", (8,), 0)], data_bytes=32))
        with pytest.raises(ModelFileInvalid, match="a part 2 that is of another model"):
            await catalogue(tmp_path).inspect(entry(first.name))
    second.write_bytes(whole)
    await catalogue(tmp_path).inspect(entry(first.name))


async def test_a_projector_is_held_beside_its_model(tmp_path: Path) -> None:
    (tmp_path / "eye").mkdir()
    phantoms.write_tiny(tmp_path / "m.gguf")
    phantoms.write_tiny(tmp_path / "eye" / "m.gguf")
    shelf, model = catalogue(tmp_path), replace(entry("m.gguf"), mmproj="eye/m.gguf")
    found = await shelf.inspect(model)
    assert found.projector is not None
    assert found.names == ("m.gguf", "eye/m.gguf")
    held = await shelf.hold(model, found)
    held.close()
    assert (list(held.by_name), held.projector) == (["m.gguf", "other-m.gguf"], "other-m.gguf")
    os.utime(tmp_path / "eye" / "m.gguf", (1, 1))
    with pytest.raises(ModelFileInvalid, match="changed while"):
        await shelf.confirm(model, found)
    (tmp_path / "eye" / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelFileInvalid, match=r"a projector eye/m\.gguf that"):
        await shelf.inspect(model)
    (tmp_path / "eye" / "m.gguf").unlink()
    # It is no file that a load fetches.
    fetched = replace(model, source=HttpSource(url="https://example.com/x", sha256="0" * 64))
    with pytest.raises(ModelFileInvalid, match=r"eye/m\.gguf: is missing"):
        await shelf.confirm(fetched, found)


async def test_a_model_that_is_still_to_come_says_so(tmp_path: Path) -> None:
    source = HttpSource(url="https://example.com/x", sha256="0" * 64)
    with pytest.raises(ModelFileInvalid, match="its first load fetches it"):
        await catalogue(tmp_path).inspect(replace(entry("x.gguf"), source=source))


async def test_entries_come_and_go(tmp_path: Path) -> None:
    shelf = catalogue(tmp_path)
    shelf.configure({"b": replace(entry("b.gguf"), id="b")}, [tmp_path / "roots"])
    shelf.register(replace(entry("c.gguf"), id="c", owner="anna"))
    shelf.register(replace(entry("other.gguf"), id="b", owner="anna"))
    assert [(each.id, each.path) for each in shelf.list()] == [("b", "b.gguf"), ("c", "c.gguf")]
    assert shelf.get("models/b").path == "b.gguf"
    assert shelf.roots == (tmp_path / "roots",)
    shelf.configure({}, [])
    assert shelf.get("b").owner == "anna"
    shelf.unregister("b")
    with pytest.raises(ModelNotFound):
        shelf.get("b")


async def test_a_disk_that_hangs_holds_up_no_other_model(tmp_path: Path) -> None:
    """Asked for more often than there are places, it would."""
    released = threading.Event()

    def look(model: Model, roots: Sequence[Path], seen: Inspection | None) -> Inspection:
        if model.path == "hung.gguf":
            released.wait(60)
        return inspect_files(model, roots, seen)

    phantoms.write_tiny(tmp_path / "good.gguf")
    shelf = Catalogue({}, [tmp_path], limit_seconds=3.0, look=look)
    try:
        with pytest.raises(ModelFileInvalid, match="its disk hangs"):
            await shelf.inspect(entry("hung.gguf"))
        for _ in range(8):
            with pytest.raises(ModelFileInvalid, match="hangs still"):
                await shelf.inspect(entry("hung.gguf"))
        await shelf.inspect(entry("good.gguf"))
    finally:
        released.set()
