"""Engines that fail after they have served: watched, started again, given up, reset."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from gpud.clock import Moment
from gpud.engines.engine import Pulse
from gpud.errors import EngineExited, InstanceNotFound, StoreReadOnly, WrongState
from gpud.instances.health.healing import Fault, Healing, failed
from gpud.instances.health.healing import serving as up
from gpud.instances.health.oom import Kernel
from gpud.instances.health.vital import Verdict
from gpud.instances.instance import Instance, InstanceState, LoadPhase
from gpud.instances.life import StopOrder
from gpud.instances.load import Load
from gpud.instances.terms import LoadTerms
from gpud.ledger.change import Change
from gpud.models.catalogue import Catalogue
from gpud.models.model import ModelOptions
from gpud.promises.promises import Promises
from gpud.promises.requests import Call
from gpud.settings import Health
from gpud.store import Committed, Row
from tests.fakes.cards import GIB, process, sample
from tests.fakes.launcher import Behaviour
from tests.fakes.store import CrampedStore
from tests.instances.town import PATIENCE_SECONDS, Town, town

CARD = sample(0)
ON_CARD = LoadTerms(devices=("U-gpu0",))
READY, BACKOFF, FAILED, STOPPED = (
    InstanceState.READY,
    InstanceState.BACKOFF,
    InstanceState.FAILED,
    InstanceState.STOPPED,
)
IDLE = Pulse(running=0, waiting=0, progress=1.0)
# Of the pauses, with the luck that a town has.
FIRST_PAUSE = 0.875


@pytest.fixture
async def place(tmp_path: Path, tiny_model: Path) -> AsyncIterator[Town]:
    async with town(tmp_path, tiny_model, (CARD,)) as made:
        yield made


async def rounds(place: Town) -> None:
    """Everybody has had their turns, the disk too."""
    for _ in range(4):
        for _ in range(20):
            await asyncio.sleep(0)
        await place.promises.settled()
        await asyncio.to_thread(threads_done)


def threads_done() -> None:
    """Whoever looked at files has told what was found."""
    while any(each.name.startswith("inspect ") for each in threading.enumerate()):
        os.sched_yield()


async def after(place: Town, seconds: float) -> None:
    """Seconds go by, in which whoever wakes has its turn."""
    end = place.clock.boottime + seconds
    while place.clock.boottime < end:
        place.clock.advance(min(1.0, end - place.clock.boottime))
        place.show()
        await rounds(place)


async def up_again(place: Town, made: Instance, restarts: int = 1) -> Instance:
    """It, once it has been started again so often; time does not go by meanwhile."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for progress in place.roster.follow(made.name, from_start=False):
            if progress.instance.state is READY and progress.instance.restarts == restarts:
                await rounds(place)
                return progress.instance
    raise AssertionError(f"it ended: {now(place, made).failure}")


async def becomes(place: Town, made: Instance, wanted: Callable[[Instance], bool]) -> Instance:
    """It, once it is so; time goes by meanwhile, five minutes at most."""
    for _ in range(300):
        if wanted(now(place, made)):
            return now(place, made)
        await after(place, 1.0)
    raise AssertionError(f"it never was: {now(place, made)}")


async def serving(place: Town, **asked: object) -> Instance:
    """One that is READY, and was looked at once."""
    made = await place.until(await place.load(ON_CARD, **asked), READY)
    await rounds(place)
    return made


def now(place: Town, made: Instance) -> Instance:
    return place.roster.get(made.name)


def fall(place: Town, status: int = -9) -> None:
    """The engine that runs ends by itself."""
    place.launcher.trees[-1].end(status)


async def fallen(place: Town, made: Instance, status: int = -9) -> Instance:
    fall(place, status)
    await rounds(place)
    return now(place, made)


def events(place: Town, made: Instance) -> list[str]:
    """Types, oldest first."""
    store = place.promises._store
    assert isinstance(store, CrampedStore)
    found = store.read_entries("subject = ?", (made.name,), 1000, newest_first=False)
    return [type_ for _, _, type_, _, _ in found if type_ != "instance.state"]


