"""Models to protobuf, and what is asked to be registered, field by field."""

from __future__ import annotations

from gpud.engines.command.spec import shown_argv
from gpud.errors import ModelFileInvalid, OptionInvalid
from gpud.instances.life import House
from gpud.models.artifact import ArtifactRefused, check_path
from gpud.models.catalogue import Inspection
from gpud.models.model import (
    CommandSpec,
    EngineKind,
    HttpSource,
    HubSource,
    Model,
    ModelKind,
    ModelOptions,
    Source,
)
from gpud.models.sources.entry import Said
from gpud.models.sources.refusals import SourceInvalid
from gpud.models.sources.registered import Registered
from gpud.models.sources.rules import check_sha256, shown_url
from gpud.rpc import messages
from gpud.settings import MODELS_KEYS
from gpud.v1 import models_pb2 as pb
from gpud.v1 import node_pb2

RESERVED = MODELS_KEYS
MAX_PATH = 4095
MAX_URL = 2048


def listed(model: Model, house: House) -> pb.Model:
    """What an entry says, and what is known of its files already; none is looked at."""
    created = house.registry.create_wall(model.id) if house.registry and model.owner else None
    kind = house.catalogue.kind_of(model)
    message = pb.Model(
        name=model.name,
        engine=f"ENGINE_{model.engine.name}",
        kind=f"MODEL_KIND_{kind.name}" if kind is not None else None,
        options=messages.options(model.options),
        files=[pb.ModelFile(path=model.path)] if model.path else [],
        profile=model.profile,
        extra_args=model.extra_args,
        sha256=model.sha256,
        owner=model.owner,
        registered=bool(model.owner),
        mmproj=model.mmproj,
        labels=dict(model.labels),
        create_time=messages.stamp(created),
    )
    if model.source is not None:
        message.source.CopyFrom(_source(model.source))
    if model.command is not None:
        message.command.CopyFrom(_command(model.command))
    hidden = house.catalogue.registered(model.id)
    if hidden is not None and not model.owner:
        message.notice = (
            f"hides the one that {hidden.owner} registered under this name; "
            f"`gpuctl models delete {model.id}` forgets that one"
        )
    return message


def _source(source: Source) -> pb.ModelSource:
    if isinstance(source, HubSource):
        return pb.ModelSource(hub=source.repository, revision=source.revision, file=source.file)
    assert isinstance(source, HttpSource)  # noqa: S101 — for the type checker
    return pb.ModelSource(url=shown_url(source.url))


def _command(spec: CommandSpec) -> pb.Command:
    return pb.Command(
        argv=shown_argv(spec.argv),
        environment=[name for name, _ in spec.environment],
        health=spec.health,
        metrics=spec.metrics,
        device_bytes=spec.device_bytes,
        host_bytes=spec.host_bytes,
        served_name=spec.served_name,
    )


def said(inspection: Inspection) -> pb.Model:
    """What its files say of themselves."""
    kind = f"MODEL_KIND_{inspection.kind.name}" if inspection.kind is not None else None
    message = pb.Model(kind=kind, architecture=inspection.form or None)
    if inspection.header is not None and inspection.architecture is not None:
        message.parameter_count = inspection.header.parameter_count
        trained = inspection.architecture.context_trained
        if trained is not None:
            message.context_length_trained = trained
    if inspection.hf is not None:
        message.parameter_count = inspection.hf.parameter_count
        if inspection.hf.context_trained is not None:
            message.context_length_trained = inspection.hf.context_trained
    return message


def files(inspection: Inspection, house: House) -> list[pb.ModelFile]:
    """Every file, with its sum where that is known. Looks at the disk."""
    known = house.fetching.known_sum if house.fetching is not None else lambda _: None
    return [
        pb.ModelFile(
            path=str(artifact.path), size_bytes=artifact.size_bytes, sha256=known(artifact.path)
        )
        for artifact in inspection.artifacts
    ]


def not_here(model: Model, house: House, error: ModelFileInvalid) -> pb.Model:
    """Of a model whose files cannot be read: why, or that they are still to come."""
    message = pb.Model()
    if model.source is None or house.fetching is None:
        message.problem = str(error)
        return message
    message.downloaded_bytes = house.fetching.here_bytes(model.source)
    if house.fetching.is_here(model.source):
        message.problem = str(error)
    return message


def entry_from(request: pb.RegisterModelRequest, owner: str, wall: float) -> Registered:
    """What is asked, each field checked by itself. Raises OptionInvalid."""
    name = messages.checked_name("name", request.name, "models")
    text = messages.checked_text
    asked = Said(
        path=text("path", request.path, MAX_PATH),
        url=text("url", request.url, MAX_URL),
        sha256=text("sha256", request.sha256),
        hub=text("hub", request.hub),
        revision=text("revision", request.revision),
        file=text("file", request.file, 512),
        mmproj=text("mmproj", request.mmproj, MAX_PATH),
    )
    _check_path("path", asked.path)
    _check_path("mmproj", asked.mmproj)
    if asked.sha256:
        try:
            check_sha256(asked.sha256)
        except SourceInvalid as error:
            raise OptionInvalid(field="sha256", problem=str(error)) from error
    return Registered(
        id=name,
        engine=_engine(request.engine),
        kind=_kind(request.kind),
        said=asked,
        options=messages.options_from(request.options),
        owner=owner,
        create_wall=wall,
        profile=text("profile", request.profile),
        labels=messages.checked_labels(request.labels),
    )


def check_sleep_mode(options: ModelOptions, *, is_allowed: bool) -> None:
    """Raise OptionInvalid where it is asked for by somebody who may not.

    It opens vLLM's development routes, which call methods of its workers and ask for no key.
    """
    if options.sleep_mode and not is_allowed:
        raise OptionInvalid(
            field="sleep_mode",
            problem="opens development routes of vLLM to every user of the host, so only its "
            "configuration turns it on: write it into [models.NAME] or [profiles.NAME]",
        )


def _check_path(field: str, path: str) -> None:
    if not path:
        return
    try:
        check_path(path)
    except ArtifactRefused as error:
        raise OptionInvalid(field=field, problem=str(error)) from error


def _engine(number: int) -> EngineKind:
    messages.checked_enum("engine", number, node_pb2.Engine.DESCRIPTOR.values_by_number)
    if number == node_pb2.ENGINE_UNSPECIFIED:
        return EngineKind.LLAMA_CPP
    engine = EngineKind[node_pb2.Engine.Name(number).removeprefix("ENGINE_")]
    if engine is EngineKind.COMMAND:
        raise OptionInvalid(
            field="engine", problem="a command stands in the configuration of its host alone"
        )
    return engine


def _kind(number: int) -> ModelKind | None:
    messages.checked_enum("kind", number, pb.ModelKind.DESCRIPTOR.values_by_number)
    name = pb.ModelKind.Name(number).removeprefix("MODEL_KIND_")
    return None if number == 0 else ModelKind[name]
