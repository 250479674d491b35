"""A roster at work on cards that a test shows: real catalogue and ledger, an engine that obeys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from gpud.devices.snapshot import Sample, Snapshot
from gpud.engines.api_key import ApiKey
from gpud.engines.counting.counters import Counters
from gpud.engines.engine import (
    Command,
    EngineProgram,
    LoadStep,
    Pulse,
    Readiness,
    StartRequest,
    Warmth,
)
from gpud.engines.probe import ProbeFailed, ProbeFault
from gpud.errors import EngineMissing
from gpud.feed import Feed
from gpud.instances.instance import Instance, InstanceState
from gpud.instances.life import House
from gpud.instances.progress import Progress
from gpud.instances.roster import LoadRequest, Roster
from gpud.instances.terms import LoadTerms
from gpud.ledger.ledger import Ledger
from gpud.models.catalogue import Catalogue, Inspection
from gpud.models.footprint import DeviceTraits, estimate
from gpud.models.host_share import host_share
from gpud.models.model import (
    Confidence,
    EngineKind,
    Footprint,
    FootprintItem,
    FootprintWhat,
    Model,
    ModelOptions,
)
from gpud.promises.promises import Promises
from gpud.promises.requests import Call
from gpud.settings import Policy
from tests.fakes.cards import snapshot
from tests.fakes.clock import FakeClock
from tests.fakes.launcher import FakeLauncher
from tests.fakes.store import CrampedStore
from tests.ledger.desk import settled

PATIENCE_SECONDS = 60.0


class ToldEngine:
    """An engine that is READY when the test says so."""

    kind = EngineKind.LLAMA_CPP

    def __init__(self) -> None:
        self.ready = True
        self.told: Pulse | None = Pulse(running=0, waiting=0, progress=1.0)
        self.probes = 0
        self.probe_fails = False
        self.missing = False
        self.weights = 0  # in all, where it is not as the file says

    async def program(self) -> EngineProgram:
        if self.missing:
            raise EngineMissing(engine="llama_cpp", program="/bin/engine", problem="gone")
        return EngineProgram(kind=self.kind, path="/bin/engine", version="1", flags={})

    async def look(self, model: Model) -> None:
        if self.missing:
            raise EngineMissing(engine="llama_cpp", program="/bin/engine", problem="gone")

    def check_options(self, options: ModelOptions) -> ModelOptions:
        return replace(options, context_length=512, parallel=1, batch=512, ubatch=512)

    def command(self, program: EngineProgram, request: StartRequest) -> Command:
        return Command(argv=(program.path,), environment={})

    def estimate(
        self, inspection: Inspection, options: ModelOptions, device: DeviceTraits
    ) -> Footprint:
        if not self.weights:
            return estimate(inspection.gguf, options, device)
        item = FootprintItem(what=FootprintWhat.WEIGHTS, bytes=self.weights, source="told")
        return Footprint(items=(item,), confidence=Confidence.LAW)

    def host_bytes(
        self, inspection: Inspection, options: ModelOptions, device: DeviceTraits
    ) -> int:
        return host_share(inspection.gguf, options, device)

    def devices_needed(self, options: ModelOptions) -> int:
        return 1

    def can_lock(self, program: EngineProgram) -> bool:
        return False

    def contexts_per_device(self, options: ModelOptions) -> int:
        return 1

    async def readiness(self, endpoint: str) -> Readiness:
        return Readiness.READY if self.ready else Readiness.LOADING

    async def warm_up(
        self, endpoint: str, model: Model, options: ModelOptions, key: ApiKey | None = None
    ) -> Warmth:
        return Warmth(tokens_per_second=None, time_to_first_token_seconds=None)

    async def pulse(self, endpoint: str, key: ApiKey | None = None) -> Pulse | None:
        return self.told

    async def counters(self, endpoint: str, key: ApiKey | None = None) -> Counters | None:
        return self.told.counters if self.told is not None else None

    async def probe(
        self, endpoint: str, model: Model, options: ModelOptions, key: ApiKey | None = None
    ) -> None:
        self.probes += 1
        if self.probe_fails:
            raise ProbeFailed(url=endpoint, fault=ProbeFault.TIMEOUT, detail="as told")

    async def in_flight(self, endpoint: str, key: ApiKey | None = None) -> int | None:
        return 0

    def measured_bytes(self, output: tuple[str, ...]) -> int | None:
        return None

    def load_step(self, output_tail: tuple[str, ...]) -> LoadStep:
        return LoadStep()

    def hopeless(self, output_tail: tuple[str, ...]) -> str:
        return ""

    def explain_exit(self, output_tail: tuple[str, ...]) -> str:
        return ""


@dataclass
class Town:
    """What a test has in its hands."""

    roster: Roster
    house: House
    clock: FakeClock
    launcher: FakeLauncher
    engine: ToldEngine
    cards: tuple[Sample, ...]
    feed: Feed[Snapshot] = field(default_factory=Feed)

    @property
    def promises(self) -> Promises:
        return self.house.promises

    def show(self, *cards: Sample) -> None:
        """A tick, as of now, with process lists; the cards as they were unless given."""
        self.cards = cards or self.cards
        now = self.clock.boottime
        fresh = tuple(
            replace(card, boottime=now, listed_boottime=now if card.listed_boottime else None)
            for card in self.cards
        )
        shown = snapshot(*fresh, boottime=now, sequence=self.feed.sequence + 1)
        self.promises.observe(shown)
        self.feed.publish(shown)

    def tick(self) -> None:
        """A moment later."""
        self.clock.advance(0.01)
        self.show()

    async def load(self, terms: LoadTerms, owner: str = "anna", **more: Any) -> str:
        """Begin one; its id."""
        said = {"options": ModelOptions(), **more}
        request = LoadRequest(model="tiny", terms=terms, owner=owner, **said)
        return await self.roster.load(request, Call(method="LoadModel"))

    async def waits(self, name: str, detail: str = "waits, ") -> str:
        """What it was told while it waited in the queue."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for progress in self.roster.follow(name, from_start=False):
                if progress.detail.startswith(detail):
                    return progress.detail
        raise AssertionError(f"{name} ended before: {self.roster.error(name)!r}")

    async def until(self, name: str, *states: InstanceState) -> Instance:
        """The instance, once it is in one of these states."""
        return (await self.told(name, *states))[-1].instance

    async def told(self, name: str, *states: InstanceState) -> list[Progress]:
        """All that was told of it until then."""
        found = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for progress in self.roster.follow(name, from_start=True):
                found.append(progress)
                if progress.instance.state in states:
                    return found
        raise AssertionError(f"{name} ended before: {self.roster.error(name)!r}")


