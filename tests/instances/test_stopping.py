"""A stop that is ordered again, with less grace: it counts, and is kept before it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from gpud.access.identity import CALLER, DEED, Caller, Deed, Proof, Role
from gpud.engines.api_key import ApiKey
from gpud.errors import GpudError
from gpud.instances.instance import Instance, InstanceState
from gpud.instances.progress import Progress
from gpud.instances.terms import LoadTerms
from gpud.v1 import instances_pb2 as pb
from tests.fakes.cards import sample
from tests.fakes.store import CrampedStore
from tests.instances.asking import service
from tests.instances.town import PATIENCE_SECONDS, Town, town

ADMIN = Caller(name="anna", role=Role.ADMIN, proof=Proof.USER, origin="a test")
LONG, SHORT = 1000, 100


@pytest.fixture
async def place(tmp_path: Path, tiny_model: Path) -> AsyncIterator[Town]:
    async with town(tmp_path, tiny_model, (sample(0),)) as made:
        yield made


async def busy(endpoint: str, key: ApiKey | None = None) -> int | None:
    """As an engine says that works on a request without end."""
    return 1


async def draining(place: Town) -> Instance:
    """One that is being unloaded with much grace, its order durable."""
    place.engine.in_flight = busy  # type: ignore[method-assign]
    made = await place.until(await place.load(LoadTerms(devices=("U-gpu0",))), InstanceState.READY)
    told = service(place).UnloadModel(
        pb.UnloadModelRequest(instance=made.name, grace=Duration(seconds=LONG)), None
    )
    first = await anext(told)
    assert first.phase == pb.UNLOAD_PHASE_DRAIN
    assert left(place, made) == pytest.approx(LONG, abs=1)
    return made


def left(place: Town, made: Instance) -> float:
    """Seconds of grace that the durable record tells."""
    stopping = place.roster.get(made.name).stopping
    return stopping.drained.remaining_seconds(place.clock.now()) if stopping is not None else 0.0


async def turns() -> None:
    """Everybody has had their turns; nobody gets one from the disk."""
    for _ in range(100):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("again", "expected"),
    [
        (pb.UnloadModelRequest(grace=Duration(seconds=SHORT)), SHORT),
        (pb.UnloadModelRequest(force=True), 0.0),
    ],
)
async def test_a_further_order_is_durable_before_it_is_answered(
    place: Town, again: pb.UnloadModelRequest, expected: float
) -> None:
    CALLER.set(ADMIN)
    DEED.set(Deed())
    made = await draining(place)
    again.instance = made.name
    store = place.promises._store
    assert isinstance(store, CrampedStore)
    store.gate.clear()
    answer = asyncio.ensure_future(anext(service(place).UnloadModel(again, None)))
    await turns()
    assert not answer.done(), "a daemon that died now would go on with the first grace"
    assert left(place, made) == pytest.approx(LONG, abs=1)
    store.gate.set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert (await answer).instance.name == made.name
    assert left(place, made) == pytest.approx(expected, abs=1)
    place.clock.advance(SHORT + 1)
    ended = await place.until(made.name, InstanceState.STOPPED)
    assert ended.end_wall is not None


async def test_an_engine_that_dies_with_a_request_in_flight_is_not_waited_for(
    place: Town,
) -> None:
    CALLER.set(ADMIN)
    DEED.set(Deed())
    made = await draining(place)
    place.launcher.trees[-1].end(-9)
    ended = await place.until(made.name, InstanceState.STOPPED)  # and no time goes by
    assert ended.last_exit is not None
    assert ended.last_exit.signal == 9


async def test_a_drain_in_which_nothing_changes_is_told_once_and_asked_ever_seldomer(
    place: Town,
) -> None:
    CALLER.set(ADMIN)
    DEED.set(Deed())
    asked = 0

    async def counted(endpoint: str, key: ApiKey | None = None) -> int | None:
        nonlocal asked
        asked += 1
        return 1

    made = await draining(place)
    await place.waits(made.name, "1 requests in flight")
    place.engine.in_flight = counted  # type: ignore[method-assign]
    told: list[Progress] = []

    async def follow() -> None:
        async for progress in place.roster.follow(made.name, from_start=False):
            told.append(progress)

    following = asyncio.ensure_future(follow())
    for _ in range(200):
        await turns()
        place.clock.advance(0.05)
    following.cancel()
    assert [each.detail for each in told] == ["1 requests in flight"]
    assert 30 < asked < 60, "in ten seconds"


async def test_who_follows_one_that_cannot_be_brought_down_is_told_so(
    place: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    CALLER.set(ADMIN)
    DEED.set(Deed())
    made = await place.until(await place.load(LoadTerms(devices=("U-gpu0",))), InstanceState.READY)
    watched = service(place).WatchInstance(pb.WatchInstanceRequest(name=made.name), None)
    await anext(watched)

    def fails() -> None:
        raise OSError("as told")

    monkeypatch.setattr(place.launcher.trees[-1], "kill", fails)
    unloading = service(place).UnloadModel(pb.UnloadModelRequest(instance=made.name), None)
    async with asyncio.timeout(PATIENCE_SECONDS):
        for stream in (unloading, watched):
            with pytest.raises(GpudError, match="an internal error"):
                _ = [each async for each in stream]
    assert not place.roster.get(made.name).ended
