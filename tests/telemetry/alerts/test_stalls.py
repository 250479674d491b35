"""gpud itself stood still for a while: what nobody looked at fires nothing, and clears nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpud.devices.snapshot import Health
from gpud.ledger.charge import STALE_SECONDS
from gpud.telemetry.alerts.alert import AlertState
from gpud.telemetry.alerts.alerts import LOOK_SECONDS
from gpud.telemetry.alerts.judge import Judge
from gpud.telemetry.alerts.rules.built_in import BUILT_IN
from gpud.telemetry.alerts.rules.levels import LOW_USE
from gpud.telemetry.alerts.rules.trends import USE_SECONDS, Trends
from tests.enforcement.office import Office
from tests.telemetry.alerts.scenes import START, card, instance, reading, rule, sight
from tests.telemetry.alerts.test_alerts import Watch

P, F, R = AlertState.PENDING, AlertState.FIRING, AlertState.RESOLVED
STALL_SECONDS = STALE_SECONDS + 4.0


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    office = Office(tmp_path)
    made = Watch(office)
    await made.run()
    yield made
    await made.end()
    office.close()


async def pass_by(watch: Watch, seconds: float) -> None:
    """No tick comes in this time."""
    watch.office.clock.advance(seconds)
    for _ in range(5):
        await asyncio.sleep(0)


def stalled(seconds: float) -> list[AlertState]:
    """Of a device that was read as gpud stopped, so long after it went on."""
    judge = Judge([BUILT_IN["stale"]], quiet_seconds=5.0)
    begin = START + STALL_SECONDS
    for at in (begin, begin + seconds):
        judge.look(sight(card(), at=at, watched_since=begin))
    return [each.state for each in judge.alerts()]


async def test_no_device_is_stale_because_gpud_stood_still(watch: Watch) -> None:
    watch.office.show()
    await pass_by(watch, LOOK_SECONDS)
    await pass_by(watch, STALL_SECONDS)
    watch.office.show()
    await pass_by(watch, LOOK_SECONDS)
    assert watch.states() == {}
    for _ in range(int(STALE_SECONDS / LOOK_SECONDS)):
        await pass_by(watch, LOOK_SECONDS)
    assert {each.rule for each in watch.alerts.list()} == {"stale"}


@pytest.mark.parametrize(
    ("seconds", "states"), [(0.5, []), (STALE_SECONDS, []), (STALE_SECONDS + 1, [F])]
)
def test_each_device_has_time_to_answer_once_gpud_goes_on(
    seconds: float, states: list[AlertState]
) -> None:
    assert stalled(seconds) == states


def test_what_is_stale_does_not_cease_to_be_meanwhile() -> None:
    """Nor over a restart: at first it is not known how old its newest reading is."""
    judge = Judge([BUILT_IN["stale"]], quiet_seconds=5.0)
    judge.look(sight(card(at=START - 60)))
    begin = START + 100
    for after in range(10):
        judge.look(sight(card(at=START - 60), at=begin + after, watched_since=begin))
    silent = card(at=begin, health=Health.UNRESPONSIVE)
    for after in range(10):
        judge.look(sight(silent, at=begin + after, watched_since=begin))
    assert [each.state for each in judge.alerts()] == [F]


def states(judge: Judge, watts: float, *seconds: float, watched: float = 0.0) -> list[AlertState]:
    """After each of the looks, at so many seconds after the start."""
    found = []
    for at in (START + each for each in seconds):
        judge.look(sight(card(at=at, power_watts=watts), at=at, watched_since=START + watched))
        (alert,) = judge.alerts()
        found.append(alert.state)
    return found


def test_what_nobody_saw_fires_nothing() -> None:
    judge = Judge([rule(for_seconds=30.0)], quiet_seconds=10.0)
    assert states(judge, 150, 0, 10, 20) == [P, P, P]
    assert states(judge, 150, 3600, 3609, 3610, watched=3600) == [P, P, F]


def test_what_nobody_saw_clears_nothing() -> None:
    judge = Judge([rule()], quiet_seconds=10.0)
    assert states(judge, 150, 0) == [F]
    assert states(judge, 50, 1, 5) == [F, F]
    assert states(judge, 50, 3600, 3605, 3606, watched=3600) == [F, F, R]


def test_use_that_nobody_saw_is_none() -> None:
    trends, told = Trends(), []
    for second in (*range(30), *range(3600, 3632)):
        at = START + second
        shown = sight(
            card(at=at, utilization_percent=20.0),
            at=at,
            instances=[instance()],
            engines={"i-1": reading(at=at, running=1)},
        )
        told.append(trends.see(shown)[LOW_USE].get("devices/U-gpu0"))
    known = int(USE_SECONDS)
    assert told[:known] == [None] * known
    assert told[known + 1] == pytest.approx(20.0)