@asynccontextmanager
async def town(
    directory: Path,
    model: Path,
    cards: tuple[Sample, ...],
    *,
    ledger: type[Ledger] = Ledger,
    promises: type[Promises] = Promises,
    entry_engine: EngineKind = EngineKind.LLAMA_CPP,
    **settings: Any,
) -> AsyncIterator[Town]:
    """A town that runs; `settings` are the ledger's; `entry_engine` is its one entry's."""
    clock, store = FakeClock(), CrampedStore(directory)
    (directory / "instances").mkdir(exist_ok=True)
    made = _built(directory, model, cards, promises(ledger(settled(**settings)), store, clock))
    tiny = replace(made.house.catalogue.get("tiny"), engine=entry_engine)
    made.house.catalogue = Catalogue({"tiny": tiny}, [model.parent])
    store.start(lambda commits: None, lambda cause: made.promises.restore())
    made.promises.restore()
    made.promises.waiting_for = ""
    made.show()
    recovered = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(made.roster.run(recovered))
        await recovered.wait()
        yield made
        running.cancel()
    store.close()


def _built(directory: Path, model: Path, cards: tuple[Sample, ...], promises: Promises) -> Town:
    clock = promises._clock
    assert isinstance(clock, FakeClock)
    engine, launcher, feed = ToldEngine(), FakeLauncher(clock), Feed[Snapshot]()
    tiny = Model(id="tiny", engine=engine.kind, kind=None, path=model.name, options=ModelOptions())
    grace = promises.ledger.settings.preemption.grace_seconds
    house = House(
        promises=promises,
        catalogue=Catalogue({"tiny": tiny}, [model.parent]),
        engines={engine.kind: engine},
        launcher=launcher,
        clock=clock,
        snapshots=feed,
        list_soon=lambda: made.tick(),
        sample_now=lambda: made.tick(),
        directory=directory / "instances",
        load_stall_seconds=60.0,
        policy=msgspec.structs.replace(Policy(), preemption_grace=grace),
    )
    roster = Roster(house, promises._store)
    promises.on_notice = roster.preempt
    made = Town(roster, house, clock, launcher, engine, cards, feed)
    return made
