"""What the daemon foretells of the past that its history has, whenever it is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import cast

import pytest

from gpud.devices.snapshot import Sample
from gpud.instances.life import House
from gpud.instances.roster import Roster
from gpud.settings import History as Settings
from gpud.settings import Policy
from gpud.telemetry.forecast.forecast import Forecast
from gpud.telemetry.forecast.forecasts import Forecasts
from gpud.telemetry.forecast.outlook import CONFIDENCE
from gpud.telemetry.history.history import History
from tests.fakes import cards
from tests.ledger.desk import Desk
from tests.telemetry.forecast.courses import CHANGING, MADE_UP
from tests.telemetry.history.seeding import seed

MIB = 2**20
HOUR = 3600
T0 = 1_700_000_400  # ten minutes, which are a step of an hour ahead, begin here
LAST = 600  # seconds after T0 that are seen

# What is shown so many seconds after T0, or before it.
Shown = Callable[[int], float]


class Asking:
    """Forecasts of cards by the history of a folder."""

    def __init__(self, history: History) -> None:
        desk = Desk()
        self.clock = desk.clock
        house = SimpleNamespace(
            promises=SimpleNamespace(ledger=desk.ledger, durable=desk.ledger.books),
            clock=desk.clock,
            policy=Policy(),
        )
        roster = SimpleNamespace(list=tuple)
        self.forecasts = Forecasts(history, cast(House, house), cast(Roster, roster))

    async def memory(self, after: float, horizon: float, *used: float) -> Sequence[Forecast]:
        """Of gpu0, gpu1, … that use so many bytes so many seconds after T0."""
        self.clock.advance(T0 + after - self.clock.wall)
        samples = [self._card(index, size) for index, size in enumerate(used)]
        return await self.forecasts.forecast(samples, horizon)

    def _card(self, index: int, used: float) -> Sample:
        made = cards.sample(index, boottime=self.clock.boottime)
        info = replace(made.info, uuid=f"SIM-p106-100-{index}")
        return replace(made, info=info, readings=made.readings.changed(memory_used_bytes=used))


@asynccontextmanager
async def asking(folder: Path) -> AsyncIterator[Asking]:
    history = History(Settings(), folder, 0, lambda *_: None)
    history.start()
    try:
        yield Asking(history)
    finally:
        history.close()


def past(folder: Path, hours: int, every: int, *used: Shown) -> None:
    """Written as if it was read in the last second of so many, each time."""

    def course(shown: Shown) -> Callable[[int], float]:
        return lambda before: shown(LAST - before)

    subjects = {f"gpu{at}": {"memory_used_bytes": course(shown)} for at, shown in enumerate(used)}
    seed(folder, T0 + LAST - 1, hours * HOUR + LAST, every, **subjects)


def grown(second: int) -> float:
    """A MiB in each second."""
    return (10 * HOUR + second) * MIB


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("growing")
    past(folder, 8, 10, grown)
    return folder


@pytest.mark.parametrize("horizon", [60, 130, 420, 500, 3600, 5000])
async def test_what_grows_evenly_is_foretold_for_the_very_horizon(
    growing: Path, horizon: int
) -> None:
    """Whenever it is asked: in a minute, and in the ten minutes that are a step of an hour."""
    async with asking(growing) as ask:
        for moment in (0, 10, 150, 300, 590):
            (told,) = await ask.memory(moment, horizon, grown(moment))
            truth = pytest.approx(grown(moment + horizon), abs=MIB / 100)
            assert (told.expected, told.low, told.high) == (truth, truth, truth)


async def test_what_was_loaded_just_now_counts_whole(growing: Path) -> None:
    async with asking(growing) as ask:
        now = grown(590) + 4096 * MIB
        (told,) = await ask.memory(590, HOUR, now)
        assert told.expected is not None
        assert told.expected >= now


async def test_growth_that_began_a_minute_ago_lies_in_the_interval(tmp_path: Path) -> None:
    """It took 20 MiB in each second after an hour in which nothing moved."""

    def shown(second: int) -> float:
        return (300 + 20 * max(0, second)) * MIB

    past(tmp_path, 1, 1, shown)
    async with asking(tmp_path) as ask:
        for moment in (60, 100, 130, 160, 300, 600):
            (told,) = await ask.memory(moment, 60, shown(moment))
            assert told.low is not None
            assert told.high is not None
            assert told.low <= shown(moment + 60) <= told.high
            assert told.high - told.low <= 2 * 60 * 20 * MIB
        for moment in (150, 200):
            (told,) = await ask.memory(moment, 300, shown(moment))
            assert told.method != "last value"
            assert told.high is not None
            assert told.high >= shown(moment + 300)


# Hours of past, seconds between two readings, and how many of each course there are.
HOURS, EVERY, COUNT = 12, 20, 12


def made(course: str, luck: int) -> list[float]:
    length = (HOURS * HOUR + LAST + HOUR) // EVERY
    if course in CHANGING:
        return CHANGING[course](Random(luck), length, HOUR // EVERY)
    return MADE_UP[course](Random(luck), length)


@pytest.mark.parametrize("course", ["ramp", "leak", "noise", "wander", *CHANGING])
async def test_the_interval_holds_the_truth_whenever_it_is_asked(
    tmp_path: Path, course: str
) -> None:
    courses = [made(course, luck) for luck in range(COUNT)]

    def shown(values: Sequence[float]) -> Shown:
        return lambda second: values[(HOURS * HOUR + second) // EVERY]

    each = [shown(values) for values in courses]
    past(tmp_path, HOURS, EVERY, *each)
    held = []
    moments = (0, 80, 220, 340, 580)
    async with asking(tmp_path) as ask:
        for moment in moments:
            told = await ask.memory(moment, HOUR, *(one(moment) for one in each))
            for one, found in zip(each, told, strict=True):
                assert found.low is not None
                assert found.high is not None
                held.append(found.low <= one(moment + HOUR) <= found.high)
    assert len(held) == COUNT * len(moments)
    assert sum(held) / len(held) >= CONFIDENCE - 0.1
