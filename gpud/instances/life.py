"""One instance's record: changed by its own task, durable before anyone sees the change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import structs

from gpud.clock import Clock
from gpud.devices.snapshot import Snapshot
from gpud.engines.engine import Engine
from gpud.errors import GpudError
from gpud.events import Cause, Event, present_cause
from gpud.feed import Feed
from gpud.instances.health.oom import Kernel, OomKills
from gpud.instances.health.quiet import Quiet
from gpud.instances.health.vital import Signs
from gpud.instances.instance import (
    Failure,
    Instance,
    InstanceState,
    LoadPhase,
    UnloadPhase,
)
from gpud.instances.lifecycle import STATE_OF_PHASE, Happening, step
from gpud.instances.progress import Progress, Trail
from gpud.instances.starting.turns import Turns
from gpud.instances.tree.cgroup import Cgroups
from gpud.instances.tree.launcher import Launcher, Tree
from gpud.instances.tree.output import Place
from gpud.ledger.change import Change
from gpud.ledger.reservation import Enforcement, Reservation
from gpud.models.catalogue import Catalogue
from gpud.models.learned import Learned
from gpud.models.model import EngineKind
from gpud.models.sources.fetching import Fetching
from gpud.models.sources.registered import Registry
from gpud.promises.places import Places
from gpud.promises.promises import Promises
from gpud.settings import Health, Policy
from gpud.store import Committed, Row

if TYPE_CHECKING:
    from gpud.instances.draining.door import Door
    from gpud.instances.measuring.learning import Watched


@dataclass(frozen=True, slots=True, kw_only=True)
class StopOrder:
    """How an instance is to be stopped."""

    actor: str
    grace_seconds: float
    force: bool
    reason: str = ""  # for the journal
    resumed: bool = False  # an earlier life of the daemon had begun to obey it
    # The call that asked for it, if one did.
    cause: Cause | None = field(default_factory=present_cause, compare=False)


@dataclass(slots=True, kw_only=True)
class House:
    """What every instance is run with."""

    promises: Promises
    catalogue: Catalogue
    engines: Mapping[EngineKind, Engine]
    launcher: Launcher
    clock: Clock
    snapshots: Feed[Snapshot]
    list_soon: Callable[[], None]  # asks the sampler for process lists at its next tick
    directory: Path  # holds one folder per instance
    load_stall_seconds: float
    load_stalls: Mapping[EngineKind, float] = field(default_factory=dict)  # where it is another
    sample_now: Callable[[], None] = lambda: None  # asks the sampler for a tick at once
    policy: Policy = field(default_factory=Policy)
    health: Health = field(default_factory=Health)
    luck: Callable[[], float] = lambda: 0.5  # of the pauses before a restart: 0 … 1
    kernel: Kernel = field(default_factory=Kernel)
    turns: Turns = field(default_factory=Turns)
    # Has the driver keep others off an exclusive promise's devices.
    enforce: Callable[[Reservation], Awaitable[Enforcement]] | None = None
    cgroups: Cgroups | None = None  # where a memory cgroup is delegated
    node_count: int | None = None  # NUMA nodes with CPUs; None: the kernel tells none
    # Brings a model's files here and checks them; None: they lie there already.
    fetching: Fetching | None = None
    roll: Callable[[], Iterable[Instance]] = tuple  # every instance there is, by newest record
    registry: Registry | None = None  # of models that are registered while the daemon runs
    learned: Learned = field(default_factory=Learned)  # what loads were measured to take
    quiet: Quiet = field(default_factory=Quiet)  # devices that are being measured
    # Where everybody in the queue stands: found out once, for the loads and for whoever asks.
    places: Places = field(init=False)

    def __post_init__(self) -> None:
        self.places = Places(self.promises, self.snapshots, self.clock)

    def folder(self, instance_id: str) -> Path:
        """The instance's own folder."""
        return self.directory / instance_id


