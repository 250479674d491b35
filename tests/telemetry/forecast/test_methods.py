"""Each method is exact on what it is for, and tells nothing before it has seen enough."""

from __future__ import annotations

import math

import pytest

from gpud.telemetry.forecast.methods import (
    Approach,
    DampedTrend,
    DayBefore,
    Drift,
    LastValue,
    Method,
    candidates,
)

RAMP = [100.0 + 3 * at for at in range(40)]


def last(method: Method, values: list[float], steps: int = 6) -> list[float]:
    """The path from the last value."""
    path = method.ahead(values, steps)[-1]
    assert path is not None
    return path


def test_drift_goes_on_with_a_ramp() -> None:
    assert last(Drift(6), RAMP) == pytest.approx([RAMP[-1] + 3 * k for k in range(1, 7)])


def test_a_damped_trend_comes_near_a_ramp_and_stays_below_it() -> None:
    path = last(DampedTrend(0.7, 0.3, 0.95), RAMP)
    assert RAMP[-1] < path[0] < path[-1] < RAMP[-1] + 18
    assert path[-1] > RAMP[-1] + 12


def test_the_last_value_stays() -> None:
    assert last(LastValue(), [1.0, 5.0], 3) == [5.0] * 3


def test_an_approach_ends_where_a_body_that_warms_ends() -> None:
    # Newton's law: each step goes a fifth of the way to 80 degrees.
    warming = [80 - 40 * 0.8**at for at in range(20)]
    path = last(Approach(12), warming)
    assert path == pytest.approx([80 - 40 * 0.8**at for at in range(20, 26)])


def test_an_approach_of_what_does_not_move_stays() -> None:
    assert last(Approach(12), [50.0] * 13) == [50.0] * 6


def test_an_approach_to_nowhere_is_bounded() -> None:
    path = last(Approach(12), [1.1**at for at in range(20)])
    assert all(math.isfinite(value) for value in path)


def test_the_day_before_is_followed() -> None:
    daily = [50 + 10 * math.sin(2 * math.pi * at / 24) for at in range(60)]
    expected = [50 + 10 * math.sin(2 * math.pi * at / 24) for at in range(60, 66)]
    assert last(DayBefore(24), daily) == pytest.approx(expected)


@pytest.mark.parametrize("method", candidates(6, 24), ids=lambda method: method.name)
@pytest.mark.parametrize("length", [0, 1, 2, 5, 13, 60])
def test_a_path_for_each_point_or_none(method: Method, length: int) -> None:
    paths = method.ahead([float(at) for at in range(length)], 6)
    assert len(paths) == length
    assert all(path is None or len(path) == 6 for path in paths)
    # No path is made of what came after it.
    longer = method.ahead([float(at) for at in range(length)] + [1e9] * 5, 6)
    assert longer[:length] == paths


def test_without_a_day_nothing_is_daily() -> None:
    assert not any(isinstance(each, DayBefore) for each in candidates(6, None))
