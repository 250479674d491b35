"""The auth socket: everybody may open it, and a name that does not come holds up nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import stat
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from gpud.access import mint as module
from gpud.access.mint import MAX_ASKED, MAX_KNOWN, Mint, Users
from gpud.access.tokens import MINTED_SECONDS
from tests.fakes.clock import FakeClock

# A busy host starts a thread late.
PATIENCE_SECONDS = 60.0


class System:
    """The system's names of users: how often they were asked for; some may hang."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.hanging: set[int] = set()
        self.unknown: set[int] = set()
        self.goes_on = threading.Event()

    def getpwuid(self, uid: int) -> pwd.struct_passwd:
        self.asked.append(uid)
        if uid in self.hanging:
            self.goes_on.wait(60)
        if uid in self.unknown:
            raise KeyError(uid)
        return pwd.struct_passwd((f"u{uid}", "x", uid, uid, "", "/", "/bin/sh"))


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    made = System()
    monkeypatch.setattr(module.pwd, "getpwuid", made.getpwuid)
    monkeypatch.setattr(module, "NAME_SECONDS", PATIENCE_SECONDS)
    yield made
    made.goes_on.set()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@contextlib.asynccontextmanager
async def minting(path: Path, clock: FakeClock) -> AsyncIterator[Mint]:
    mint = Mint(clock, "rig")
    await mint.start(path)
    try:
        yield mint
    finally:
        await mint.stop()


async def told(path: Path) -> dict[str, Any]:
    """What the socket says to us; nothing where it closes without a word."""
    reader, writer = await asyncio.open_unix_connection(path)
    line = await reader.read()
    writer.close()
    return dict(json.loads(line)) if line else {}


# The socket.


async def test_everybody_may_open_it_whatever_the_umask(tmp_path: Path, clock: FakeClock) -> None:
    before = os.umask(0o077)
    try:
        async with minting(tmp_path / "sock", clock):
            assert stat.S_IMODE((tmp_path / "sock").stat().st_mode) == 0o666
            assert (await told(tmp_path / "sock"))["name"].endswith("@rig")
    finally:
        os.umask(before)
    assert not (tmp_path / "sock").exists()


async def test_what_others_make_meanwhile_is_as_they_want_it(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed: list[int] = []
    monkeypatch.setattr(os, "umask", lambda mask: changed.append(mask) or 0o022)
    async with minting(tmp_path / "sock", clock):
        assert changed == []


# Names.


async def test_a_name_is_asked_for_once_in_the_life_of_a_token(
    system: System, clock: FakeClock
) -> None:
    users = Users(clock)
    assert await asyncio.gather(*(users.name(7) for _ in range(5))) == ["u7"] * 5
    clock.advance(MINTED_SECONDS - 1)
    assert await users.name(7) == "u7"
    assert system.asked == [7]
    clock.advance(1)
    assert await users.name(7) == "u7"
    assert system.asked == [7, 7]


async def test_one_without_a_name_is_its_number_and_may_get_one(
    system: System, clock: FakeClock
) -> None:
    users = Users(clock)
    system.unknown.add(7)
    assert await users.name(7) == "7"
    system.unknown.clear()
    assert await users.name(7) == "u7"


async def test_names_are_kept_of_so_many(system: System, clock: FakeClock) -> None:
    users = Users(clock)
    for uid in range(MAX_KNOWN + 1):
        assert await users.name(uid) == f"u{uid}"
    assert len(users._known) == MAX_KNOWN
    assert await users.name(MAX_KNOWN) == f"u{MAX_KNOWN}"
    assert len(system.asked) == MAX_KNOWN + 1
    await users.name(0)
    assert len(system.asked) == MAX_KNOWN + 2


async def test_a_name_that_does_not_come_holds_up_nobody_else(
    system: System, clock: FakeClock
) -> None:
    users = Users(clock)
    system.hanging.add(7)
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
        waits = tasks.create_task(users.name(7))
        await clock_ticks()
        assert await users.name(8) == "u8"
        system.goes_on.set()
    assert waits.result() == "u7"


async def clock_ticks() -> None:
    """The others have had their turn."""
    for _ in range(3):
        turn = asyncio.Event()
        asyncio.get_running_loop().call_soon(turn.set)
        await turn.wait()


async def test_after_a_while_there_is_none_and_that_is_told_once(
    system: System, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "NAME_SECONDS", 0.01)
    system.hanging.add(os.geteuid())
    path = tmp_path / "sock"
    async with minting(path, clock):
        with structlog.testing.capture_logs() as logs:
            assert await told(path) == {}
            assert await told(path) == {}
        assert [(each["event"], each["uid"]) for each in logs] == [("auth.no_name", os.geteuid())]
        assert system.asked == [os.geteuid()]  # one thread, whoever waits
        system.goes_on.set()
        monkeypatch.setattr(module, "NAME_SECONDS", PATIENCE_SECONDS)
        assert (await told(path))["name"] == f"u{os.geteuid()}@rig"


async def test_so_many_threads_hang_and_no_more(
    system: System, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NAME_SECONDS", 0.01)
    system.hanging.update(range(100))
    users = Users(clock)
    assert set(await asyncio.gather(*map(users.name, range(100)))) == {None}
    assert len(users._asked) == MAX_ASKED
    system.goes_on.set()
    monkeypatch.setattr(module, "NAME_SECONDS", PATIENCE_SECONDS)
    await asyncio.wait(set(users._asked.values()))
    assert await users.name(99) == "u99"


async def test_so_many_wait_and_no_more(
    system: System, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    users = Users(clock)
    system.hanging.add(7)
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
        first = [tasks.create_task(users.name(7)) for _ in range(3)]
        await clock_ticks()
        assert await users.name(7) is None
        system.goes_on.set()
    assert [each.result() for each in first] == ["u7"] * 3
