"""A notice of preemption: the instance serves on until its stop must begin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpud.instances.instance import Instance, InstanceState
from gpud.instances.life import StopOrder
from gpud.instances.terms import LoadTerms
from gpud.ledger.reservation import Priority
from gpud.promises.requests import Call
from tests.fakes.cards import GIB, sample
from tests.instances.town import PATIENCE_SECONDS, Town, town
from tests.ledger.desk import asking

GRACE_SECONDS = 30.0
VICTIM = LoadTerms(devices=("U-gpu0",), priority=Priority.BATCH, preemptible=True)
CALL = Call(method="Reserve")


@pytest.fixture
async def place(tmp_path: Path, tiny_model: Path) -> AsyncIterator[Town]:
    """A card on which only what may be ended is in the way of 24 GiB."""
    terms = {"grace_seconds": GRACE_SECONDS, "min_tenure_seconds": 0.0, "ratio": 1e6}
    async with town(tmp_path, tiny_model, (sample(0),), preemption=terms) as made:
        yield made


async def noticed(place: Town, name: str) -> Instance:
    """The instance serves, and somebody of a higher class waits for its bytes."""
    made = await place.until(name, InstanceState.READY)
    request = asking(24, priority=Priority.CRITICAL, max_wait_seconds=3600.0)
    await place.promises.reserve(request, "urgent", CALL)
    held = place.promises.durable.reservations[made.reservation or ""]
    assert held.notice is not None
    await rounds()
    return made


async def rounds() -> None:
    """Whoever was woken has had its turns."""
    for _ in range(50):
        await asyncio.sleep(0)


async def after(place: Town, seconds: float) -> None:
    place.clock.advance(seconds)
    place.show()
    await rounds()


async def test_a_notice_that_is_withdrawn_leaves_no_mark(place: Town) -> None:
    made = await noticed(place, await place.load(VICTIM))
    await after(place, GRACE_SECONDS - 5.5)
    assert place.roster.get(made.name).state is InstanceState.READY
    await place.promises.release("urgent", None, CALL)
    await after(place, 3600.0)
    place.promises.expire()
    await rounds()
    assert place.roster.get(made.name).state is InstanceState.READY
    assert place.launcher.trees[0].terminated == 0


async def test_the_stop_is_ordered_as_late_as_it_may_be(place: Town) -> None:
    made = await noticed(place, await place.load(VICTIM))
    await after(place, GRACE_SECONDS - 5.0)
    stopped = await place.until(made.id, InstanceState.STOPPED)
    assert stopped.failure is None
    async with asyncio.timeout(PATIENCE_SECONDS):
        granted = await place.promises.admitted("urgent")
    assert granted is not None
    assert granted.grants[0].bytes == 24 * GIB


async def test_a_second_notice_counts_from_anew(place: Town) -> None:
    made = await noticed(place, await place.load(VICTIM))
    await after(place, 20.0)
    await place.promises.release("urgent", None, CALL)
    again = asking(24, priority=Priority.CRITICAL, max_wait_seconds=3600.0)
    await place.promises.reserve(again, "again", CALL)
    await rounds()
    await after(place, 20.0)
    assert place.roster.get(made.name).state is InstanceState.READY
    await after(place, 5.0)
    await place.until(made.id, InstanceState.STOPPED)


async def test_one_that_is_unloaded_meanwhile_is_stopped_as_its_owner_says(place: Town) -> None:
    made = await noticed(place, await place.load(VICTIM))
    place.roster.stop(made.name, StopOrder(actor="anna", grace_seconds=0.0, force=True))
    await place.until(made.id, InstanceState.STOPPED)
    await after(place, GRACE_SECONDS)
    assert place.roster._lives[made.id].order == StopOrder(
        actor="anna", grace_seconds=0.0, force=True
    )
