"""ModelService."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from gpud.access.identity import CALLER, Role
from gpud.access.refusals import NotOwner
from gpud.devices.snapshot import DeviceKind, Sample
from gpud.errors import ModelFileInvalid, OptionInvalid, Reconciling, WrongState
from gpud.instances.life import House
from gpud.instances.measuring.learning import estimator_of
from gpud.instances.roster import Roster
from gpud.instances.starting.rehearsal import ignored_options
from gpud.models.footprint import DeviceTraits
from gpud.models.model import Model
from gpud.models.sources.registered import Registry
from gpud.rpc import messages, paging
from gpud.rpc.model_messages import (
    RESERVED,
    check_sleep_mode,
    entry_from,
    files,
    listed,
    not_here,
    said,
)
from gpud.rpc.reservations import call_of
from gpud.rpc.view import View
from gpud.v1 import models_pb2 as pb
from gpud.v1 import models_pb2_grpc


class Models(models_pb2_grpc.ModelServiceServicer):
    """What can be loaded, and what it costs."""

    def __init__(self, view: View, house: House, roster: Roster) -> None:
        self._view = view
        self._house = house
        self._roster = roster
        self._catalogue = house.catalogue
        self._engines = house.engines
        self._estimator = partial(estimator_of, house)

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Any
    ) -> pb.ListModelsResponse:
        """The catalogue by name; no file is opened."""
        models = sorted(self._catalogue.list(), key=lambda each: each.id)
        shown, token = paging.page(models, lambda each: each.id, request)
        return pb.ListModelsResponse(
            models=[listed(each, self._house) for each in shown], next_page_token=token
        )

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:
        """One model with what its file says, or what is wrong with it."""
        model = self._catalogue.get(messages.checked_name("name", request.name, "models"))
        message = listed(model, self._house)
        engine = self._engines[model.engine]
        try:
            inspection = await self._catalogue.inspect(model)
            options = engine.check_options(model.options)
        except ModelFileInvalid as error:
            message.MergeFrom(await asyncio.to_thread(not_here, model, self._house, error))
            return pb.GetModelResponse(model=message)
        except OptionInvalid as error:
            message.problem = str(error)
            return pb.GetModelResponse(model=message)
        if inspection.artifacts:
            del message.files[:]
            message.files.extend(await asyncio.to_thread(files, inspection, self._house))
        if model.source is not None:
            message.downloaded_bytes = inspection.size_bytes
        message.MergeFrom(said(inspection))
        sample = self._device("")
        footprint = replace(
            (await self._estimator(model)).estimate(inspection, options, _traits(sample)),
            device_uuid=sample.info.uuid if sample is not None else None,
        )
        message.footprint.CopyFrom(messages.footprint(footprint))
        placed = () if sample is None else (sample,)
        message.options_ignored = await ignored_options(
            self._house, model, options, inspection, placed
        )
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
        estimator = await self._estimator(model)
        footprint = estimator.estimate(inspection, options, _traits(sample))
        told = messages.footprint(footprint)
        told.device = f"devices/{sample.info.uuid}" if sample is not None else ""
        return pb.EstimateFootprintResponse(footprint=told)

    async def RegisterModel(
        self, request: pb.RegisterModelRequest, context: Any
    ) -> pb.RegisterModelResponse:
        """Add an entry; answered once durable."""
        registry, promises = self._registry, self._house.promises
        owner = messages.acting_for(request.owner)
        entry = entry_from(request, owner, self._house.clock.now().wall)
        check_sleep_mode(entry.options, is_allowed=CALLER.get().role is Role.ADMIN)
        asked = (entry.id, entry.engine, entry.kind, entry.said, entry.options, entry.profile)
        call = call_of("RegisterModel", request.request_id, *asked)
        if promises.requests.find(call) is not None:
            await promises.settled()
            again = self._catalogue.get(entry.id)
            return pb.RegisterModelResponse(model=listed(again, self._house))
        registry.check_name(entry.id, RESERVED, owner)
        model = entry.model(registry.places)
        await self._check(model)
        if request.validate_only:
            return pb.RegisterModelResponse(model=listed(model, self._house))
        self._check_writable()
        registry.check_name(entry.id, RESERVED, owner)  # its files took a moment
        model = await registry.add(entry, promises.remember(call, entry.id))
        return pb.RegisterModelResponse(model=listed(model, self._house))

    async def DeleteModel(
        self, request: pb.DeleteModelRequest, context: Any
    ) -> pb.DeleteModelResponse:
        """Forget a registered entry; answered once durable, and its downloads are gone."""
        id_ = messages.checked_name("name", request.name, "models")
        actor = messages.acting_for(request.owner)
        call = call_of("DeleteModel", request.request_id, id_, request.keep_files)
        promises = self._house.promises
        if promises.requests.find(call) is not None:
            await promises.settled()
            return pb.DeleteModelResponse(model=pb.Model(name=f"models/{id_}"))
        model = self._registry.check_removable(id_)
        if not CALLER.get().may_change(model.owner):
            raise NotOwner(name=model.name)
        self._check_idle(id_)
        shown = listed(model, self._house)
        if request.validate_only:
            return pb.DeleteModelResponse(model=shown)
        self._check_writable()
        rows = promises.remember(call, id_)
        source, fetching = model.source, self._house.fetching
        if source is not None and fetching is not None:
            rows = (*rows, *fetching.due(source, removed=request.keep_files))
        await self._registry.remove(id_, actor, rows)
        freed = 0
        if source is not None and fetching is not None and not request.keep_files:
            freed = await fetching.remove(source, self._registry.wants)
        return pb.DeleteModelResponse(model=shown, freed_bytes=freed)

    @property
    def _registry(self) -> Registry:
        assert self._house.registry is not None  # noqa: S101 — the daemon has set it
        return self._house.registry

    async def _check(self, model: Model) -> None:
        """Whether it could be loaded, as far as can be told now.

        Raises OptionInvalid, EngineMissing, ModelFileInvalid.
        """
        self._engines[model.engine].check_options(model.options)
        for field, path in (("path", model.path), ("mmproj", model.mmproj)):
            roots = self._catalogue.roots
            if path.startswith("/") and not any(Path(path).is_relative_to(r) for r in roots):
                raise OptionInvalid(field=field, problem=f"{path} is under no root of [models]")
        if model.source is None:
            await self._catalogue.inspect(model)

    def _check_writable(self) -> None:
        """Raises StoreReadOnly."""
        with suppress(Reconciling):  # an entry is no promise
            self._house.promises.admit()

    def _check_idle(self, id_: str) -> None:
        """Raises WrongState for a model that is loaded, or about to be."""
        if self._catalogue.configured(id_) is not None:
            return  # what runs is of that one
        running = [
            instance.name
            for instance in self._roster.list()
            if instance.model == id_ and not instance.ended
        ]
        if running:
            raise WrongState(
                name=f"models/{id_}",
                state=f"loaded as {', '.join(running)}",
                advice=f"unload it first (`gpuctl unload {running[0]}`)",
            )

    def _device(self, name: str) -> Sample | None:
        """The device named; unnamed: the first that is no host, else the host."""
        snapshot = self._view.snapshots.latest
        if name:
            return messages.checked_device("device", name, snapshot)
        samples = self._view.samples()
        cards = [sample for sample in samples if sample.info.kind is not DeviceKind.HOST]
        return next(iter((*cards, *samples)), None)


def _traits(sample: Sample | None) -> DeviceTraits:
    if sample is None:
        return DeviceTraits(kind=DeviceKind.HOST, model_name="host")
    return DeviceTraits(kind=sample.info.kind, model_name=sample.info.model_name)
