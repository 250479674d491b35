"""InstanceService: instances sent to sleep and woken."""

from __future__ import annotations

from typing import Any

from gpud.access.identity import CALLER
from gpud.access.refusals import NotOwner
from gpud.errors import OptionInvalid
from gpud.instances.roster import Roster
from gpud.instances.sleeping.sleeping import GRACE_SECONDS, SleepOrder
from gpud.rpc import messages
from gpud.rpc.reservations import call_of
from gpud.rpc.view import View
from gpud.v1 import instances_pb2 as pb

MAX_GRACE_SECONDS = 3600.0
LEVELS = (1, 2)


class SleepMethods:
    """A part of the service: what an instance does while nobody needs it."""

    def __init__(self, view: View, roster: Roster) -> None:
        self._beds = view, roster

    async def SleepInstance(
        self, request: pb.SleepInstanceRequest, context: Any
    ) -> pb.SleepInstanceResponse:
        """Have it let its weights go; answered once it sleeps."""
        view, roster = self._beds
        level = request.level or LEVELS[0]
        if level not in LEVELS:
            raise OptionInvalid(field="level", problem=f"{level} is neither 1 nor 2")
        grace = messages.checked_span("grace", request, 0.0, MAX_GRACE_SECONDS)
        name = messages.checked_name("name", request.name, "instances")
        order = SleepOrder(
            level=level,
            actor=messages.acting_for(request.owner),
            grace_seconds=GRACE_SECONDS if grace is None else grace,
        )
        call = call_of("SleepInstance", request.request_id, name, level)
        self._check_owner(name)
        instance = await roster.sleep(name, order, call)
        return pb.SleepInstanceResponse(instance=view.instance(instance))

    async def WakeInstance(
        self, request: pb.WakeInstanceRequest, context: Any
    ) -> pb.WakeInstanceResponse:
        """Have it serve again; answered once it does."""
        view, roster = self._beds
        name = messages.checked_name("name", request.name, "instances")
        actor = messages.acting_for(request.owner)
        call = call_of("WakeInstance", request.request_id, name)
        self._check_owner(name)
        instance = await roster.wake(name, actor, call)
        return pb.WakeInstanceResponse(instance=view.instance(instance))

    def _check_owner(self, name: str) -> None:
        """Raises NotOwner, InstanceNotFound."""
        instance = self._beds[1].get(name)
        if not CALLER.get().may_change(instance.owner):
            raise NotOwner(name=instance.name)
