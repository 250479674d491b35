"""A past is lined up backwards from now, whatever the steps that the history tells it in."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from statistics import pstdev

import pytest

from gpud.telemetry.forecast.even import Told, lined_up
from gpud.telemetry.history.asking import Answer, Point, Series
from gpud.telemetry.history.fields import BY_NAME

USED, HEAT = BY_NAME["memory_used_bytes"], BY_NAME["temperature_celsius"]
FINE = 60
HORIZON = 3600.0


def told(lasts: Mapping[int, float], end: float, horizon: float = HORIZON) -> Told:
    """Of memory alone: what was seen last in the minutes of these numbers."""
    points = tuple(
        Point(time=at * FINE, count=1, min=last, mean=last, max=last, last=last)
        for at, last in lasts.items()
    )
    seen = (Series(subject="devices/u", field=USED, points=points),) if points else ()
    return lined_up(Answer(series=seen, step=FINE, oldest=None), (USED, HEAT), end, horizon)


@pytest.mark.parametrize("late", [0, 1, 29, 30, 31, 59.5])
def test_what_grows_evenly_does_so_in_equal_steps_up_to_now(late: float) -> None:
    end = 100 * 60 + late
    minutes = {at: 60.0 * (at + 1) for at in range(100)} | ({100: end} if late else {})
    lined = told(minutes, end)
    assert (lined.steps, lined.step) == (6, 600)
    expected = [end - 600 * back for back in range(9, -1, -1)]
    assert lined.values["memory_used_bytes"] == pytest.approx(expected)
    assert lined.values["temperature_celsius"] == [None] * 10


def test_the_newest_is_as_it_is_now_if_that_is_known() -> None:
    lined = told({at: float(at) for at in range(30)}, 30 * 60)
    assert lined.ended("memory_used_bytes", None) == [9, 19, 29]
    assert lined.past("memory_used_bytes", 50).values == [9, 19, 50]


def test_it_knows_what_was_before_its_first_step() -> None:
    young = told(dict.fromkeys(range(3), 7.0), 200.0)
    assert young.past("memory_used_bytes", None).values == [7]
    assert young.past("memory_used_bytes", None).before_seconds == 140  # the first minute's end
    assert young.past("temperature_celsius", None).before_seconds == 0
    assert told({}, 6000).past("memory_used_bytes", None).before_seconds == 0


def test_what_is_a_step_old_is_none() -> None:
    lined = told({at: 7.0 for at in range(100) if not 40 <= at < 60}, 100 * 60 + 30)
    assert lined.values["memory_used_bytes"] == [7, 7, 7, 7, None, 7, 7, 7, 7, 7]
    gone = told(dict.fromkeys(range(20), 7.0), 30 * 60)
    assert gone.values["memory_used_bytes"] == [7, 7, None]


def test_of_nothing_there_is_no_past() -> None:
    assert told({}, 6000).values == {"memory_used_bytes": [], "temperature_celsius": []}


@pytest.mark.parametrize(
    ("horizon", "steps"), [(60, 1), (130, 2), (300, 5), (420, 6), (500, 6), (86400, 6)]
)
def test_steps_divide_the_horizon_and_are_no_finer_than_what_is_kept(
    horizon: float, steps: int
) -> None:
    lined = told(dict.fromkeys(range(20), 7.0), 1200, horizon)
    assert lined.steps == steps
    assert lined.steps * lined.step == pytest.approx(horizon)


def test_noise_stays_as_noisy_between_two_minutes() -> None:
    """Midway between neighbours, the mean of both would have 0.71 of its deviation."""
    luck = Random(1)
    minutes = {at: luck.gauss(0, 1) for at in range(6000)}
    lined = told(minutes, 6000 * 60 - 30)
    values = [value for value in lined.values["memory_used_bytes"] if value is not None]
    assert pstdev(values) > 0.9 * pstdev(minutes.values())
