"""InstanceService: leftovers of a crash, listed and ended."""

from __future__ import annotations

from typing import Any

import msgspec

from gpud.errors import OptionInvalid
from gpud.instances.adoption.orphan import Orphan
from gpud.instances.adoption.orphans import Orphans, Reaped
from gpud.rpc import messages, paging
from gpud.rpc.reservations import call_of
from gpud.rpc.view import View
from gpud.v1 import instances_pb2 as pb

MAX_PIDS = 1000
MAX_PID = 2**22  # the kernel's own bound, PID_MAX_LIMIT


class OrphanMethods:
    """The methods about processes that no record knows."""

    def __init__(self, view: View, orphans: Orphans) -> None:
        self._promises = view.promises
        self._orphans = orphans

    async def ListOrphans(
        self, request: pb.ListOrphansRequest, context: Any
    ) -> pb.ListOrphansResponse:
        """As of now, by pid."""
        shown, token = paging.page(await self._orphans.list(), _key, request)
        return pb.ListOrphansResponse(
            orphans=[_message(each) for each in shown], next_page_token=token
        )

    async def ReapOrphans(
        self, request: pb.ReapOrphansRequest, context: Any
    ) -> pb.ReapOrphansResponse:
        """End what is provably ours, of all or of the named."""
        pids, actor = _pids(request), messages.acting_for(request.owner)
        call = call_of("ReapOrphans", request.request_id, pids)
        known = self._promises.requests.find(call)
        if known is not None:
            return _answer(msgspec.json.decode(known.result, type=Reaped))
        reaped = await self._orphans.reap(pids, actor)
        self._promises.remember_only(call, msgspec.json.encode(reaped).decode())
        return _answer(reaped)


def _answer(reaped: Reaped) -> pb.ReapOrphansResponse:
    return pb.ReapOrphansResponse(
        reaped=[_message(each) for each in reaped.ended],
        refused=[_message(each) for each in reaped.refused],
        remaining=[_message(each) for each in reaped.left],
    )


def _message(value: Orphan) -> pb.Orphan:
    trace = value.trace
    return pb.Orphan(
        pid=trace.pid,
        instance=f"instances/{value.instance}" if value.instance else "",
        command=trace.command,
        start_time=messages.stamp(value.start_wall),
        uid=trace.uid,
        uses=[
            pb.OrphanUse(device=f"devices/{uuid}", used_bytes=size) for uuid, size in value.uses
        ],
        resident_bytes=trace.resident_bytes,
        provable=value.provable,
        reason=value.why_not,
    )


def _pids(request: pb.ReapOrphansRequest) -> tuple[int, ...]:
    """Raises OptionInvalid."""
    if len(request.pids) > MAX_PIDS:
        raise OptionInvalid(field="pids", problem=f"{len(request.pids)}, at most {MAX_PIDS}")
    for pid in request.pids:
        if not 0 < pid <= MAX_PID:
            raise OptionInvalid(field="pids", problem=f"{pid} is no process's number")
    if len(set(request.pids)) < len(request.pids):
        raise OptionInvalid(field="pids", problem="one stands there twice")
    return tuple(request.pids)


def _key(orphan: Orphan) -> str:
    return f"{orphan.trace.pid:010}"
