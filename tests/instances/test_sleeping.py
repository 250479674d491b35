"""Instances sent to sleep and woken, on an engine that can; what keeps them from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gpud.engines.api_key import ApiKey
from gpud.engines.engine import Pulse
from gpud.engines.probe import ProbeFailed, ProbeFault
from gpud.errors import EngineNotReady, GpudError, WrongState
from gpud.instances.draining.door import Door
from gpud.instances.draining.drain import open_door
from gpud.instances.health.vital import Verdict
from gpud.instances.instance import Instance, InstanceState, Sleep
from gpud.instances.life import StopOrder
from gpud.instances.sleeping.sleeping import SleepOrder, found_asleep
from gpud.instances.terms import LoadTerms
from gpud.models.model import ModelOptions
from gpud.promises.requests import Call
from tests.fakes.cards import sample
from tests.instances.health.test_keeping import after, rounds, up_again
from tests.instances.town import PATIENCE_SECONDS, ToldEngine, Town, town

CARD = sample(0)
ON_CARD = LoadTerms(devices=("U-gpu0",))
ASLEEP = Pulse(running=0, waiting=0, progress=1.0, sleeping=True)
ORDER = SleepOrder(level=1, actor="anna", grace_seconds=0.0)


class Dozer(ToldEngine):
    """A ToldEngine that can be sent to sleep; `orders` are what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.orders: list[str] = []
        self.fails = False
        self.says: bool | None = None  # instead of the truth
        self.is_silent = False  # about its sleep
        self.asked = 0  # how often, about its requests or its sleep
        self.flight: int | None = 0
        self.flights: list[int | None] = []  # answers before that

    async def sleep(self, endpoint: str, level: int, key: ApiKey | None = None) -> None:
        self.orders.append(f"sleep {level}")
        if self.fails:
            raise ProbeFailed(url=endpoint, fault=ProbeFault.TIMEOUT, detail="as told")
        self.told = ASLEEP

    async def wake(self, endpoint: str, key: ApiKey | None = None, level: int = 1) -> None:
        self.orders.append(f"wake {level}")
        if self.fails:
            raise ProbeFailed(url=endpoint, fault=ProbeFault.STATUS, detail="500")
        self.told = Pulse(running=0, waiting=0, progress=1.0)

    async def is_sleeping(self, endpoint: str, key: ApiKey | None = None) -> bool | None:
        self.asked += 1
        if self.is_silent:
            return None
        return self.says if self.says is not None else self.told == ASLEEP

    async def in_flight(self, endpoint: str, key: ApiKey | None = None) -> int | None:
        self.asked += 1
        return self.flights.pop(0) if self.flights else self.flight


@pytest.fixture
async def place(tmp_path: Path, tiny_model: Path) -> AsyncIterator[Town]:
    async with town(tmp_path, tiny_model, (CARD,)) as made:
        yield made


@pytest.fixture
def dozer(place: Town) -> Dozer:
    engine = Dozer()
    place.house.engines = {engine.kind: engine}
    return engine


async def ready(place: Town, **options: bool) -> Instance:
    said = ModelOptions(sleep_mode=True) if not options else ModelOptions(**options)
    made = await place.load(ON_CARD, options=said)
    return await place.until(made, InstanceState.READY)


def call(id_: str = "") -> Call:
    return Call(method="SleepInstance", request_id=id_)


def door(place: Town, made: Instance) -> Door | None:
    return place.roster._lives[made.id].door


async def raised(place: Town, made: Instance, order: SleepOrder = ORDER) -> GpudError:
    with pytest.raises(GpudError) as caught:
        await place.roster.sleep(made.name, order, call())
    return caught.value


