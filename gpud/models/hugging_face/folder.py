"""Reads a folder of a model: config.json, the headers of its weights, what lies beside them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from gpud.models.artifact import Artifact, ArtifactRefused
from gpud.models.hugging_face.config import HfModel, kind_of, model_of
from gpud.models.hugging_face.safetensors import (
    SafetensorsInvalid,
    Weight,
    read_object,
    read_weights,
)
from gpud.models.model import ModelKind

CONFIG: Final = "config.json"
INDEX: Final = "model.safetensors.index.json"
SINGLE: Final = "model.safetensors"
# What a server reads beside the weights, where it is there. Code (*.py) and pickles (*.bin) are
# not among them: an engine is not even shown that they exist.
OPTIONAL: Final = (
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
    "chat_template.jinja", "chat_template.json", "tekken.json", "params.json",
    "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json",
    "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json",
    "1_Pooling/config.json",
)  # fmt: skip
MAX_JSON_BYTES: Final = 32 << 20  # the index of a model of 100 000 tensors has 9 MB
MAX_SHARDS: Final = 512

# Opens a file of the folder by its name there. Raises ArtifactRefused.
Opened = Callable[[str], AbstractContextManager[tuple[Artifact, BinaryIO]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """What a folder holds: its files by their names in it, and what they say."""

    artifacts: dict[str, Artifact]
    model: HfModel
    kind: ModelKind


def read_folder(opened: Opened) -> Folder:
    """Everything but the weights themselves; blocks on the disk.

    Raises ArtifactRefused and SafetensorsInvalid, whose text names the file.
    """
    artifacts: dict[str, Artifact] = {}
    config = _json(opened, CONFIG, artifacts)
    weights = _weights(opened, artifacts)
    beside = {name: _beside(opened, name, artifacts) for name in OPTIONAL}
    told = beside["tokenizer_config.json"]
    template = bool(beside["chat_template.jinja"] or beside["chat_template.json"])
    template = template or (told is not None and b'"chat_template"' in told)
    return Folder(
        artifacts=artifacts,
        model=model_of(config, weights),
        kind=kind_of(config, artifacts, template=template),
    )


def _weights(opened: Opened, artifacts: dict[str, Artifact]) -> list[Weight]:
    """Every tensor of all files; each that the index names must be there."""
    index = _beside(opened, INDEX, artifacts)
    if index is None:
        return list(_shard(opened, SINGLE, artifacts))
    mapping = read_object(index).get("weight_map")
    if not isinstance(mapping, dict) or not mapping:
        raise SafetensorsInvalid(f"{INDEX} has no weight_map")
    names = sorted({_shard_name(value) for value in mapping.values()})
    if len(names) > MAX_SHARDS:
        raise SafetensorsInvalid(f"{INDEX} names {len(names)} files, more than {MAX_SHARDS}")
    weights = [weight for name in names for weight in _shard(opened, name, artifacts)]
    missing = mapping.keys() - {weight.name for weight in weights}
    if missing:
        raise SafetensorsInvalid(f"{INDEX} names {len(missing)} tensors that no file holds")
    return weights


def _shard_name(value: Any) -> str:
    if not isinstance(value, str) or "/" in value or not value.endswith(".safetensors"):
        raise SafetensorsInvalid(f"{INDEX} names no file of weights: {str(value)[:80]!r}")
    return value


def _shard(opened: Opened, name: str, artifacts: dict[str, Artifact]) -> tuple[Weight, ...]:
    with opened(name) as (artifact, file):
        artifacts[name] = artifact
        try:
            return read_weights(file, artifact.size_bytes)
        except SafetensorsInvalid as error:
            raise SafetensorsInvalid(f"{name} {error}") from error


def _json(opened: Opened, name: str, artifacts: dict[str, Artifact]) -> dict[str, Any]:
    with opened(name) as (artifact, file):
        artifacts[name] = artifact
        try:
            return read_object(_text(file, artifact))
        except SafetensorsInvalid as error:
            raise SafetensorsInvalid(f"{name} {error}") from error


def _beside(opened: Opened, name: str, artifacts: dict[str, Artifact]) -> bytes | None:
    """A small file's content, empty for one that is only noted; None where there is none."""
    try:
        with opened(name) as (artifact, file):
            artifacts[name] = artifact
            read = name in {INDEX, "tokenizer_config.json"}
            return _text(file, artifact) if read else b" "
    except ArtifactRefused as refused:
        if not refused.missing:
            raise
        return None


def _text(file: BinaryIO, artifact: Artifact) -> bytes:
    if artifact.size_bytes > MAX_JSON_BYTES:
        raise SafetensorsInvalid(f"is larger than {MAX_JSON_BYTES} bytes")
    text = b""
    while part := file.read(MAX_JSON_BYTES + 1 - len(text)):
        text += part
    return text
