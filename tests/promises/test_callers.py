"""In the course of which call a promise ends, from its order until its bytes are back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpud.events import CAUSE, Cause, Filter, Journal
from gpud.ledger.change import Change
from tests.enforcement.office import Office, process

SHOWN = (process(7, claim="r-1"),)
CALL = ("ReservationService/Release", "let-go")


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    made = Office(tmp_path)
    yield made
    made.close()


async def ends(office: Office) -> list[tuple[str, tuple[str, str]]]:
    """What was told of r-1 after its grant: the type, and the call that it names."""
    await asyncio.wait_for(office.promises.commit(Change()), 60)
    told = await Journal(office.store).page(Filter(subject="reservations/r-1"), None, 100)
    named = [
        (each.type, each.cause or Cause(method="", request_id="", caller="")) for each in told
    ]
    return [
        (type_.removeprefix("reservation."), (cause.method, cause.request_id))
        for type_, cause in reversed(named[:-1])
    ]


async def test_a_release_is_told_with_its_call_until_the_bytes_are_back(office: Office) -> None:
    await office.reserve("r-1")
    office.show(gpu0=SHOWN)
    cause = Cause(method=CALL[0], request_id=CALL[1], caller="anna")
    token = CAUSE.set(cause)
    await office.release("r-1")
    CAUSE.reset(token)
    cause.is_over = True
    assert await ends(office) == [("releasing", CALL)]
    office.show(gpu0=())
    assert await ends(office) == [("releasing", CALL), ("released", CALL)]


async def test_what_names_its_call_itself_keeps_it(office: Office) -> None:
    """As an instance does whose stop goes on after the call that ordered it."""
    await office.reserve("r-1", ttl_seconds=None)
    office.show(gpu0=SHOWN)
    _, change = office.promises.ledger.release("r-1", None, office.clock.now(), holder=True)
    told = Cause(method="InstanceService/UnloadModel", request_id="un1", caller="anna")
    await office.promises.commit(change.caused_by(told))
    office.show(gpu0=())
    of = (told.method, told.request_id)
    assert await ends(office) == [("releasing", of), ("released", of)]


async def test_what_ends_by_itself_names_no_call(
    office: Office,
) -> None:
    await office.reserve("r-1", ttl_seconds=5.0)
    office.show(gpu0=SHOWN)
    office.clock.advance(6.0)
    office.promises.expire()
    office.show(gpu0=())
    assert await ends(office) == [("releasing", ("", "")), ("expired", ("", ""))]
    assert office.promises._ended_by == {}