# Back-off.


async def test_it_is_started_again_after_its_pause_in_the_same_promise(place: Town) -> None:
    made = await serving(place)
    down = await fallen(place, made)
    assert (down.state, down.endpoint, down.pid) == (BACKOFF, "", None)
    assert down.reservation == made.reservation
    assert down.last_exit is not None
    assert down.last_exit.signal == 9
    await after(place, FIRST_PAUSE - 0.05)
    assert len(place.launcher.trees) == 1
    await after(place, 0.1)
    up = await up_again(place, made)
    assert (up.name, up.reservation) == (made.name, made.reservation)
    assert up.pid != made.pid
    assert up.endpoint
    assert up.healing.retry is None
    assert up.phase_seconds[0][0] is LoadPhase.START
    told = events(place, made)
    assert told[-3:] == ["instance.ailing", "instance.started", "instance.healed"]


async def test_the_pauses_double_and_the_fifth_failure_is_the_last(place: Town) -> None:
    """Its restarts fail: each counts, until its promise ends."""
    made = await serving(place)
    place.launcher.behaviour = Behaviour(at_start=1)
    await fallen(place, made)
    for number, pause in enumerate((1, 2, 4, 8), 1):
        healing = now(place, made).healing
        assert healing.retry is not None
        waits = healing.retry.boottime - healing.failures[-1].boottime
        assert waits == pytest.approx(pause * FIRST_PAUSE)
        await after(place, healing.retry.boottime - place.clock.boottime - 0.05)
        assert len(place.launcher.trees) == number
        await becomes(place, made, lambda i, n=number: i.healing.in_a_row == n + 1)
    failed = await place.until(made.name, FAILED)
    assert failed.failure is not None
    assert failed.failure.reason == "RESTART_LOOP"
    assert "failed 5 times within 600 s" in failed.failure.message
    assert place.promises.durable.device("U-gpu0").granted_bytes == 0


async def test_a_healthy_spell_forgets_what_was(place: Town) -> None:
    made = await serving(place)
    for number in range(1, 5):
        await fallen(place, made)
        await after(place, 10.0)
        await up_again(place, made, number)
    assert now(place, made).healing.in_a_row == 4
    await after(place, 601.0)
    down = await fallen(place, made)
    assert (down.state, down.healing.in_a_row) == (BACKOFF, 1)


async def test_a_device_that_still_shows_the_old_engine_s_bytes_does_not_count(
    place: Town,
) -> None:
    made = await serving(place)
    promised = made.footprint.total_bytes if made.footprint else 0
    place.show(sample(0, used=24 * GIB - promised + 1))
    await fallen(place, made)
    down = await becomes(place, made, lambda i: "used there without a" in i.healing.cause)
    assert (down.state, down.healing.in_a_row) == (BACKOFF, 1)
    place.show(CARD)
    up = await becomes(place, made, lambda i: i.state is READY)
    assert len(up.healing.failures) == 1


async def test_memory_that_somebody_else_took_counts_once_the_device_had_its_time(
    place: Town,
) -> None:
    made = await serving(place)
    place.show(sample(0, used=24 * GIB))
    await fallen(place, made)
    gone = place.clock.boottime
    await becomes(place, made, lambda i: i.healing.in_a_row == 2)
    assert place.clock.boottime - gone > float(place.house.policy.release_deadline) - 1.0


class Unwritable(Promises):
    """Whose store takes nothing while it is full."""

    is_full = False

    def commit(
        self,
        change: Change,
        rows: tuple[Row, ...] = (),
        on_durable: Callable[[], None] = lambda: None,
    ) -> asyncio.Future[Committed]:
        if not self.is_full:
            return super().commit(change, rows, on_durable)
        refused: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        refused.set_exception(StoreReadOnly(cause="full"))
        refused.exception()
        return refused


