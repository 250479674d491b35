"""The models that may be loaded, and what their files say, read when somebody asks."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, TypeVar

from gpud.errors import ModelFileInvalid, ModelNotFound
from gpud.models.architecture import Architecture
from gpud.models.artifact import Artifact, ArtifactRefused, open_artifact
from gpud.models.gguf import GgufHeader, GgufInvalid, read_header
from gpud.models.hugging_face.config import HfModel
from gpud.models.hugging_face.folder import read_folder
from gpud.models.hugging_face.safetensors import SafetensorsInvalid
from gpud.models.looking import Looking, LookOverdue
from gpud.models.model import CommandSpec, EngineKind, Model, ModelKind

# A disk that answers needs far less than a second; a share that hangs must not hang a load.
INSPECTION_SECONDS: Final = 10.0
MAX_SHARDS: Final = 256
# Inspections that are kept: one holds megabytes where a file has a large vocabulary.
MAX_SEEN: Final = 256
CHANGED: Final = "changed while it was being loaded: load it again once nobody writes it"
_RANK_POOLING: Final = 4
_SHARD = re.compile(r"(.+)-00001-of-([0-9]{5})\.gguf")


class ModelContentInvalid(ModelFileInvalid):
    """Its files were read, and hold no model that could be loaded."""


class _PartInvalid(GgufInvalid):
    """The same of one file, which need not be the one that the model is named by."""

    def __init__(self, problem: str, path: str) -> None:
        super().__init__(problem)
        self.path = path


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """A model's files as they are now; `names` are their paths as they were asked for.

    `header` and `architecture` are of GGUF files, all of them together; None for other forms.
    `hf` is of a folder in the form of the transformers library, at the path `folder`. `projector`
    is of the last file, where the model has one for images. A server that the configuration runs
    by itself, as `command` says, may have no files at all, and `kind` is None where its entry
    does not say what it is for.
    """

    names: tuple[str, ...]
    artifacts: tuple[Artifact, ...]
    kind: ModelKind | None
    header: GgufHeader | None = None
    architecture: Architecture | None = None
    hf: HfModel | None = None
    folder: str = ""
    projector: GgufHeader | None = None
    command: CommandSpec | None = None

    @property
    def gguf(self) -> GgufHeader:
        """The header of a GGUF model. Raises GgufInvalid for another form."""
        if self.header is None:
            raise GgufInvalid("is no GGUF file")
        return self.header

    @property
    def form(self) -> str:
        """The architecture that its files name; empty where they name none."""
        if self.hf is not None:
            return self.hf.architecture
        return self.architecture.name if self.architecture is not None else ""

    @property
    def path(self) -> Path:
        """The real path of the first file, which is what the engine is told."""
        return self.artifacts[0].path

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(artifact.size_bytes for artifact in self.artifacts)


Look = Callable[[Model, Sequence[Path], Inspection | None], Inspection]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HeldFiles:
    """The open files of a model, by the names that belong to them, the first one first.

    `by_path` are the files of a folder instead, by their names in it. Its engine is of several
    processes, which inherit nothing from each other, so it is led to their real paths.
    """

    by_name: Mapping[str, BinaryIO]
    by_path: Mapping[str, Path] = field(default_factory=dict)
    projector: str = ""  # the name of the one for images, the last of them

    def close(self) -> None:
        """Let them go; whoever inherited them keeps them."""
        for file in self.by_name.values():
            file.close()


class Catalogue:
    """Names and where their files lie. Opens nothing before it is asked to inspect."""

    def __init__(
        self,
        models: Mapping[str, Model],
        roots: Sequence[Path],
        *,
        limit_seconds: float = INSPECTION_SECONDS,
        look: Look | None = None,
    ) -> None:
        """`models` are of the configuration, by id; `roots` are where files must lie under.

        `look` reads a model's files; another one stands in for a disk that misbehaves.
        """
        self._look: Look = look or inspect_files
        self._configured = dict(models)
        self._registered: dict[str, Model] = {}
        self._roots = tuple(roots)
        # Valid while the artifacts are the same; by what an entry's inspection depends on, those
        # that were asked for last at the end.
        self._seen: dict[tuple[EngineKind, str, str, ModelKind | None], Inspection] = {}
        self._looking = Looking(limit_seconds)

    def get(self, name: str) -> Model:
        """The entry of `tiny` or `models/tiny`. Raises ModelNotFound."""
        id_ = name.removeprefix("models/")
        model = self._configured.get(id_) or self._registered.get(id_)
        if model is None:
            raise ModelNotFound(name=name)
        return model

    def list(self) -> tuple[Model, ...]:
        """All entries, by id; one of the configuration hides a registered one of its name."""
        models = {**self._registered, **self._configured}
        return tuple(models[id_] for id_ in sorted(models))

    def entries(self) -> tuple[Model, ...]:
        """All entries, those too that are hidden; from any thread."""
        return (*tuple(self._configured.values()), *tuple(self._registered.values()))

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders that model files must lie under."""
        return self._roots

    def configure(self, models: Mapping[str, Model], roots: Sequence[Path]) -> None:
        """Take another configuration's entries and roots instead; registered ones stay."""
        self._configured, self._roots = dict(models), tuple(roots)

    def configured(self, id_: str) -> Model | None:
        """The entry of the configuration, if there is one."""
        return self._configured.get(id_)

    def registered(self, id_: str) -> Model | None:
        """The registered entry, whether or not one of the configuration hides it."""
        return self._registered.get(id_)

    def register(self, model: Model) -> None:
        """Add an entry, or put it in the place of the registered one of its name."""
        self._registered[model.id] = model

    def unregister(self, id_: str) -> None:
        """Forget a registered entry; nothing where there is none."""
        self._registered.pop(id_, None)

    async def inspect(self, model: Model) -> Inspection:
        """Open and read the model's files, off the loop; again only after one has changed.

        Raises ModelFileInvalid; ModelContentInvalid where they are no model; ThreadRefused.
        """
        key = _key(model)
        seen = self._seen.pop(key, None)
        if seen is not None:
            self._seen[key] = seen  # the last that will be forgotten
        found = await self._bounded(model, lambda: self._look(model, self._roots, seen))
        self._seen.pop(key, None)
        self._seen[key] = found
        while len(self._seen) > MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        return found

    def kind_of(self, model: Model) -> ModelKind | None:
        """What it is for: as its entry says, or its files when they were last read.

        No file is opened; None: nobody has read them since the start.
        """
        seen = self._seen.get(_key(model))
        return model.kind or (seen.kind if seen is not None else None)

    async def hold(self, model: Model, seen: Inspection) -> HeldFiles:
        """Open the files that were inspected and no others, for an engine to inherit.

        What it reads is then what was inspected, whatever is put at their names. The caller
        closes them. Raises ModelFileInvalid where one has changed.
        """
        return await self._bounded(
            model, lambda: hold_files(model, self._roots, seen), HeldFiles.close
        )

    async def confirm(self, model: Model, seen: Inspection) -> None:
        """Look whether the files are still those inspected. Raises ModelFileInvalid."""
        (await self.hold(model, seen)).close()

    async def _bounded(
        self, model: Model, work: Callable[[], T], undo: Callable[[T], None] = lambda _: None
    ) -> T:
        """The work on a model's files, off the loop and in time; a late result is undone."""
        path = model.path
        try:
            return await self._looking.at(path, work, undo)
        except LookOverdue as error:
            problem = str(error)
        except ArtifactRefused as error:
            path = error.path or path
            problem = str(error)
            if error.missing and model.source is not None and path != model.mmproj:
                path, problem = model.path, "is not here yet: its first load fetches it"
        except (GgufInvalid, SafetensorsInvalid) as error:
            path = error.path if isinstance(error, _PartInvalid) else path
            raise ModelContentInvalid(model=model.name, path=path, problem=str(error)) from error
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        raise ModelFileInvalid(model=model.name, path=path, problem=problem)


