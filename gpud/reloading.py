"""The configuration read anew: checked whole, compared, and only what changed taken over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from gpud import assembly
from gpud.access.access import Access
from gpud.clock import Clock
from gpud.config_changes import ConfigChange, ConfigRefused, changes, in_force
from gpud.devices.sampling.sampler import Sampler
from gpud.enforcement.guard import Guard
from gpud.errors import ConfigInvalid, ModelNotFound
from gpud.events import Event
from gpud.instances.life import House
from gpud.ledger.standing import Standing
from gpud.models.model import CommandSpec, EngineKind, Model
from gpud.settings import Config
from gpud.telemetry.alerts.rules.configured import rules_of

log = structlog.get_logger()

# Of the changes an event names; the log has them all.
MOST_TOLD = 50


@dataclass(slots=True, kw_only=True)
class Reloaded:
    """The parts that a configuration is taken over by. `tell` posts an event."""

    house: House
    sampler: Sampler
    guard: Guard
    access: Access
    clock: Clock
    tell: Callable[[Event], None]
    stand: Callable[[tuple[Standing, ...]], None]  # hold these standing reservations
    preload: Callable[[tuple[Model, ...]], None]  # load these, new in the list
    see: Callable[[Config], None]  # the seeing side, as Seeing.configure
    # Of commands that run, as they were started: their entries may have changed since.
    commands: dict[str, CommandSpec] = field(default_factory=dict)


class Reloader:
    """The configuration in force, and how it becomes another."""

    def __init__(self, config: Config, read: Callable[[], Config], parts: Reloaded) -> None:
        """`read` reads and checks the files. Raises ConfigInvalid."""
        self.config = config
        self._read = read
        self._parts = parts
        self._asked = asyncio.Event()
        self._turn = asyncio.Lock()

    def ask(self) -> None:
        """Have it reloaded soon, as SIGHUP does."""
        self._asked.set()

    async def run(self) -> None:
        """Reload whenever it is asked for, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            with suppress(ConfigRefused):  # it was told
                await self.reload("SIGHUP")

    async def reload(self, actor: str, *, validate_only: bool = False) -> tuple[ConfigChange, ...]:
        """What differs; taken over unless only validated. Raises ConfigRefused."""
        async with self._turn:
            try:
                new = await asyncio.to_thread(self._read)
                found = changes(self.config, new)
                applied = in_force(self.config, new)
                made = assembly.models(applied)
                rules_of(applied.alerts)
            except ConfigInvalid as error:
                if not validate_only:
                    self._tell("config.refused", actor, f"{error}; the one in force stays so")
                raise ConfigRefused(problem=str(error)) from error
            if found and not validate_only:
                self._take_over(applied, made)
            if not validate_only:
                told = "; ".join(map(str, found[:MOST_TOLD])) or "nothing changed"
                self._tell("config.reloaded", actor, told, {"changes": str(len(found))})
            return found

    def _take_over(self, new: Config, made: Mapping[str, Model]) -> None:
        """All of it in one step, so that nobody sees a half."""
        old, self.config = self.config, new
        parts, house = self._parts, self._parts.house
        self._keep_commands()
        before = {model.id for model in house.catalogue.list() if model.preload}
        house.catalogue.configure(made, assembly.roots(new))
        if house.registry is not None:
            house.registry.configure(assembly.places(new))
        if house.fetching is not None:
            where = assembly.places(new).download_dir
            house.fetching.configure(where, assembly.download_terms(new))
        house.policy, house.health = new.policy, new.health
        house.load_stall_seconds = float(new.engines.llama_cpp.load_stall)
        house.load_stalls = {EngineKind.VLLM: float(new.engines.vllm.load_stall)}
        house.promises.ledger.configure(assembly.ledger_settings(new.policy, new.quotas))
        parts.guard.configure(new.policy)
        parts.see(new)
        parts.sampler.judge_by(assembly.sampler_settings(new).bands)
        if (old.identities, old.tokens, old.quotas) != (new.identities, new.tokens, new.quotas):
            parts.access.configure(new)
        parts.stand(assembly.standing(new))
        parts.sampler.sample_now()
        listed = (model for model in made.values() if model.preload)
        parts.preload(tuple(model for model in listed if model.id not in before))

    def _keep_commands(self) -> None:
        parts, known = self._parts, self._parts.commands
        runs = {each.id: each for each in parts.house.roll() if not each.ended}
        for id_ in known.keys() - runs.keys():
            del known[id_]
        for id_, each in runs.items():
            if each.engine is EngineKind.COMMAND and id_ not in known:
                with suppress(ModelNotFound):
                    spec = parts.house.catalogue.get(each.model).command
                    if spec is not None:
                        known[id_] = spec

    def _tell(
        self, type_: str, actor: str, reason: str, details: dict[str, str] | None = None
    ) -> None:
        wall = self._parts.clock.now().wall
        event = Event(
            wall=wall,
            type=type_,
            subject="node",
            actor=actor,
            reason=reason,
            details=details or {},
        )
        self._parts.tell(event)
        if type_ == "config.refused":
            log.error(type_, reason=reason)
