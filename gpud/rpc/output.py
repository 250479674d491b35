"""What InstanceService tells of an engine's output."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final

from gpud.errors import InstanceNotFound, OptionInvalid
from gpud.instances.life import House
from gpud.instances.roster import Roster
from gpud.instances.tree.output import Wanted, follow, past
from gpud.rpc import messages
from gpud.v1 import instances_pb2 as pb

DEFAULT_LINES: Final = 50
MAX_LINES: Final = 10_000


class OutputMethods:
    """The methods of InstanceService about output."""

    def __init__(self, roster: Roster, house: House) -> None:
        self._roster = roster
        self._house = house

    async def TailOutput(
        self, request: pb.TailOutputRequest, context: Any
    ) -> AsyncIterator[pb.TailOutputResponse]:
        """What its engine printed."""
        name = messages.checked_name("instance", request.instance, "instances")
        if not 0 <= request.lines <= MAX_LINES:
            raise OptionInvalid(
                field="lines", problem=f"{request.lines} is not within 0 … {MAX_LINES}"
            )
        wanted = _wanted(request)
        id_ = self._roster.get(name).id
        folder = self._house.folder(id_)
        if not request.follow:
            async for lines in past(folder, wanted):
                yield pb.TailOutputResponse(lines=lines)
            return
        ended = partial(self._has_ended, id_)
        async for lines in follow(folder, self._house.clock, wanted, ended):
            yield pb.TailOutputResponse(lines=lines)

    def _has_ended(self, id_: str) -> bool:
        try:
            return self._roster.get(id_).ended
        except InstanceNotFound:
            return True


def _wanted(request: pb.TailOutputRequest) -> Wanted:
    if not request.HasField("since"):
        return Wanted(lines=request.lines or DEFAULT_LINES)
    since = request.since.seconds + request.since.nanos / 1e9
    return Wanted(lines=request.lines or None, since_wall=since)