async def test_a_full_disk_holds_up_a_restart_and_counts_for_nothing(
    tmp_path: Path, tiny_model: Path
) -> None:
    async with town(tmp_path, tiny_model, (CARD,), promises=Unwritable) as place:
        made = await serving(place)
        promises = place.promises
        assert isinstance(promises, Unwritable)
        promises.is_full = True
        fall(place)
        for _ in range(20):
            await after(place, 1.0)
        assert len(place.launcher.trees) == 1  # nothing starts without its record
        promises.is_full = False
        up = await becomes(place, made, lambda i: i.restarts == 1 and i.state is READY)
        assert len(up.healing.failures) == 1


async def test_restart_never_is_a_failure(place: Town, tiny_model: Path) -> None:
    tiny = replace(place.house.catalogue.get("tiny"), restart=False)
    place.house.catalogue = Catalogue({"tiny": tiny}, [tiny_model.parent])
    made = await serving(place)
    failed = await fallen(place, made)
    assert failed.state is FAILED
    assert failed.failure is not None
    assert failed.failure.reason == "ENGINE_EXITED"


# Stops.


async def test_an_unload_while_it_waits_ends_it(place: Town) -> None:
    made = await serving(place)
    await fallen(place, made)
    place.roster.stop(made.name, StopOrder(actor="anna", grace_seconds=0.0, force=False))
    ended = await place.until(made.name, STOPPED, FAILED)
    assert (ended.state, ended.failure) == (STOPPED, None)
    assert place.promises.durable.device("U-gpu0").granted_bytes == 0
    await after(place, 30.0)
    assert len(place.launcher.trees) == 1


async def test_an_unload_while_it_is_started_again_ends_it(place: Town) -> None:
    made = await serving(place)
    place.engine.ready = False
    await fallen(place, made)
    await becomes(place, made, lambda i: i.state is InstanceState.LOADING)
    place.roster.stop(made.name, StopOrder(actor="anna", grace_seconds=0.0, force=False))
    ended = await place.until(made.name, STOPPED, FAILED)
    assert (ended.state, ended.failure) == (STOPPED, None)
    assert not any(tree.lives for tree in place.launcher.trees)


async def test_descendants_that_outlive_their_engine_are_ended_before_the_next(
    place: Town,
) -> None:
    place.launcher.behaviour = Behaviour(leaves_descendants=True)
    made = await serving(place)
    first = place.launcher.trees[0]
    fall(place)
    assert first.lives
    await rounds(place)
    assert not first.lives
    await after(place, 1.0)
    await up_again(place, made)


# Stuck.


async def test_in_flight_without_progress_is_ended_and_started_again(place: Town) -> None:
    made = await serving(place)
    place.engine.told = replace(IDLE, running=2)
    await after(place, 59.0)
    assert now(place, made).state is READY
    signs = place.roster.signs(made.id)
    assert signs is not None
    assert (signs.verdict, signs.busy, signs.running) == (Verdict.BUSY, True, 2)
    await becomes(place, made, lambda i: i.state is not READY)
    place.engine.told = IDLE
    await after(place, 1.0)
    await up_again(place, made)
    told = events(place, made)
    assert told.index("instance.stuck") < told.index("instance.ailing")
    assert not place.launcher.trees[0].lives
    assert place.launcher.trees[0].terminated == 0  # not asked: it would not listen


async def test_idle_and_without_a_token_three_times_is_stuck(place: Town) -> None:
    made = await serving(place)
    place.engine.probe_fails = True
    await becomes(place, made, lambda i: i.state is not READY)
    assert place.engine.probes == 3
    place.engine.probe_fails = False
    await after(place, 1.0)
    await up_again(place, made)


async def test_nobody_is_probed_that_works_sleeps_or_might_want_to_sleep(place: Town) -> None:
    made = await serving(place, options=ModelOptions(sleep_idle_seconds=30))
    await after(place, 300.0)
    assert place.engine.probes == 0
    place.engine.told = replace(IDLE, sleeping=True)
    await after(place, 10.0)
    signs = place.roster.signs(made.id)
    assert signs is not None
    assert signs.verdict is Verdict.SLEEPING


