"""ReservationService."""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from gpud.access.identity import CALLER, DEED, Role
from gpud.access.refusals import NotOwner
from gpud.enforcement.attachment import attachment_of, check_whose
from gpud.enforcement.compute_mode import unenforceable
from gpud.errors import (
    GpudError,
    NotServing,
    OptionInvalid,
    ReservationNotFound,
    WrongState,
)
from gpud.ledger.reservation import (
    MAX_TTL_SECONDS,
    MIN_TTL_SECONDS,
    Attachment,
    Enforcement,
    Reservation,
)
from gpud.promises.requests import Call
from gpud.rpc import messages, paging
from gpud.rpc.reservation_messages import explanation, moment, notice, request_from
from gpud.rpc.view import View
from gpud.v1 import reservations_pb2 as pb
from gpud.v1 import reservations_pb2_grpc


def call_of(method: str, request_id: str, *asked: object) -> Call:
    """How a mutating call is remembered: by who asked what, however it was written."""
    checked = messages.checked_text("request_id", request_id, 128)
    if not checked:
        return Call(method=method)
    caller = CALLER.get().name
    digest = hashlib.sha256(repr((caller, *asked)).encode()).hexdigest()
    return Call(method=method, caller=caller, request_id=checked, digest=digest)


class Reservations(reservations_pb2_grpc.ReservationServiceServicer):
    """Promises for the world."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._promises = view.promises

    async def Reserve(self, request: pb.ReserveRequest, context: Any) -> pb.ReserveResponse:
        """Promise bytes or queue the request; answered once durable."""
        asked = request_from(request, self._view.snapshots.latest)
        if request.validate_only:
            told = self._promises.propose(asked)
        else:
            call = call_of("Reserve", request.request_id, asked)
            try:
                told = await self._promises.reserve(asked, self._named(call), call)
            except GpudError:
                DEED.get().subject = ""  # there is none of that name
                raise
            told = await self._enforce(told, call)
        return pb.ReserveResponse(reservation=self._view.reservation(told))

    def _named(self, call: Call) -> str:
        """The id that a new promise gets; the audit has it even if the caller leaves at once."""
        known = self._promises.requests.find(call)
        id_ = known.result if known is not None else f"r-{secrets.token_hex(4)}"
        DEED.get().subject = f"reservations/{id_}"
        return id_

    async def Explain(self, request: pb.ExplainRequest, context: Any) -> pb.ExplainResponse:
        """What Reserve would answer and why."""
        asked = request_from(request, self._view.snapshots.latest)
        found = self._promises.explain(asked)
        try:
            self._promises.admit()
        except NotServing as refusal:
            found = replace(found, fit=None, refusal=refusal)
        return explanation(found, asked)

    async def Renew(self, request: pb.RenewRequest, context: Any) -> pb.RenewResponse:
        """Move a lease's deadline."""
        id_, generation = self._own(request)
        ttl = messages.checked_span("ttl", request, MIN_TTL_SECONDS, MAX_TTL_SECONDS)
        call = call_of("Renew", request.request_id, id_, generation, ttl)
        told = await self._promises.renew(id_, generation, ttl, call)
        return pb.RenewResponse(reservation=self._view.reservation(told))

    async def KeepAlive(
        self, requests: AsyncIterator[pb.KeepAliveRequest], context: Any
    ) -> AsyncIterator[pb.KeepAliveResponse]:
        """A renewal for each message, answered in order."""
        async for request in requests:
            id_, generation = self._own(request)
            DEED.get().subject = f"reservations/{id_}"
            ttl = messages.checked_span("ttl", request, MIN_TTL_SECONDS, MAX_TTL_SECONDS)
            yield await self._kept_alive(id_, generation, ttl)

    async def Release(self, request: pb.ReleaseRequest, context: Any) -> pb.ReleaseResponse:
        """End a lease, or a wait for one."""
        id_, generation = self._own(request)
        call = call_of("Release", request.request_id, id_, generation)
        told = await self._promises.release(id_, generation, call, by=CALLER.get().person)
        return pb.ReleaseResponse(reservation=self._view.reservation(told))

    async def AttachProcess(
        self, request: pb.AttachProcessRequest, context: Any
    ) -> pb.AttachProcessResponse:
        """Make a process, or all of a cgroup, the owner's."""
        id_, generation = self._own(request)
        pid = request.pid if request.HasField("pid") else None
        cgroup = messages.checked_text("cgroup", request.cgroup, 4096)
        started = request.start_time if request.HasField("start_time") else None
        caller, now = CALLER.get(), self._view.clock.now()

        def look_up() -> Attachment:
            found = attachment_of(pid, cgroup, now, started)
            if caller.role is not Role.ADMIN:
                check_whose(found, caller.uid)
            return found

        call = call_of("AttachProcess", request.request_id, id_, generation, pid, cgroup, started)
        told = await self._promises.attach(id_, generation, look_up, call, by=caller.person)
        return pb.AttachProcessResponse(reservation=self._view.reservation(told))

    async def GetReservation(
        self, request: pb.GetReservationRequest, context: Any
    ) -> pb.GetReservationResponse:
        """One reservation, ended ones of the last ten minutes included."""
        id_ = messages.checked_name("name", request.name, "reservations")
        found = self._promises.durable.reservations.get(id_)
        if found is None:
            raise ReservationNotFound(name=request.name)
        return pb.GetReservationResponse(reservation=self._view.reservation(found))

    async def WatchReservation(
        self, request: pb.WatchReservationRequest, context: Any
    ) -> AsyncIterator[pb.WatchReservationResponse]:
        """The reservation now and at each change, until it has ended."""
        id_ = messages.checked_name("name", request.name, "reservations")
        if id_ not in self._promises.durable.reservations:
            raise ReservationNotFound(name=request.name)
        last: pb.Reservation | None = None
        follower = self._promises.watchers.follow(id_, lambda: self._promises.durable)
        async with aclosing(follower) as versions:
            async for held in versions:
                if held is None:
                    return
                told = self._view.reservation(held)
                if told != last:
                    last = told
                    yield pb.WatchReservationResponse(reservation=told)
                if not held.booked and not held.queued:
                    return

    async def ListReservations(
        self, request: pb.ListReservationsRequest, context: Any
    ) -> pb.ListReservationsResponse:
        """Reservations, oldest first."""
        values = pb.ReservationState.DESCRIPTOR.values_by_number
        for number in request.states:
            messages.checked_enum("states", number, values)
        wanted = {
            pb.ReservationState.Name(n).removeprefix("RESERVATION_STATE_") for n in request.states
        }

        def after(key: str | None) -> Iterator[Reservation]:
            for each in self._promises.durable.listed(_place(key)):
                if (not wanted or each.state.name in wanted) and (
                    not request.owner or each.owner == request.owner
                ):
                    yield each

        shown, token = paging.page_after(after, _key, request)
        return pb.ListReservationsResponse(
            reservations=self._view.reservations(shown), next_page_token=token
        )

    def _own(
        self,
        request: pb.RenewRequest
        | pb.ReleaseRequest
        | pb.KeepAliveRequest
        | pb.AttachProcessRequest,
    ) -> tuple[str, int | None]:
        """The id and generation that a request names. Raises OptionInvalid, NotOwner."""
        id_ = messages.checked_name("name", request.name, "reservations")
        held = self._promises.ledger.books.reservations.get(id_)
        if held is not None and not CALLER.get().may_change(held.owner):
            raise NotOwner(name=held.name)
        return id_, request.generation if request.HasField("generation") else None

    async def _enforce(self, told: Reservation, call: Call) -> Reservation:
        """Have the driver keep others off a device that is somebody's alone.

        Raises EnforcementUnavailable, the promise revoked, where the caller requires it.
        """
        if not told.exclusive or told.queued or not told.booked:
            return told
        by = await self._view.enforce(told)
        required = told.request.require_enforcement
        if required is Enforcement.DRIVER and by is not Enforcement.DRIVER:
            refusal = unenforceable(told)
            await self._promises.revoke(told.id, str(refusal), call)
            raise refusal
        return self._promises.durable.reservations.get(told.id, told)

    async def _kept_alive(
        self, id_: str, generation: int | None, ttl: float | None
    ) -> pb.KeepAliveResponse:
        try:
            told = await self._promises.renew(id_, generation, ttl, Call(method="KeepAlive"))
        except WrongState:
            found = self._promises.durable.reservations.get(id_)
            if found is None:
                raise
            told = found
        lives = told.deadline is not None and told.booked and told.ended is None
        return pb.KeepAliveResponse(
            name=told.name,
            generation=told.generation,
            state=f"RESERVATION_STATE_{told.state.name}",
            preemption_notice=notice(told.notice),
            expire_time=moment(told.deadline) if lives else None,
        )


def _key(reservation: Reservation) -> str:
    return f"{reservation.created.wall!r}/{reservation.id}"


def _place(key: str | None) -> tuple[float, str] | None:
    """What `_key` wrote. Raises OptionInvalid."""
    if key is None:
        return None
    wall, _, id_ = key.partition("/")
    try:
        moment = float(wall)
    except ValueError:
        moment = math.nan
    if not math.isfinite(moment):
        raise OptionInvalid(field="page_token", problem="not one that this list gave")
    return moment, id_
