"""Folders of models: what they say, what must be there, and what is not looked at."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpud.models.artifact import ArtifactRefused, open_artifact
from gpud.models.hugging_face.folder import Folder, read_folder
from gpud.models.hugging_face.safetensors import SafetensorsInvalid
from gpud.models.model import ModelKind
from tests.models.hugging_face.writing import (
    Shape,
    config_of,
    write_folder,
    write_json,
    write_weights,
)


def read(folder: Path) -> Folder:
    return read_folder(lambda name: open_artifact(f"{folder.name}/{name}", [folder.parent]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "llama")


def test_a_folder_tells_its_shape(folder: Path) -> None:
    found = read(folder)
    model = found.model
    assert (model.architecture, model.layers, model.hidden_width) == ("LlamaForCausalLM", 2, 64)
    assert (model.heads, model.kv_heads, model.head_width) == (2, 1, 32)
    assert (model.vocabulary, model.context_trained, model.dtype) == (320, 2048, "float32")
    assert model.file_bytes == 4 * model.parameter_count == (folder / "model.safetensors").stat(
    ).st_size - 8 - header_bytes(folder / "model.safetensors")  # fmt: skip
    assert found.kind is ModelKind.CHAT
    assert set(found.artifacts) == {path.name for path in folder.iterdir()}


def header_bytes(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[:8], "little")


def test_code_and_pickles_are_not_looked_at(folder: Path) -> None:
    (folder / "modeling_llama.py").write_text("import os")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    assert not {"modeling_llama.py", "pytorch_model.bin"} & read(folder).artifacts.keys()


def test_shards_are_one_model(tmp_path: Path) -> None:
    whole = read(write_folder(tmp_path / "whole"))
    folder = write_folder(tmp_path / "split")
    (folder / "model.safetensors").unlink()
    names = list(Shape().tensors)
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for name, tensors in halves.items():
        write_weights(folder / name, {each: Shape().tensors[each] for each in tensors})
    mapping = {tensor: name for name, tensors in halves.items() for tensor in tensors}
    write_json(folder / "model.safetensors.index.json", {"weight_map": mapping})
    assert read(folder).model == whole.model
    assert halves.keys() <= read(folder).artifacts.keys()

    (folder / "model-2.safetensors").unlink()
    with pytest.raises(ArtifactRefused, match="is missing"):
        read(folder)
    write_weights(folder / "model-2.safetensors", {"other": (4,)})
    with pytest.raises(SafetensorsInvalid, match=f"names {len(names[1::2])} tensors that no file"):
        read(folder)


@pytest.mark.parametrize("name", ["../secret.safetensors", "weights.bin", 7])
def test_an_index_leads_to_weights_alone(folder: Path, name: Any) -> None:
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"a": name}})
    with pytest.raises(SafetensorsInvalid, match="names no file of weights"):
        read(folder)


@pytest.mark.parametrize("content", [{}, {"weight_map": []}, {"weight_map": {}}])
def test_an_index_without_a_map_is_refused(folder: Path, content: Any) -> None:
    write_json(folder / "model.safetensors.index.json", content)
    with pytest.raises(SafetensorsInvalid, match="has no weight_map"):
        read(folder)


def test_weights_that_were_cut_are_refused_before_anything_is_started(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(SafetensorsInvalid, match=r"model.safetensors is cut short"):
        read(folder)


def test_a_folder_without_weights_says_which_are_missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ArtifactRefused, match="is missing"):
        read(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architectures": None}, "names no architecture"),
        ({"architectures": ["a b"]}, "names no architecture"),
        ({"num_hidden_layers": 0}, "no usable num_hidden_layers"),
        ({"num_hidden_layers": 10**6}, "no usable num_hidden_layers"),
        ({"hidden_size": "64"}, "no usable hidden_size"),
        ({"num_attention_heads": True}, "no usable num_attention_heads"),
        ({"vocab_size": -1}, "no usable vocab_size"),
        ({"head_dim": 10**12}, "no usable head_dim"),
        ({"quantization_config": {"bits": 4}}, "no method of its quantization"),
    ],
)
def test_a_config_that_describes_no_model_is_refused(
    folder: Path, changes: dict[str, Any], words: str
) -> None:
    write_json(folder / "config.json", config_of(Shape(), **changes))
    with pytest.raises(SafetensorsInvalid, match=words):
        read(folder)


def test_a_config_that_is_no_json_is_named(folder: Path) -> None:
    (folder / "config.json").write_text("{'a': 1}")
    with pytest.raises(SafetensorsInvalid, match=r"config.json is not JSON"):
        read(folder)


Change = Callable[[Path], None]


def architecture(name: str) -> Change:
    return lambda folder: write_json(
        folder / "config.json", config_of(Shape(), architectures=[name])
    )


def untemplated(folder: Path) -> None:
    told = json.loads((folder / "tokenizer_config.json").read_text())
    del told["chat_template"]
    write_json(folder / "tokenizer_config.json", told)


def embedder(folder: Path) -> None:
    (folder / "modules.json").write_text("[]")


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (untemplated, ModelKind.COMPLETION),
        (embedder, ModelKind.EMBEDDING),
        (architecture("BertModel"), ModelKind.EMBEDDING),
        (architecture("XLMRobertaForSequenceClassification"), ModelKind.RERANK),
        (architecture("Qwen3ForCausalLM"), ModelKind.CHAT),
    ],
)
def test_the_kind_follows_from_what_lies_there(
    folder: Path, change: Change, kind: ModelKind
) -> None:
    change(folder)
    assert read(folder).kind is kind


def test_what_sees_has_its_language_model_one_level_down(folder: Path) -> None:
    inner = config_of(Shape(layers=2))
    outer = {"architectures": ["LlavaForConditionalGeneration"], "text_config": inner}
    write_json(folder / "config.json", outer)
    assert read(folder).model.layers == 2
