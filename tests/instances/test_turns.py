"""One load at a time on a device, in the order in which they came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest

from gpud.instances.starting.turns import Turns


class Street:
    """Loads that wait for their turns, and what they were told."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.began: list[str] = []
        self.told: list[tuple[str, str, str]] = []  # who, device, holder
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, *uuids: str) -> None:
        """Begin a load, and let everybody go as far as they can."""
        self.ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.ensure_future(self._load(name, uuids))
        await settled()

    async def _load(self, name: str, uuids: Iterable[str]) -> None:
        def tell(uuid: str, holder: str) -> None:
            self.told.append((name, uuid, holder))

        async with self.turns.take(uuids, name, tell):
            self.began.append(name)
            await self.ends[name].wait()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await settled()

    async def stop(self, name: str) -> None:
        self.tasks[name].cancel()
        await settled()


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def street() -> AsyncIterator[Street]:
    street = Street()
    async with asyncio.timeout(60):
        yield street
    for task in street.tasks.values():
        task.cancel()
    await asyncio.gather(*street.tasks.values(), return_exceptions=True)


async def test_the_second_waits_and_is_told_for_whom(street: Street) -> None:
    await street.come("a", "gpu0")
    await street.come("b", "gpu0")
    assert (street.began, street.told) == (["a"], [("b", "gpu0", "a")])
    await street.end("a")
    assert street.began == ["a", "b"]
    assert street.turns.holder("gpu0") == "b"


async def test_other_devices_do_not_wait(street: Street) -> None:
    await street.come("a", "gpu0")
    await street.come("b", "gpu1")
    assert (street.began, street.told) == (["a", "b"], [])


async def test_they_come_in_order_and_the_wait_is_told_anew(street: Street) -> None:
    for name in "abc":
        await street.come(name, "gpu0")
    await street.end("a")
    await street.end("b")
    assert street.began == ["a", "b", "c"]
    assert [told for told in street.told if told[0] == "c"] == [
        ("c", "gpu0", "a"),
        ("c", "gpu0", "b"),
    ]


async def test_who_stops_while_waiting_is_passed_over(street: Street) -> None:
    for name in "abc":
        await street.come(name, "gpu0")
    await street.stop("b")
    await street.end("a")
    assert street.began == ["a", "c"]


async def test_who_stops_in_the_moment_of_its_turn_gives_it_on(street: Street) -> None:
    for name in "abc":
        await street.come(name, "gpu0")
    street.ends["a"].set()
    await asyncio.sleep(0)  # its lock is released; whose turn is next has not run yet
    street.tasks["b"].cancel()
    await settled()
    assert street.began[-1] == "c"


async def test_a_failure_gives_the_turn_on(street: Street) -> None:
    with pytest.raises(ValueError, match="broken"):
        async with street.turns.take(["gpu0"], "a", lambda *_: None):
            raise ValueError("broken")
    assert street.turns.holder("gpu0") is None
    await street.come("b", "gpu0")
    assert street.began == ["b"]


async def test_nobody_waits_in_a_circle(street: Street) -> None:
    await street.come("a", "gpu1", "gpu0")
    await street.come("b", "gpu0", "gpu1", "gpu1")
    await street.come("c", "gpu1", "gpu0")
    for name in "abc":
        await street.end(name)
    assert street.began == ["a", "b", "c"]
    assert all(street.turns.holder(uuid) is None for uuid in ("gpu0", "gpu1"))
