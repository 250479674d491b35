"""The roster: what was durably begun is run, whether or not its caller stayed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpud.engines.engine import Engine
from gpud.engines.llama.engine import LlamaCpp
from gpud.engines.probe import HttpProbe
from gpud.errors import StoreReadOnly
from gpud.feed import Feed
from gpud.instances.instance import Gate, Instance, InstanceState
from gpud.instances.life import House
from gpud.instances.roster import LoadRequest, Roster
from gpud.instances.terms import LoadTerms
from gpud.ledger.admission.policy import LedgerSettings
from gpud.ledger.change import Change
from gpud.ledger.charge import Reserves
from gpud.ledger.ledger import Ledger
from gpud.models.catalogue import Catalogue
from gpud.models.model import EngineKind, Model, ModelOptions
from gpud.promises.promises import Promises
from gpud.promises.requests import Call
from tests.fakes.clock import FakeClock
from tests.fakes.launcher import FakeLauncher
from tests.fakes.store import CrampedStore

PATIENCE_SECONDS = 60.0
GHOST = Model(
    id="ghost",
    engine=EngineKind.LLAMA_CPP,
    kind=None,
    path="ghost.gguf",
    options=ModelOptions(),
)
LOAD = LoadRequest(model="ghost", options=ModelOptions(), terms=LoadTerms(), owner="anna")


@dataclass
class Place:
    """A roster that runs, on a host without an engine: every load fails in DETECT."""

    roster: Roster
    store: CrampedStore

    async def ended(self) -> Instance:
        """The one instance, once it has ended."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            (life,) = self.roster._lives.values()
            async for progress in self.roster.follow(life.instance.name, from_start=True):
                if progress.instance.ended:
                    return progress.instance
        raise AssertionError("its progress ended before it did")


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    clock, store = FakeClock(), CrampedStore(tmp_path)
    settings = LedgerSettings(
        reserves=Reserves(device_bytes=0, host_bytes=0), release_deadline_seconds=10.0
    )
    promises = Promises(Ledger(settings), store, clock)
    store.start(lambda commits: None, lambda cause: promises.restore())
    promises.restore()
    promises.waiting_for = ""
    engines: dict[EngineKind, Engine] = {
        EngineKind.LLAMA_CPP: LlamaCpp(str(tmp_path / "none"), HttpProbe())
    }
    (tmp_path / "instances").mkdir(exist_ok=True)
    house = House(
        promises=promises,
        catalogue=Catalogue({"ghost": GHOST}, [tmp_path]),
        engines=engines,
        launcher=FakeLauncher(clock),
        clock=clock,
        snapshots=Feed(),
        list_soon=lambda: None,
        directory=tmp_path / "instances",
        load_stall_seconds=60.0,
    )
    roster, recovered = Roster(house, store), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(roster.run(recovered))
        await recovered.wait()
        yield Place(roster=roster, store=store)
        running.cancel()
        store.gate.set()
        store.full = False
    store.close()


async def until_appended(store: CrampedStore) -> None:
    """The loop has gone round often enough for a new task to have queued its write."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_load_goes_on_when_its_caller_left_before_it_was_durable(place: Place) -> None:
    place.store.gate.clear()
    asking = asyncio.ensure_future(place.roster.load(LOAD, Call(method="LoadModel")))
    await until_appended(place.store)
    asking.cancel()
    await asyncio.wait([asking])
    place.store.gate.set()
    assert (await place.ended()).state is InstanceState.FAILED


async def test_a_load_that_was_never_durable_is_forgotten(place: Place) -> None:
    """Also for those who followed it by the same request id while it was in flight."""
    place.store.gate.clear()
    place.store.full, place.store.room_without_ballast = True, False
    call = Call(method="LoadModel", request_id="same", digest="d")
    large = LoadRequest(**{**_fields(LOAD), "owner": "x" * 200_000})
    asking = asyncio.ensure_future(place.roster.load(large, call))
    await until_appended(place.store)
    (life,) = place.roster._lives.values()
    follow = place.roster.follow(life.instance.name, from_start=True)
    following = asyncio.ensure_future(anext(aiter(follow), None))
    place.store.gate.set()

    with pytest.raises(StoreReadOnly):
        await asyncio.wait_for(asking, PATIENCE_SECONDS)

    assert await asyncio.wait_for(following, PATIENCE_SECONDS) is None
    assert place.roster.list() == []


async def test_who_waits_for_a_record_is_not_cancelled_with_another_who_does(place: Place) -> None:
    """Reported: an unload that came while a start waited for its record was never answered."""
    name = await place.roster.load(LOAD, Call(method="LoadModel"))
    await place.ended()
    place.store.gate.clear()
    life = place.roster._lives[name]

    async def start() -> None:
        await life.commit(Change(), gate=Gate.INTENT)

    starting = asyncio.ensure_future(start())
    await until_appended(place.store)
    unloading = asyncio.ensure_future(place.roster.noted(name))
    await until_appended(place.store)
    starting.cancel()
    await asyncio.wait([starting])
    assert not unloading.done()
    place.store.gate.set()
    await asyncio.wait_for(unloading, PATIENCE_SECONDS)
    assert place.roster.get(name).gate is Gate.INTENT


def _fields(request: LoadRequest) -> dict[str, object]:
    return {name: getattr(request, name) for name in LoadRequest.__dataclass_fields__}