async def test_nobody_is_probed_on_a_device_that_is_measured(place: Town) -> None:
    await serving(place)
    place.house.quiet.hold(["U-gpu0"])
    await after(place, 300.0)
    assert place.engine.probes == 0
    place.house.quiet.release(["U-gpu0"])
    await after(place, 10.0)
    assert place.engine.probes == 1


async def test_its_idle_time_goes_on_in_the_next_life_of_the_daemon(place: Town) -> None:
    """Written down at first, then at most every 30 s; without a ttl never."""
    place.engine.told = replace(IDLE, holds_contexts=True)
    made = await serving(place, idle_ttl_seconds=600.0)
    first = now(place, made).use
    assert first is not None
    place.engine.told = replace(place.engine.told, progress=2.0)
    await after(place, 10.0)
    assert now(place, made).use == first
    await after(place, 30.0)
    second = now(place, made).use
    assert second is not None
    assert (second.progress, second.moment.boottime > first.moment.boottime) == (2.0, True)
    forever = await serving(place)
    assert now(place, forever).use is None


async def test_a_reading_that_nobody_can_make_sense_of_ends_nothing(place: Town) -> None:
    made = await serving(place)
    place.engine.told = "nonsense"  # type: ignore[assignment]
    await after(place, 30.0)
    assert now(place, made).state is READY


async def test_a_model_that_left_the_catalogue_is_watched_without_probes(place: Town) -> None:
    made = await serving(place)
    life = place.roster._lives[made.id]
    place.house.catalogue = Catalogue({}, [])
    await after(place, 200.0)
    assert now(place, made).state is READY
    assert life.signs is not None


# For want of memory.


async def test_the_second_oom_is_the_last(place: Town, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "proc").mkdir(parents=True)
    place.house.kernel = Kernel(root=root)

    def kills(count: int) -> None:
        (root / "proc/vmstat").write_text(f"oom_kill {count}\n")

    kills(0)
    made = await serving(place)
    kills(1)
    down = await fallen(place, made)
    assert (down.state, down.healing.ooms) == (BACKOFF, 1)
    assert "the host was out of memory" in down.exit_meaning
    await after(place, 1.0)
    await up_again(place, made)
    await fallen(place, made)  # by somebody's hand: no new kill of the kernel's
    assert now(place, made).healing.ooms == 1
    await after(place, 3.0)
    await up_again(place, made, 2)
    kills(2)
    fall(place)
    failed = await place.until(made.name, FAILED)
    assert failed.failure is not None
    assert failed.failure.reason == "OOM"
    assert "ran out of memory 2 times" in failed.failure.message


# Idle.


async def test_it_is_unloaded_when_nobody_used_it_for_its_time(place: Town) -> None:
    made = await serving(place, idle_ttl_seconds=100.0)
    await after(place, 90.0)
    place.engine.told = replace(IDLE, progress=9.0)  # a request came and went
    await after(place, 90.0)
    assert now(place, made).state is READY
    signs = place.roster.signs(made.id)
    assert signs is not None
    assert signs.idle_deadline_wall == pytest.approx(place.clock.wall + 10.0, abs=6.0)
    await after(place, 20.0)
    await place.until(made.name, STOPPED)
    assert "instance.stopping" in events(place, made)


async def test_never_while_a_request_is_in_flight(place: Town) -> None:
    made = await serving(place, idle_ttl_seconds=20.0)
    for step in range(40):
        place.engine.told = replace(IDLE, running=1, progress=float(step))
        await after(place, 5.0)
    assert now(place, made).state is READY
    signs = place.roster.signs(made.id)
    assert signs is not None
    assert signs.idle_deadline_wall is None
    place.engine.told = replace(IDLE, progress=39.0)
    await after(place, 30.0)
    await place.until(made.name, STOPPED)


