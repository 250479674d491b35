"""InstanceService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from gpud.access.identity import CALLER, DEED
from gpud.access.refusals import NotOwner
from gpud.benchmarking.benchmarks import Benchmarks
from gpud.errors import (
    InstanceLost,
    OptionInvalid,
    ReservationNotFound,
    WrongState,
)
from gpud.instances.health.vital import Verdict
from gpud.instances.instance import Instance, InstanceState, LoadPhase, UnloadPhase
from gpud.instances.life import House, StopOrder
from gpud.instances.roster import LoadRequest, Roster
from gpud.instances.terms import LoadTerms
from gpud.model_entries import MIN_IDLE_SECONDS
from gpud.rpc import messages, paging
from gpud.rpc.benchmarks import BenchmarkMethods
from gpud.rpc.model_messages import check_sleep_mode
from gpud.rpc.orphans import OrphanMethods
from gpud.rpc.output import OutputMethods
from gpud.rpc.reservation_messages import MAX_WAIT_SECONDS, priority_from, sharing_from
from gpud.rpc.reservations import call_of
from gpud.rpc.sleeping import SleepMethods
from gpud.rpc.view import View
from gpud.units import format_size
from gpud.v1 import instances_pb2 as pb
from gpud.v1 import instances_pb2_grpc
from gpud.v1.reservations_pb2 import SHARING_EXCLUSIVE

DEFAULT_GRACE_SECONDS = 5.0
MAX_GRACE_SECONDS = 3600.0
MAX_IDLE_SECONDS = 365 * 86400.0


class Instances(
    BenchmarkMethods,
    OrphanMethods,
    OutputMethods,
    SleepMethods,
    instances_pb2_grpc.InstanceServiceServicer,
):
    """Engine processes run inside promises. The roster owns them; clients may come and go."""

    def __init__(self, view: View, roster: Roster, house: House, benchmarks: Benchmarks) -> None:
        BenchmarkMethods.__init__(self, benchmarks)
        OrphanMethods.__init__(self, view, roster.orphans)
        OutputMethods.__init__(self, roster, house)
        SleepMethods.__init__(self, view, roster)
        self._view = view
        self._roster = roster
        self._house = house

    async def LoadModel(
        self, request: pb.LoadModelRequest, context: Any
    ) -> AsyncIterator[pb.LoadModelResponse]:
        """Begin a load, or find the one that the request_id began, and follow it."""
        asked = LoadRequest(
            model=messages.checked_name("model", request.model, "models"),
            options=messages.options_from(request.options),
            terms=self._terms(request),
            owner=messages.acting_for(request.owner),
            idle_ttl_seconds=messages.checked_span(
                "idle_ttl", request, MIN_IDLE_SECONDS, MAX_IDLE_SECONDS
            ),
            pinned=request.pinned if request.HasField("pinned") else None,
        )
        if asked.options.sleep_mode:
            said = self._house.catalogue.get(asked.model).options.sleep_mode
            check_sleep_mode(asked.options, is_allowed=bool(said))
        if request.validate_only:
            yield await self._proposed(asked)
            return
        id_ = await self._roster.load(asked, call_of("LoadModel", request.request_id, asked))
        DEED.get().subject = f"instances/{id_}"
        async for progress in self._roster.follow(id_, from_start=True):
            if isinstance(progress.phase, UnloadPhase):
                continue  # the load is over, and was not a success: the end is told below
            yield pb.LoadModelResponse(
                instance=self._view.instance(progress.instance),
                phase=f"LOAD_PHASE_{progress.phase.name}",
                fraction=progress.fraction,
                detail=progress.detail,
                elapsed=messages.span(progress.elapsed_seconds),
            )
            if progress.instance.state is InstanceState.READY:
                return
        self._raise_failure(self._roster.get(id_))

    async def UnloadModel(
        self, request: pb.UnloadModelRequest, context: Any
    ) -> AsyncIterator[pb.UnloadModelResponse]:
        """Stop an instance, loading or ready, and follow it to its end."""
        asked = (request.instance.removeprefix("instances/"), request.model, request.force)
        call = call_of("UnloadModel", request.request_id, *asked)
        known = self._house.promises.requests.find(call)
        # A model names no instance any more once the first call has stopped it.
        name = known.result if known is not None else self._named(request)
        DEED.get().subject = f"instances/{name}"
        self._stop(name, request, again=known is not None)
        if known is None:
            self._house.promises.remember_only(call, name)
        # Of a first order nothing is told before it is durable; of a further one there would be.
        await self._roster.noted(name)
        async for progress in self._roster.follow(name, from_start=True):
            if isinstance(progress.phase, LoadPhase):
                continue  # where it was when the stop was ordered
            yield pb.UnloadModelResponse(
                instance=self._view.instance(progress.instance),
                phase=f"UNLOAD_PHASE_{progress.phase.name}",
                detail=progress.detail,
                elapsed=messages.span(progress.elapsed_seconds),
                freed_bytes=progress.freed_bytes,
            )
        self._check_ended(self._roster.get(name))

    async def GetInstance(
        self, request: pb.GetInstanceRequest, context: Any
    ) -> pb.GetInstanceResponse:
        """One instance, ended ones of the last ten minutes included."""
        name = messages.checked_name("name", request.name, "instances")
        return pb.GetInstanceResponse(instance=self._view.instance(self._roster.get(name)))

    async def ListInstances(
        self, request: pb.ListInstancesRequest, context: Any
    ) -> pb.ListInstancesResponse:
        """Instances, oldest first."""
        values = pb.InstanceState.DESCRIPTOR.values_by_number
        for number in request.states:
            messages.checked_enum("states", number, values)
        wanted = {pb.InstanceState.Name(n).removeprefix("INSTANCE_STATE_") for n in request.states}
        model = request.model.removeprefix("models/")
        found = [
            instance
            for instance in self._roster.list()
            if (not wanted or instance.state.name in wanted)
            and (not model or instance.model == model)
        ]
        shown, token = paging.page(found, _key, request)
        return pb.ListInstancesResponse(
            instances=[self._view.instance(each) for each in shown], next_page_token=token
        )

    async def WatchInstance(
        self, request: pb.WatchInstanceRequest, context: Any
    ) -> AsyncIterator[pb.WatchInstanceResponse]:
        """The instance at each durable change and each new verdict, until it has ended."""
        name = messages.checked_name("name", request.name, "instances")
        last: tuple[Instance, Verdict | None] | None = None
        async for progress in self._roster.follow(name, from_start=False):
            signs = self._roster.signs(progress.instance.id)
            now = (progress.instance, signs.verdict if signs is not None else None)
            if now != last:
                last = now
                yield pb.WatchInstanceResponse(instance=self._view.instance(progress.instance))
        instance = self._roster.get(name)
        self._check_ended(instance)
        if last is None:  # a reset of it came to nothing
            yield pb.WatchInstanceResponse(instance=self._view.instance(instance))

    async def ResetInstance(
        self, request: pb.ResetInstanceRequest, context: Any
    ) -> pb.ResetInstanceResponse:
        """Have one that was given up, or waits to be started again, start at once."""
        name = messages.checked_name("name", request.name, "instances")
        actor = messages.acting_for(request.owner)
        call = call_of("ResetInstance", request.request_id, name)
        instance = self._roster.get(name)
        if not CALLER.get().may_change(instance.owner):
            raise NotOwner(name=instance.name)
        instance = await self._roster.reset(name, actor, call)
        return pb.ResetInstanceResponse(instance=self._view.instance(instance))

    def _terms(self, request: pb.LoadModelRequest) -> LoadTerms:
        """Raises OptionInvalid, DeviceNotFound, Reconciling, ReservationNotFound."""
        within = None
        if request.reservation:
            within = messages.checked_name("reservation", request.reservation, "reservations")
            held = self._view.promises.durable.reservations.get(within)
            if held is None:
                raise ReservationNotFound(name=request.reservation)
            if not CALLER.get().may_change(held.owner):
                raise NotOwner(name=held.name)
            if request.sharing == SHARING_EXCLUSIVE:
                raise OptionInvalid(
                    field="sharing", problem="within a reservation, its sharing is what counts"
                )
        return LoadTerms(
            devices=messages.checked_devices(request.devices, self._view.snapshots.latest),
            sharing=sharing_from(request.sharing),
            priority=priority_from(request.priority),
            preemptible=request.preemptible,
            max_wait_seconds=messages.checked_span("max_wait", request, 0.0, MAX_WAIT_SECONDS)
            or 0.0,
            within=within,
            labels=tuple(messages.checked_labels(request.labels).items()),
        )

    async def _proposed(self, asked: LoadRequest) -> pb.LoadModelResponse:
        found = await self._roster.propose(asked)
        return pb.LoadModelResponse(
            instance=pb.Instance(
                model=f"models/{asked.model}",
                devices=[f"devices/{uuid}" for uuid in found.devices],
                footprint=messages.footprint(found.footprint),
                owner=asked.owner,
                options_ignored=found.options_ignored,
            ),
            phase=pb.LOAD_PHASE_ALLOCATE,
            detail=self._would_be(found.devices, found.footprint.total_bytes),
        )

    def _would_be(self, uuids: Sequence[str], bytes_each: int) -> str:
        samples = {sample.info.uuid: sample.info.alias for sample in self._view.samples()}
        where = ", ".join(samples.get(uuid, uuid) for uuid in uuids)
        each = " each" if len(uuids) > 1 else ""
        return f"{format_size(bytes_each)}{each} would be promised on {where}; nothing was"

    def _stop(self, name: str, request: pb.UnloadModelRequest, *, again: bool) -> None:
        """Order the stop.

        Also when it is asked again: the daemon may have died between keeping the request's id
        and stopping anything.
        """
        grace = messages.checked_span("grace", request, 0.0, MAX_GRACE_SECONDS)
        order = StopOrder(
            actor=messages.acting_for(request.owner),
            grace_seconds=DEFAULT_GRACE_SECONDS if grace is None else grace,
            force=request.force,
        )
        instance = self._roster.get(name)
        if not CALLER.get().may_change(instance.owner):
            raise NotOwner(name=instance.name)
        try:
            self._roster.stop(name, order)
        except WrongState:
            if not again:  # else it has ended by now, as asked
                raise

    def _named(self, request: pb.UnloadModelRequest) -> str:
        if bool(request.instance) == bool(request.model):
            raise OptionInvalid(field="instance", problem="name either an instance or a model")
        if request.instance:
            return messages.checked_name("instance", request.instance, "instances")
        model = messages.checked_name("model", request.model, "models")
        return self._roster.of_model(model).id

    def _check_ended(self, instance: Instance) -> None:
        """Raise why nothing more comes of one that could not be brought down."""
        if not instance.ended:
            self._raise_failure(instance)

    def _raise_failure(self, instance: Instance) -> None:
        error = self._roster.error(instance.id)
        if error is not None:
            raise error
        cause = instance.failure.message if instance.failure else "it was stopped"
        raise InstanceLost(instance=instance.name, cause=cause)


def _key(instance: Instance) -> str:
    return f"{instance.create_wall:020.6f}/{instance.id}"