async def passes(place: Town, is_so: Callable[[], bool]) -> None:
    """Time goes by until it is so."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_so():
            await after(place, 0.1)


async def test_it_sleeps_behind_its_door_and_wakes(place: Town, dozer: Dozer) -> None:
    made = await ready(place)
    slept = await place.roster.sleep(made.name, ORDER, call())
    assert slept.sleep == Sleep(level=1, wall=place.clock.now().wall, actor="anna")
    assert slept.state is InstanceState.READY
    assert door(place, made) is not None
    held = place.promises.durable.reservations[made.reservation or ""]
    assert held.booked, "its promise stays whole"
    await after(place, 6.0)
    signs = place.roster.signs(made.id)
    assert signs is not None
    assert signs.verdict is Verdict.SLEEPING
    woken = await place.roster.wake(made.name, "bert", call())
    assert woken.sleep is None
    assert door(place, made) is None
    assert dozer.orders == ["sleep 1", "wake 1"]


async def test_asked_again_nothing_is_done_twice(place: Town, dozer: Dozer) -> None:
    made = await ready(place)
    for _ in range(2):
        await place.roster.sleep(made.name, ORDER, call("once"))
    await place.roster.sleep(made.name, ORDER, call())
    await place.roster.wake(made.name, "anna", call())
    # The first id is remembered: it sleeps no second time.
    assert (await place.roster.sleep(made.name, ORDER, call("once"))).sleep is None
    await place.roster.wake(made.name, "anna", call())
    assert dozer.orders == ["sleep 1", "wake 1"]


async def test_another_level_needs_it_awake(place: Town, dozer: Dozer) -> None:
    made = await ready(place)
    await place.roster.sleep(made.name, ORDER, call())
    deeper = SleepOrder(level=2, actor="anna", grace_seconds=0.0)
    refusal = await raised(place, made, deeper)
    assert "ASLEEP at level 1; wake it first" in str(refusal)
    await place.roster.wake(made.name, "anna", call())
    await place.roster.sleep(made.name, deeper, call())
    await place.roster.wake(made.name, "anna", call())
    assert dozer.orders[-2:] == ["sleep 2", "wake 2"]


async def test_requests_in_flight_keep_it_awake(place: Town, dozer: Dozer) -> None:
    made = await ready(place)
    dozer.flight = 2
    refusal = await raised(place, made)
    assert isinstance(refusal, WrongState)
    assert "BUSY with 2 requests" in str(refusal)
    assert door(place, made) is None, "who comes is let in again"
    assert place.roster.get(made.name).sleep is None
    assert dozer.orders == []


async def test_an_answer_that_does_not_come_is_not_taken_for_idle(
    place: Town, dozer: Dozer
) -> None:
    made = await ready(place)
    dozer.flights, dozer.flight = [2, 2, None], 2
    order = SleepOrder(level=1, actor="anna", grace_seconds=10.0)
    asking = asyncio.ensure_future(raised(place, made, order))
    await passes(place, lambda: dozer.asked > 4)
    assert (asking.done(), dozer.orders) == (False, [])
    await passes(place, asking.done)
    assert "BUSY with 2 requests" in str(await asking)
    assert dozer.orders == []


async def test_one_that_is_silent_about_its_requests_is_asked_again_then_left_awake(
    place: Town, dozer: Dozer
) -> None:
    made = await ready(place)
    dozer.flight = None
    asking = asyncio.ensure_future(raised(place, made))
    await passes(place, asking.done)
    assert "silent about its requests" in str(await asking)
    dozer.flights, dozer.flight = [None], 0
    sleeping = asyncio.ensure_future(place.roster.sleep(made.name, ORDER, call()))
    await passes(place, sleeping.done)
    assert (await sleeping).sleep is not None


@pytest.mark.parametrize("says", [True, False])
async def test_while_it_does_not_tell_whether_it_sleeps_its_door_stays_shut(
    place: Town, dozer: Dozer, *, says: bool
) -> None:
    made = await ready(place)
    dozer.fails = dozer.is_silent = True
    sleeping = asyncio.ensure_future(place.roster.sleep(made.name, ORDER, call()))
    await passes(place, lambda: dozer.asked > 4)
    assert not sleeping.done()
    assert door(place, made) is not None
    dozer.is_silent, dozer.says = False, says
    await passes(place, sleeping.done)
    if says:
        assert (await sleeping).sleep is not None
    else:
        with pytest.raises(EngineNotReady, match="cannot be sent to sleep"):
            await sleeping
    assert (door(place, made) is not None) is says


@pytest.mark.parametrize("order", [None, StopOrder(actor="anna", grace_seconds=0.0, force=True)])
async def test_its_end_is_the_end_of_that_question(
    place: Town, dozer: Dozer, order: StopOrder | None
) -> None:
    made = await ready(place)
    dozer.fails = dozer.is_silent = True
    sleeping = asyncio.ensure_future(place.roster.sleep(made.name, ORDER, call()))
    await passes(place, lambda: dozer.asked > 2)
    if order is None:
        place.launcher.trees[-1].end(-9)
    else:
        place.roster.stop(made.name, order)
    await passes(place, sleeping.done)
    with pytest.raises(EngineNotReady, match="cannot be sent to sleep"):
        await sleeping
    await passes(place, lambda: door(place, made) is None)


async def test_a_restart_leaves_one_that_sleeps_in_peace_whose_key_cannot_be_read(
    place: Town, dozer: Dozer
) -> None:
    made = await ready(place)
    await place.roster.sleep(made.name, ORDER, call())
    # As the next life of the daemon finds it: awake, as far as its door tells.
    life = place.roster._lives[made.id]
    open_door(life)
    life.instance = replace(life.instance, api_key_file="/nonexistent/key")
    await found_asleep(life)
    assert life.instance.sleep is not None
    assert life.door is not None


async def test_one_that_fails_to_sleep_serves_on(place: Town, dozer: Dozer) -> None:
    made = await ready(place)
    dozer.fails = True
    refusal = await raised(place, made)
    assert isinstance(refusal, EngineNotReady)
    assert "cannot be sent to sleep (timeout: as told)" in str(refusal)
    await place.promises.settled()
    assert place.roster.get(made.name).sleep is None
    assert door(place, made) is None


async def test_an_answer_that_was_lost_is_asked_for(place: Town, dozer: Dozer) -> None:
    made = await ready(place)
    dozer.fails, dozer.says = True, True
    assert (await place.roster.sleep(made.name, ORDER, call())).sleep is not None
    with pytest.raises(EngineNotReady, match="cannot be woken"):
        await place.roster.wake(made.name, "anna", call())
    assert door(place, made) is not None
    assert place.roster.get(made.name).sleep is not None


async def test_who_cannot_sleep_says_why(place: Town, dozer: Dozer) -> None:
    plain = await ready(place, sleep_mode=False)
    assert "write sleep_mode = true into its entry" in str(await raised(place, plain))
    place.house.engines = {dozer.kind: place.engine}
    assert "load it with sleep_idle_seconds" in str(await raised(place, plain))
    with pytest.raises(WrongState):
        await place.roster.wake(plain.name, "anna", call())


async def test_the_caller_may_leave(place: Town, dozer: Dozer) -> None:
    made = await ready(place)
    dozer.flight = 1
    order = SleepOrder(level=1, actor="anna", grace_seconds=30.0)
    asking = asyncio.ensure_future(place.roster.sleep(made.name, order, call()))
    await rounds(place)
    asking.cancel()
    dozer.flight = 0
    async with asyncio.timeout(PATIENCE_SECONDS):
        while "sleep 1" not in dozer.orders:
            await after(place, 0.1)
    await rounds(place)
    assert place.roster.get(made.name).sleep is not None


async def test_an_engine_that_fails_asleep_comes_back_awake(place: Town, dozer: Dozer) -> None:
    made = await ready(place)
    await place.roster.sleep(made.name, ORDER, call())
    place.launcher.trees[-1].end(1)
    dozer.told = Pulse(running=0, waiting=0, progress=1.0)
    await rounds(place)
    assert door(place, made) is None
    await after(place, 2.0)
    again = await up_again(place, made)
    assert again.sleep is None


async def test_it_is_unloaded_in_its_sleep(place: Town, dozer: Dozer) -> None:
    made = await ready(place)
    await place.roster.sleep(made.name, ORDER, call())
    order = StopOrder(actor="anna", grace_seconds=5.0, force=False)
    place.roster.stop(made.name, order)
    ended = await place.until(made.name, InstanceState.STOPPED)
    assert ended.endpoint == ""
    assert door(place, made) is None
