"""ModelService."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gpud.devices.snapshot import DeviceKind, Sample
from gpud.engines.engine import Engine
from gpud.errors import ModelFileInvalid
from gpud.models.catalogue import Catalogue, Inspection
from gpud.models.footprint import DeviceTraits
from gpud.models.model import EngineKind, Model
from gpud.rpc import messages, paging
from gpud.rpc.view import View
from gpud.v1 import models_pb2 as pb
from gpud.v1 import models_pb2_grpc


class Models(models_pb2_grpc.ModelServiceServicer):
    """What can be loaded, and what it costs."""

    def __init__(
        self, view: View, catalogue: Catalogue, engines: Mapping[EngineKind, Engine]
    ) -> None:
        self._view = view
        self._catalogue = catalogue
        self._engines = engines

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Any
    ) -> pb.ListModelsResponse:
        """The catalogue by name; no file is opened."""
        models = sorted(self._catalogue.list(), key=lambda each: each.id)
        shown, token = paging.page(models, lambda each: each.id, request)
        return pb.ListModelsResponse(
            models=[_listed(each) for each in shown], next_page_token=token
        )

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:
        """One model with what its file says, or what is wrong with it."""
        model = self._catalogue.get(messages.checked_name("name", request.name, "models"))
        message = _listed(model)
        try:
            inspection = await self._catalogue.inspect(model)
        except ModelFileInvalid as error:
            message.problem = str(error)
            return pb.GetModelResponse(model=message)
        message.files[0].path = str(inspection.path)
        message.files[0].size_bytes = inspection.size_bytes
        message.MergeFrom(_said(inspection))
        engine = self._engines[model.engine]
        options = engine.check_options(model.options)
        sample = self._device("")
        footprint = replace(
            engine.estimate(inspection, options, _traits(sample)),
            device_uuid=sample.info.uuid if sample is not None else None,
        )
        message.footprint.CopyFrom(messages.footprint(footprint))
        return pb.GetModelResponse(model=message)

    async def EstimateFootprint(
        self, request: pb.EstimateFootprintRequest, context: Any
    ) -> pb.EstimateFootprintResponse:
        """What a load would need on a device."""
        model = self._catalogue.get(messages.checked_name("model", request.model, "models"))
        asked = messages.options_from(request.options).over(model.options)
        engine = self._engines[model.engine]
        options = engine.check_options(asked)
        sample = self._device(messages.checked_text("device", request.device))
        inspection = await self._catalogue.inspect(model)
        footprint = engine.estimate(inspection, options, _traits(sample))
        told = messages.footprint(footprint)
        told.device = f"devices/{sample.info.uuid}" if sample is not None else ""
        return pb.EstimateFootprintResponse(footprint=told)

    def _device(self, name: str) -> Sample | None:
        """The device named; unnamed: the first that is no host, else the host."""
        snapshot = self._view.snapshots.latest
        if name:
            return messages.checked_device("device", name, snapshot)
        samples = self._view.samples()
        cards = [sample for sample in samples if sample.info.kind is not DeviceKind.HOST]
        return next(iter((*cards, *samples)), None)


def _said(inspection: Inspection) -> pb.Model:
    """What its files say of themselves."""
    said = pb.Model(kind=f"MODEL_KIND_{inspection.kind.name}", architecture=inspection.form)
    if inspection.header is not None and inspection.architecture is not None:
        said.parameter_count = inspection.header.parameter_count
        trained = inspection.architecture.context_trained
        if trained is not None:
            said.context_length_trained = trained
    return said


def _traits(sample: Sample | None) -> DeviceTraits:
    if sample is None:
        return DeviceTraits(kind=DeviceKind.HOST, model_name="host")
    return DeviceTraits(kind=sample.info.kind, model_name=sample.info.model_name)


def _listed(model: Model) -> pb.Model:
    return pb.Model(
        name=model.name,
        engine=f"ENGINE_{model.engine.name}",
        kind=f"MODEL_KIND_{model.kind.name}" if model.kind else None,
        options=messages.options(model.options),
        files=[pb.ModelFile(path=model.path)],
    )