@pytest.mark.parametrize(
    "asked", [{"idle_ttl_seconds": 20.0, "pinned": True}, {"idle_ttl_seconds": None}]
)
async def test_pinned_or_without_a_time_it_stays(place: Town, asked: dict[str, object]) -> None:
    made = await serving(place, **asked)
    await after(place, 100.0)
    assert now(place, made).state is READY


async def test_counters_that_are_not_told_unload_nothing(place: Town) -> None:
    place.engine.told = None
    made = await serving(place, idle_ttl_seconds=20.0)
    await after(place, 100.0)
    assert now(place, made).state is READY


# Where its bytes are.


async def test_one_that_runs_on_the_cpu_is_degraded_until_its_bytes_are_there(
    place: Town,
) -> None:
    place.engine.weights = 4 * GIB
    made = await serving(place)
    await after(place, 6.0)
    signs = place.roster.signs(made.id)
    assert signs is not None
    assert signs.verdict is Verdict.DEGRADED
    assert signs.reason == "it runs on the CPU: 0 B of 4 GiB are on gpu0"
    held = now(place, made)
    own = process(held.pid or 0, 4 * GIB, held.reservation)
    place.show(sample(0, used=4 * GIB, processes=(own,)))
    await after(place, 6.0)
    signs = place.roster.signs(made.id)
    assert signs is not None
    assert signs.verdict is Verdict.IDLE
    told = events(place, made)
    assert told.index("instance.degraded") < told.index("instance.recovered")
    assert now(place, made).restarts == 0


# Reset.


async def given_up(place: Town) -> Instance:
    place.house.health = Health(breaker_failures=1)
    made = await serving(place)
    fall(place)
    await place.until(made.name, FAILED)
    await rounds(place)
    return now(place, made)


def call(id_: str = "") -> Call:
    return Call(method="ResetInstance", request_id=id_, digest="d")


async def test_what_was_given_up_is_loaded_anew_in_a_promise_of_its_own(place: Town) -> None:
    failed = await given_up(place)
    told = await place.roster.reset(failed.name, "anna", call("once"))
    assert told.name == failed.name
    up = await place.until(failed.name, READY)
    assert (up.state, up.failure, up.end_wall) == (READY, None, None)
    assert up.reservation != failed.reservation
    assert up.owner == failed.owner
    assert up.terms == ON_CARD
    assert (up.healing.given_up, up.restarts) == (None, 1)
    again = await place.roster.reset(failed.name, "anna", call("once"))
    assert again.reservation == up.reservation
    with pytest.raises(WrongState, match="only one that failed"):
        await place.roster.reset(failed.name, "anna", call("twice"))


async def test_a_reset_that_fails_may_be_repeated(place: Town) -> None:
    failed = await given_up(place)
    place.engine.missing = True
    await place.roster.reset(failed.name, "anna", call())
    await place.until(failed.name, FAILED)
    await rounds(place)
    place.engine.missing = False
    await place.roster.reset(failed.name, "anna", call())
    await place.until(failed.name, READY)