def _key(model: Model) -> tuple[EngineKind, str, str, ModelKind | None]:
    """Entries with the same key have the same files, read alike."""
    return model.engine, model.path, model.mmproj, model.kind


def inspect_files(model: Model, roots: Sequence[Path], seen: Inspection | None) -> Inspection:
    """The work of a thread: everything anew, unless no file has changed."""
    if model.engine is EngineKind.COMMAND:
        return _inspect_command(model, roots)
    if seen is not None and _current(seen.names, roots) == seen.artifacts:
        return seen
    if model.engine is EngineKind.VLLM:
        return _inspect_folder(model, roots)
    return _inspect_gguf(model, roots)


def _inspect_command(model: Model, roots: Sequence[Path]) -> Inspection:
    """Its file, if its entry names one: whatever is in it, the server alone understands."""
    names = (model.path,) if model.path else ()
    return Inspection(
        names=names, artifacts=_current(names, roots), kind=model.kind, command=model.command
    )


def _inspect_folder(model: Model, roots: Sequence[Path]) -> Inspection:
    """Every file of it that a server needs, each opened beneath the roots as any other."""

    def opened(name: str) -> AbstractContextManager[tuple[Artifact, BinaryIO]]:
        return open_artifact(f"{model.path}/{name}", roots)

    found = read_folder(opened)
    return Inspection(
        names=tuple(f"{model.path}/{name}" for name in found.artifacts),
        artifacts=tuple(found.artifacts.values()),
        hf=found.model,
        folder=model.path,
        kind=model.kind or found.kind,
    )


