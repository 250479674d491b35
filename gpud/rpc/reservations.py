"""ReservationService."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from gpud.errors import OptionInvalid, ReservationNotFound
from gpud.ledger.promises import Call
from gpud.ledger.reservation import (
    DEFAULT_TTL_SECONDS,
    MAX_TTL_SECONDS,
    MIN_TTL_SECONDS,
    Reservation,
    ReserveRequest,
)
from gpud.rpc import messages, paging
from gpud.rpc.view import View
from gpud.v1 import reservations_pb2 as pb
from gpud.v1 import reservations_pb2_grpc

MAX_DEVICES = 64
MAX_BYTES = 2**62


def call_of(method: str, request_id: str, *asked: object) -> Call:
    """How a mutating call is remembered: by what was asked, however it was written."""
    checked = messages.checked_text("request_id", request_id, 128)
    if not checked:
        return Call(method=method)
    digest = hashlib.sha256(repr(asked).encode()).hexdigest()
    return Call(method=method, request_id=checked, digest=digest)


class Reservations(reservations_pb2_grpc.ReservationServiceServicer):
    """Promises for the world."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._promises = view.promises

    async def Reserve(self, request: pb.ReserveRequest, context: Any) -> pb.ReserveResponse:
        """Promise bytes; answered once durable."""
        asked = self._asked(request)
        if request.validate_only:
            told = self._promises.propose(asked)
        else:
            call = call_of("Reserve", request.request_id, asked)
            told = await self._promises.reserve(asked, f"r-{secrets.token_hex(4)}", call)
        return pb.ReserveResponse(reservation=self._view.reservation(told))

    async def Renew(self, request: pb.RenewRequest, context: Any) -> pb.RenewResponse:
        """Move a lease's deadline."""
        id_ = messages.checked_name("name", request.name, "reservations")
        ttl = messages.checked_span("ttl", request, MIN_TTL_SECONDS, MAX_TTL_SECONDS)
        call = call_of("Renew", request.request_id, id_, _generation(request), ttl)
        told = await self._promises.renew(id_, _generation(request), ttl, call)
        return pb.RenewResponse(reservation=self._view.reservation(told))

    async def Release(self, request: pb.ReleaseRequest, context: Any) -> pb.ReleaseResponse:
        """End a lease."""
        id_ = messages.checked_name("name", request.name, "reservations")
        call = call_of("Release", request.request_id, id_, _generation(request))
        told = await self._promises.release(id_, _generation(request), call)
        return pb.ReleaseResponse(reservation=self._view.reservation(told))

    async def GetReservation(
        self, request: pb.GetReservationRequest, context: Any
    ) -> pb.GetReservationResponse:
        """One reservation, ended ones of the last ten minutes included."""
        id_ = messages.checked_name("name", request.name, "reservations")
        found = self._promises.durable.reservations.get(id_)
        if found is None:
            raise ReservationNotFound(name=request.name)
        return pb.GetReservationResponse(reservation=self._view.reservation(found))

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
        found = [
            reservation
            for reservation in self._promises.durable.reservations.values()
            if (not wanted or reservation.state.name in wanted)
            and (not request.owner or reservation.owner == request.owner)
        ]
        found.sort(key=_key)
        shown, token = paging.page(found, _key, request)
        return pb.ListReservationsResponse(
            reservations=[self._view.reservation(each) for each in shown], next_page_token=token
        )

    def _asked(self, request: pb.ReserveRequest) -> ReserveRequest:
        if not 0 < request.bytes <= MAX_BYTES:
            raise OptionInvalid(
                field="bytes", problem=f"{request.bytes} is not within 1 … {MAX_BYTES}, per device"
            )
        devices = messages.checked_devices(request.devices, self._view.snapshots.latest)
        count = request.device_count or len(devices) or 1
        if not 0 < count <= MAX_DEVICES:
            raise OptionInvalid(
                field="device_count", problem=f"{count} is not within 1 … {MAX_DEVICES}"
            )
        if devices and count > len(devices):
            raise OptionInvalid(
                field="device_count", problem=f"{count} of {len(devices)} named devices"
            )
        ttl = messages.checked_span("ttl", request, MIN_TTL_SECONDS, MAX_TTL_SECONDS)
        return ReserveRequest(
            owner=messages.checked_text("owner", request.owner) or "anonymous",
            bytes=request.bytes,
            devices=devices,
            device_count=count,
            device_kind=messages.kind_from(request.kind),
            ttl_seconds=DEFAULT_TTL_SECONDS if ttl is None else ttl,
            labels=messages.checked_labels(request.labels),
        )


def _generation(request: pb.RenewRequest | pb.ReleaseRequest) -> int | None:
    return request.generation if request.HasField("generation") else None


def _key(reservation: Reservation) -> str:
    return f"{reservation.created.wall:020.6f}/{reservation.id}"
