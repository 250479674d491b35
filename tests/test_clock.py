"""The kernel's clock: what need not be exact is done when others are awake."""

from __future__ import annotations

import asyncio

import pytest

from gpud.clock import SLACK_SECONDS, SystemClock


class Ahead:
    """The running loop's clock, set forward by a test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        loop = asyncio.get_running_loop()
        real = loop.time
        monkeypatch.setattr(loop, "time", lambda: real() + self.seconds)


async def test_who_waits_about_so_long_goes_on_with_the_beat_next_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ahead, clock = Ahead(monkeypatch), SystemClock()
    waiting = asyncio.create_task(clock.about(600.0))
    await asyncio.sleep(0)
    ahead.seconds = 300.0
    clock.beat()
    await asyncio.sleep(0)
    assert not waiting.done()
    ahead.seconds = 600.0 - SLACK_SECONDS
    clock.beat()
    async with asyncio.timeout(60):
        await waiting


async def test_who_waits_about_so_long_goes_on_without_a_beat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ahead, clock = Ahead(monkeypatch), SystemClock()
    waiting = asyncio.create_task(clock.about(600.0))
    await asyncio.sleep(0)
    ahead.seconds = 600.0 + SLACK_SECONDS
    async with asyncio.timeout(60):
        await waiting


async def test_who_is_cancelled_waits_no_more() -> None:
    clock = SystemClock()
    waiting = asyncio.create_task(clock.about(600.0))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait((waiting,))
    clock.beat()
    assert waiting.cancelled()