def _inspect_gguf(model: Model, roots: Sequence[Path]) -> Inspection:
    first, header = _read(model.path, roots)
    shards = _shards(model.path, header)
    others = [_read(path, roots) for path in shards]
    header = _joined(header, [other for _, other in others])
    projector = _projector(model.mmproj, roots) if model.mmproj else None
    beside = () if projector is None else (projector[0],)
    return Inspection(
        names=(model.path, *shards, *((model.mmproj,) if beside else ())),
        artifacts=(first, *(artifact for artifact, _ in others), *beside),
        header=header,
        projector=None if projector is None else projector[1],
        architecture=Architecture.of(header),
        kind=model.kind or _kind(header),
    )


def hold_files(model: Model, roots: Sequence[Path], seen: Inspection) -> HeldFiles:
    """Open what was inspected; blocks on the disk. Raises ArtifactRefused."""
    if seen.folder:
        now = _current(seen.names, roots)
        for path, inspected, found in zip(seen.names, seen.artifacts, now, strict=True):
            if found != inspected:
                raise ArtifactRefused(CHANGED, path=path)
        within = [name.removeprefix(f"{seen.folder}/") for name in seen.names]
        paths = [artifact.path for artifact in seen.artifacts]
        return HeldFiles({}, dict(zip(within, paths, strict=True)))
    held: dict[str, BinaryIO] = {}
    name = ""
    with ExitStack() as opened:
        for path, inspected in zip(seen.names, seen.artifacts, strict=True):
            with open_artifact(path, roots) as (artifact, file):
                if artifact != inspected:
                    raise ArtifactRefused(CHANGED, path=path)
                own = os.fdopen(os.dup(file.fileno()), "rb", buffering=0)
            name = PurePosixPath(path).name
            while name in held:  # a projector of another folder may be called as the model is
                name = f"other-{name}"
            held[name] = opened.enter_context(own)
        opened.pop_all()
    return HeldFiles(held, projector=name if seen.projector is not None else "")


def _current(names: Sequence[str], roots: Sequence[Path]) -> tuple[Artifact, ...]:
    """The files as they are now, by the names that they had last time."""
    found: list[Artifact] = []
    for path in names:
        with open_artifact(path, roots) as (artifact, _):
            found.append(artifact)
    return tuple(found)


def _read(path: str, roots: Sequence[Path]) -> tuple[Artifact, GgufHeader]:
    """A file and its header. Raises ArtifactRefused and GgufInvalid, both naming it."""
    with open_artifact(path, roots) as (artifact, file):
        try:
            return artifact, read_header(file, artifact.size_bytes)
        except GgufInvalid as error:
            raise _PartInvalid(str(error), path) from error


def _projector(path: str, roots: Sequence[Path]) -> tuple[Artifact, GgufHeader]:
    """As any other, but it is not the model's own path that is at fault."""
    try:
        return _read(path, roots)
    except (ArtifactRefused, GgufInvalid) as error:
        raise GgufInvalid(f"has a projector {path} that {error}") from error


def _shards(path: str, header: GgufHeader) -> tuple[str, ...]:
    """The further files of a model that was split, named as llama.cpp names them."""
    count = header.integer("split.count") or 1
    if count == 1:
        return ()
    match = _SHARD.fullmatch(path)
    if match is None or int(match[2]) != count or count > MAX_SHARDS:
        raise GgufInvalid(
            f"is one of {count} parts; name the first, which ends in -00001-of-{count:05}.gguf"
        )
    return tuple(f"{match[1]}-{number:05}-of-{match[2]}.gguf" for number in range(2, count + 1))


def _joined(first: GgufHeader, others: Sequence[GgufHeader]) -> GgufHeader:
    """One header for all parts: the first's keys, everyone's tensors."""
    if not others:
        return first
    parts = (first, *others)
    for number, part in enumerate(parts):
        told = part.integer("split.no")
        if (part.integer("split.count") or 1) != len(parts) or told not in {None, number}:
            raise GgufInvalid(f"has a part {number + 1} that is of another model, or another part")
    tensors = tuple(tensor for part in parts for tensor in part.tensors)
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise GgufInvalid("has a tensor in more than one of its parts")
    expected = first.integer("split.tensors.count")
    if expected is not None and expected != len(tensors):
        raise GgufInvalid(f"has {len(tensors)} tensors in {len(parts)} parts, not {expected}")
    return replace(first, tensors=tensors, file_bytes=sum(part.file_bytes for part in parts))


def _kind(header: GgufHeader) -> ModelKind:
    """What the file is made for, where the entry does not say.

    Rank pooling (4 in llama.cpp) is a reranker's, any other pooling an embedder's.
    """
    pooling = header.integer(f"{header.architecture}.pooling_type") or 0
    causal = header.metadata.get(f"{header.architecture}.attention.causal")
    if pooling == _RANK_POOLING:
        return ModelKind.RERANK
    if pooling or causal is False:
        return ModelKind.EMBEDDING
    chat = "tokenizer.chat_template" in header.metadata
    return ModelKind.CHAT if chat else ModelKind.COMPLETION
