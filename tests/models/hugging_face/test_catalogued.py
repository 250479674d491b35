"""A folder in the catalogue: inspected as one, held by its real files, looked at anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpud.errors import ModelFileInvalid
from gpud.models.catalogue import Catalogue
from gpud.models.model import EngineKind, Model, ModelKind, ModelOptions
from tests.models.hugging_face.writing import Shape, write_folder


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    write_folder(tmp_path / "models" / "llama")
    return Catalogue({"llama": entry()}, [tmp_path / "models"])


def entry(path: str = "llama") -> Model:
    return Model(id="llama", engine=EngineKind.VLLM, kind=None, path=path, options=ModelOptions())


async def test_a_folder_is_inspected_and_named(catalogue: Catalogue, tmp_path: Path) -> None:
    found = await catalogue.inspect(entry())
    assert found.hf is not None
    assert (found.form, found.kind, found.folder) == (
        "LlamaForCausalLM", ModelKind.CHAT, "llama",
    )  # fmt: skip
    assert found.size_bytes == sum(
        path.stat().st_size for path in (tmp_path / "models" / "llama").iterdir()
    )
    held = await catalogue.hold(entry(), found)
    assert held.by_path["model.safetensors"] == tmp_path / "models/llama/model.safetensors"
    assert not held.by_name


async def test_a_hub_s_farm_of_links_is_held_by_what_they_lead_to(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "1"
    write_folder(blobs)
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    catalogue = Catalogue({}, [tmp_path / "hub"])
    model = entry("snapshots/1")
    held = await catalogue.hold(model, await catalogue.inspect(model))
    assert held.by_path["config.json"] == blobs / "config.json"


async def test_a_folder_that_changed_is_not_what_was_inspected(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    found = await catalogue.inspect(entry())
    assert await catalogue.inspect(entry()) is found
    write_folder(tmp_path / "models" / "llama", Shape(layers=3))
    with pytest.raises(ModelFileInvalid, match="changed while it was being loaded"):
        await catalogue.confirm(entry(), found)
    again = await catalogue.inspect(entry())
    assert again.hf is not None
    assert again.hf.layers == 3


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", "{", "config.json is not JSON"),
        ("model.safetensors", "x" * 100, "is no safetensors file"),
        ("model.safetensors", "", "is empty"),
    ],
)
async def test_what_is_wrong_with_a_folder_is_told_with_the_file(
    catalogue: Catalogue, tmp_path: Path, name: str, content: str, words: str
) -> None:
    (tmp_path / "models" / "llama" / name).write_text(content)
    with pytest.raises(ModelFileInvalid, match=words):
        await catalogue.inspect(entry())


async def test_a_folder_outside_of_the_roots_is_none(catalogue: Catalogue, tmp_path: Path) -> None:
    write_folder(tmp_path / "elsewhere")
    (tmp_path / "models" / "leading").symlink_to(tmp_path / "elsewhere")
    for path in ("leading", "../elsewhere", str(tmp_path / "elsewhere")):
        with pytest.raises(ModelFileInvalid, match="leaves the model roots"):
            await catalogue.inspect(entry(path))