async def test_who_follows_a_reset_that_could_not_be_recorded_is_not_left_waiting(
    place: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = await given_up(place)
    done: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(place.promises, "commit", lambda *_: done)
    asking = asyncio.ensure_future(place.roster.reset(failed.name, "anna", call()))
    await asyncio.sleep(0)
    follow = place.roster.follow(failed.name, from_start=True)
    following = asyncio.ensure_future(anext(aiter(follow), None))
    await asyncio.sleep(0)
    done.set_exception(StoreReadOnly(cause="as told"))
    with pytest.raises(StoreReadOnly):
        await asking
    assert await asyncio.wait_for(following, PATIENCE_SECONDS) is None
    assert now(place, failed).state is FAILED


async def test_an_adopted_engine_that_ends_before_its_turn_is_not_waited_with(
    place: Town,
) -> None:
    made = await serving(place)
    life = place.roster._lives[made.id]
    tree = await place.launcher.spawn(place.launcher.trees[-1].spec)
    await tree.go()
    async with place.house.turns.take(made.devices, "another", lambda *_: None):
        going_on = asyncio.ensure_future(Load(life, ON_CARD).go_on(tree))
        await rounds(place)
        assert not going_on.done()
        tree.end(3)
        with pytest.raises(EngineExited, match="exited with code 3"):
            await asyncio.wait_for(going_on, PATIENCE_SECONDS)


async def test_a_load_that_failed_is_loaded_and_not_reset(place: Town) -> None:
    place.engine.missing = True
    name = await place.load(ON_CARD)
    await place.until(name, FAILED)
    with pytest.raises(WrongState, match="gpuctl load tiny"):
        await place.roster.reset(name, "anna", call())
    with pytest.raises(InstanceNotFound):
        await place.roster.reset("nobody", "anna", call())


async def test_one_that_waits_is_started_at_once(place: Town) -> None:
    made = await serving(place)
    for number in range(1, 4):
        await fallen(place, made)
        await after(place, 5.0)
        await up_again(place, made, number)
    await fallen(place, made)
    assert now(place, made).state is BACKOFF
    await place.roster.reset(made.name, "anna", call())
    await rounds(place)
    up = await place.until(made.name, READY)
    assert (up.healing.failures, up.healing.in_a_row) == ((), 0)
    assert up.reservation == made.reservation


async def test_what_was_given_up_stays_listed_for_a_day(place: Town) -> None:
    failed = await given_up(place)
    place.clock.advance(3600.0)
    place.roster.forget_ended()
    assert now(place, failed).state is FAILED
    place.clock.advance(24 * 3600.0)
    place.roster.forget_ended()
    with pytest.raises(InstanceNotFound):
        now(place, failed)


# Who follows.


async def test_who_comes_after_a_restart_is_told_of_that_start_alone(place: Town) -> None:
    made = await serving(place)
    for number in range(1, 4):
        await fallen(place, made)
        await after(place, 5.0)
        await up_again(place, made, number)
    told = []
    async with aclosing(place.roster.follow(made.name, from_start=True)) as steps:
        async for each in steps:
            told.append(each.phase)
            if len(told) > 1 and each.phase is LoadPhase.READY:
                break
    assert told.count(LoadPhase.WARMUP) == 1


# Who asks for the same.


async def test_who_asks_for_just_what_is_being_loaded_gets_that_load(place: Town) -> None:
    place.engine.ready = False
    first = await place.load(ON_CARD)
    assert await place.load(ON_CARD) == first
    others = {
        await place.load(ON_CARD, owner="bert"),
        await place.load(ON_CARD, options=ModelOptions(threads=2)),
        await place.load(LoadTerms()),
        await place.load(ON_CARD, pinned=True),
    }
    assert len(others | {first}) == 5
    place.engine.ready = True
    await after(place, 1.0)
    await place.until(first, READY)
    assert await place.load(ON_CARD) != first


async def test_nobody_joins_a_load_that_is_being_stopped(place: Town) -> None:
    place.engine.ready = False
    first = await place.load(ON_CARD)
    place.roster.stop(first, StopOrder(actor="anna", grace_seconds=0.0, force=True))
    assert await place.load(ON_CARD) != first


async def test_a_request_that_joined_leads_to_the_same_again(place: Town) -> None:
    place.engine.ready = False
    first = await place.load(ON_CARD)
    request = place.roster._asked[first]
    asked = Call(method="LoadModel", request_id="r", digest="d")
    assert await place.roster.load(request, asked) == first
    place.engine.ready = True
    await after(place, 1.0)
    await place.until(first, READY)
    assert await place.roster.load(request, asked) == first


def test_the_record_is_stored_whole() -> None:
    moment = Moment(boot_id="b", boottime=1.0, wall=2.0)
    fault = Fault(cause="x", is_oom=True, luck=0.1)
    record = failed(up(Healing(), moment), fault, moment, Health())
    assert msgspec.json.decode(msgspec.json.encode(record), type=Healing) == record
