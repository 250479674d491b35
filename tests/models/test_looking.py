"""Looks at files: so many at once, and what hangs, or cannot begin, holds nobody else up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from gpud.models.looking import _AT_ONCE, Looking, LookOverdue
from gpud.threads import ThreadRefused
from tests.fakes.threads import none_left

PATIENCE_SECONDS = 60.0
LIMIT_SECONDS = 0.2


@pytest.fixture
def released() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def hanging(released: threading.Event) -> Callable[[], str]:
    def work() -> str:
        released.wait(PATIENCE_SECONDS)
        return "late"

    return work


def good() -> str:
    return "good"


async def test_as_many_hung_shares_as_there_are_places_hold_up_no_other(
    released: threading.Event,
) -> None:
    looking = Looking(LIMIT_SECONDS)
    paths = [f"nfs{number}" for number in range(_AT_ONCE)]
    hung = [asyncio.ensure_future(looking.at(path, hanging(released))) for path in paths]
    await asyncio.sleep(0)
    # It comes when all places are taken; that it waits is not its own disk's fault.
    assert await looking.at("local", good) == "good"
    for each in hung:
        with pytest.raises(LookOverdue, match="its disk hangs"):
            await each
    for path in paths:
        with pytest.raises(LookOverdue, match="hangs still"):
            await looking.at(path, good)


async def test_who_waited_behind_one_that_hangs_begins_no_other_at_it(
    released: threading.Event,
) -> None:
    looking, begun = Looking(LIMIT_SECONDS), list[str]()

    def work() -> None:
        begun.append("")
        released.wait(PATIENCE_SECONDS)

    both = [asyncio.ensure_future(looking.at("nfs", work)) for _ in range(2 * _AT_ONCE)]
    told = await asyncio.gather(*both, return_exceptions=True)
    assert [type(each) for each in told] == [LookOverdue] * len(told)
    assert len(begun) == _AT_ONCE


async def test_one_that_hung_may_be_looked_at_again_once_it_answers(
    released: threading.Event,
) -> None:
    looking, undone = Looking(LIMIT_SECONDS), asyncio.Queue[str]()
    with pytest.raises(LookOverdue):
        await looking.at("nfs", hanging(released), undone.put_nowait)
    released.set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await undone.get() == "late"
    assert await looking.at("nfs", good) == "good"


async def test_a_look_that_nobody_waits_for_keeps_its_place_only_as_long_as_others(
    released: threading.Event,
) -> None:
    looking = Looking(LIMIT_SECONDS)
    for number in range(_AT_ONCE):
        asked = asyncio.ensure_future(looking.at(f"nfs{number}", hanging(released)))
        await asyncio.sleep(0)
        asked.cancel()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await looking.at("local", good) == "good"


async def test_where_no_thread_starts_nothing_is_held() -> None:
    looking = Looking(PATIENCE_SECONDS)
    with none_left():
        for _ in range(_AT_ONCE + 1):
            with pytest.raises(ThreadRefused, match=r"cannot look at a: .* start no thread"):
                await looking.at("a", good)
    async with asyncio.timeout(PATIENCE_SECONDS / 2):
        assert await looking.at("a", good) == "good"


async def test_what_the_work_raises_is_raised() -> None:
    def work() -> None:
        raise TimeoutError("of the disk's own")

    with pytest.raises(TimeoutError, match="own"):
        await Looking(PATIENCE_SECONDS).at("a", work)
