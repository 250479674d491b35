"""Models that are loaded at the start: each an ordinary load, in the order of the configuration.

The next is asked for once the one before has its bytes, waits for them, or came to nothing. What
lacks memory waits in the queue, for a week at most, like anybody's load; what fails for any other
reason is told and not tried again before the next start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from gpud.errors import GpudError, OptionInvalid
from gpud.events import Event
from gpud.instances.instance import InstanceState, UnloadPhase
from gpud.instances.life import House
from gpud.instances.roster import LoadRequest, Roster
from gpud.instances.terms import LoadTerms
from gpud.ledger.reservation import MAX_TTL_SECONDS
from gpud.models.model import Model, ModelOptions
from gpud.promises.requests import Call

log = structlog.get_logger()

OWNER: Final = "gpud"
# It has its bytes, or is on its way back.
_PAST_ALLOCATION: Final = frozenset(InstanceState) - {
    InstanceState.QUEUED,
    InstanceState.VERIFYING,
    InstanceState.RESERVING,
}


class Preloader:
    """Loads the models of a list as soon as the node is READY. `tell` posts an event."""

    def __init__(
        self,
        house: House,
        roster: Roster,
        is_ready: Callable[[], bool],
        tell: Callable[[Event], None],
    ) -> None:
        self._house = house
        self._roster = roster
        self._is_ready = is_ready
        self._tell = tell
        self._wanted: asyncio.Queue[Model] = asyncio.Queue()

    def want(self, models: tuple[Model, ...]) -> None:
        """Load these too, after those that were wanted before."""
        for model in models:
            self._wanted.put_nowait(model)

    async def run(self) -> None:
        """Load what is wanted, one after the other, until cancelled."""
        while True:
            model = await self._wanted.get()
            await self._until_ready()
            try:
                await self._load(model)
            except GpudError as error:
                self._failed(model, error)

    async def _until_ready(self) -> None:
        async for _ in self._house.snapshots.follow():
            if self._is_ready():
                return

    async def _load(self, model: Model) -> None:
        """Begin it, unless an instance of it is there; then wait until the next may come."""
        if any(each.model == model.id and not each.ended for each in self._house.roll()):
            log.info("preload.there", model=model.name)
            return
        request = LoadRequest(
            model=model.id,
            options=ModelOptions(),
            terms=LoadTerms(devices=self._devices(model), max_wait_seconds=MAX_TTL_SECONDS),
            owner=OWNER,
        )
        log.info("preload.begun", model=model.name)
        id_ = await self._roster.load(request, Call(method="Preload"))
        async for progress in self._roster.follow(id_, from_start=True):
            if isinstance(progress.phase, UnloadPhase) or self._may_pass(id_):
                break
        # A load that came to nothing is told at once, one that does later by its own events.
        if (error := self._roster.error(id_)) is not None:
            raise error

    def _may_pass(self, id_: str) -> bool:
        """Whether it has its place: its bytes, or one in the queue."""
        instance = self._roster.get(id_)
        is_queued = (instance.reservation or "") in self._house.promises.durable.queued
        return is_queued or instance.state in _PAST_ALLOCATION

    def _devices(self, model: Model) -> tuple[str, ...]:
        """UUIDs of those that it is to be loaded on. Raises OptionInvalid."""
        snapshot = self._house.snapshots.latest
        infos = [sample.info for sample in snapshot.samples] if snapshot is not None else []
        known = {name: info.uuid for info in infos for name in (info.alias, info.uuid)}
        for name in model.preload_devices:
            if name not in known:
                raise OptionInvalid(
                    field="preload_devices",
                    problem=f"there is no device {name!r}; there are "
                    f"{', '.join(info.alias for info in infos)}",
                )
        return tuple(known[name] for name in model.preload_devices)

    def _failed(self, model: Model, error: GpudError) -> None:
        log.warning("preload.failed", model=model.name, reason=error.reason, problem=str(error))
        wall = self._house.clock.now().wall
        self._tell(
            Event(
                wall=wall,
                type="preload.failed",
                subject=model.name,
                reason=str(error),
                details={"code": error.reason},
            )
        )