@dataclass(slots=True)
class Life:
    """One instance while it is listed: its newest and its durable record, its tree, its stop."""

    house: House
    instance: Instance
    stop: asyncio.Future[StopOrder]  # ends with the first order; `order` is the newest
    order: StopOrder | None = None
    cause: Cause | None = None  # the call that asked for its load, until it is READY
    durable: Instance | None = None
    tree: Tree | None = None
    # Its turn on its devices: from its start until it is READY, or until its tree is gone.
    turn: AsyncExitStack = field(default_factory=AsyncExitStack)
    is_noticed: bool = False  # a notice of preemption is being watched
    error: GpudError | None = None
    newest: asyncio.Future[Committed] | None = None
    progress: Trail = field(default_factory=Trail)
    phase: LoadPhase | UnloadPhase = LoadPhase.DETECT
    phase_began: float = 0.0
    began: float = 0.0  # its load, or its newest start
    stop_began: float = 0.0
    detail: str = ""  # of the present phase
    freed_bytes: int | None = None  # once it has ended
    signs: Signs | None = None  # of its health, while it serves
    lost: GpudError | None = None  # why its engine was not found again, where that can be healed
    oom_kills: OomKills | None = None  # as of when it was last known to live
    died_of_memory: bool = False  # its engine, the last time
    served_from: Place | None = None  # where its output stood when it began to serve
    woken: asyncio.Event = field(default_factory=asyncio.Event)  # not to wait any longer
    door: Door | None = None  # shut before its engine: nobody new gets in
    resting: asyncio.Lock = field(default_factory=asyncio.Lock)  # one sleeps or wakes it at once
    watched: Watched | None = None  # while its use of its devices is to be learned from
    # Records queued and records durable; what waits for which of them to be told.
    _queued: int = 0
    _settled: int = 0
    _waiting: list[tuple[int, Progress]] = field(default_factory=list)
    _told_state: InstanceState = field(init=False)  # the last that the journal was told

    def __post_init__(self) -> None:
        self._told_state = self.instance.state

    def happen(self, happening: Happening, event: Event | None = None, **changes: object) -> None:
        """Step along the life's table and note it. Raises WrongState."""
        state = step(self.instance.name, self.instance.state, happening)
        self.note(event, state=state, **changes)

    def note(self, event: Event | None = None, **changes: object) -> None:
        """Change the record; whoever watches sees it once it is durable."""
        _ = self.commit(Change(), event, **changes)

    def commit(
        self, change: Change, event: Event | None = None, **changes: object
    ) -> asyncio.Future[Committed]:
        """Change the record together with the ledger, in one transaction."""
        return self.commit_with((), change, event, **changes)

    def commit_with(
        self, rows: tuple[Row, ...], /, change: Change, event: Event | None, **changes: object
    ) -> asyncio.Future[Committed]:
        """The same, together with rows of others.

        Whoever awaits this may be cancelled, as a start is by a stop: others wait for the record
        as well, and it becomes durable all the same.
        """
        self.instance = replace(self.instance, **changes)  # type: ignore[arg-type]
        instance = self.instance
        event = self._with_state(event)
        told = (*change.events, event) if event is not None else change.events
        change = structs.replace(change, events=told).caused_by(self.cause_now)

        self._queued += 1
        self.newest = self.house.promises.commit(
            change, (row_of(instance), *rows), partial(self._settle, self._queued, instance)
        )
        own = asyncio.shield(self.newest)
        own.add_done_callback(lambda own: own.cancelled() or own.exception())
        return own

    def _with_state(self, event: Event | None) -> Event | None:
        """The event that tells a step along the life's table: its own, or one of nothing else."""
        before, self._told_state = self._told_state, self.instance.state
        if before is self.instance.state:
            return event
        state = self.instance.state.name
        if event is None:
            return self.event("instance.state", f"{before.name} -> {state}", state=state)
        return structs.replace(event, details={**event.details, "state": state})

    def _settle(self, number: int, instance: Instance) -> None:
        """A record became durable: what was to be told with it is told."""
        self.durable, self._settled = instance, number
        told = [waiting for at, waiting in self._waiting if at <= number]
        self._waiting = [(at, waiting) for at, waiting in self._waiting if at > number]
        for waiting in told:
            self.progress.publish(replace(waiting, instance=instance))
        if not told:
            self.show()

    def stop_with(self, order: StopOrder) -> None:
        """Order its stop; the newest order counts."""
        self.order = order
        if not self.stop.done():
            self.stop.set_result(order)

    async def written(self) -> None:
        """Wait until what was noted is durable, or cannot be: a stop goes on all the same."""
        if self.newest is not None:
            with suppress(GpudError):
                await asyncio.shield(self.newest)

    def enter(self, phase: LoadPhase | UnloadPhase, detail: str = "") -> None:
        """Begin a phase, closing the one before with its time."""
        now = self.house.clock.now().boottime
        timed = isinstance(self.phase, LoadPhase) and self.phase is not LoadPhase.READY
        if timed and self.phase is not phase and self.phase_began:
            assert isinstance(self.phase, LoadPhase)  # noqa: S101 — for the type checker
            spent = (*self.instance.phase_seconds, (self.phase, now - self.phase_began))
            self.instance = replace(self.instance, phase_seconds=spent)
        self.phase, self.phase_began, self.detail = phase, now, detail
        if isinstance(phase, LoadPhase) and phase is not LoadPhase.READY:
            state = STATE_OF_PHASE[phase]
            if state is not self.instance.state:
                self.happen(_HAPPENING_INTO[phase])
        if phase not in _TOLD_BY_THEIR_RECORD:
            self.show()

    def show(self, *, detail: str | None = None, fraction: float | None = None) -> None:
        """Tell the followers where it is, together with the record that says so."""
        self.detail = self.detail if detail is None else detail
        now = self.house.clock.now().boottime
        # Of a load that fails the last phase is told while it is brought down already.
        began = self.began if isinstance(self.phase, LoadPhase) else self.stop_began
        shown = Progress(
            instance=self.durable or self.instance,
            phase=self.phase,
            fraction=fraction,
            detail=self.detail,
            elapsed_seconds=max(0.0, now - began),
            freed_bytes=self.freed_bytes,
        )
        if self._settled < self._queued:
            self._waiting = [each for each in self._waiting if each[1].phase is not self.phase]
            self._waiting.append((self._queued, shown))
        elif self.durable is not None:
            self.progress.publish(shown)

    def event(self, type_: str, reason: str = "", *, actor: str = "gpud", **details: str) -> Event:
        """An event about this instance; gpud is the actor unless somebody asked for it."""
        return Event(
            wall=self.house.clock.now().wall,
            type=type_,
            subject=self.instance.name,
            actor=actor,
            reason=reason,
            details={"model": self.instance.model, **details},
            cause=self.cause_now,
        )

    @property
    def cause_now(self) -> Cause | None:
        """The call that has it do what it does now."""
        return self.cause if self.order is None else self.order.cause

    def failure(self, error: GpudError) -> Failure:
        """An error as the record keeps it."""
        phase = self.phase if isinstance(self.phase, LoadPhase) else None
        return Failure(reason=error.reason, message=str(error), phase=phase)

    @property
    def folder(self) -> Path:
        """The instance's own folder."""
        return self.house.folder(self.instance.id)


_HAPPENING_INTO = {
    LoadPhase.DETECT: Happening.BEGUN,
    LoadPhase.ALLOCATE: Happening.VERIFIED,
    LoadPhase.START: Happening.PROMISED,
    LoadPhase.LOAD: Happening.STARTED,
    LoadPhase.WARMUP: Happening.LOADED,
}


# The last of a load and the last of a life are told once the record says so.
_TOLD_BY_THEIR_RECORD = (LoadPhase.READY, UnloadPhase.STOPPED)


def row_of(instance: Instance) -> Row:
    """The record as stored."""
    return Row(kind="instance", id=instance.id, body=msgspec.json.encode(instance))
