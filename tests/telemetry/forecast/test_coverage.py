"""The interval holds the truth as often as it claims, and what is told of the past is true."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from gpud.telemetry.forecast.forecast import Subject, temperature_forecast
from gpud.telemetry.forecast.outlook import (
    CONFIDENCE,
    LEAST_HORIZONS,
    STEPS,
    Outlook,
    Past,
    TooLittle,
    outlook,
)
from tests.telemetry.forecast.courses import CHANGING, MADE_UP, recorded

# Ten minutes a step, so that a day is 144: the default horizon of an hour.
STEP = 600.0
# Of 150 courses 80 % are held with a deviation of 3.3 points: three of them.
TOLERANCE = 0.1
COURSES = 150


def foretold(values: Sequence[float], step: float = STEP) -> Outlook:
    found = outlook(Past(step=step, values=values))
    assert isinstance(found, Outlook)
    return found


def held(values: Sequence[float], step: float = STEP) -> bool:
    """Whether the last value lies where all but the last horizon tell."""
    told = foretold(values[:-STEPS], step)
    return told.low <= values[-1] <= told.high


@pytest.mark.parametrize("course", MADE_UP)
def test_it_covers_what_it_claims(course: str) -> None:
    told = [held(MADE_UP[course](Random(seed), 120 + STEPS)) for seed in range(COURSES)]
    assert sum(told) / COURSES >= CONFIDENCE - TOLERANCE


@pytest.mark.parametrize("course", ["heat", "daily", "noise"])
def test_what_bounds_heat_costs_no_coverage(course: str) -> None:
    told = 0
    for seed in range(COURSES):
        values = [min(max(each, 15.0), 110.0) for each in MADE_UP[course](Random(seed), 96)]
        card = Subject(
            device="u", alias="gpu0", now_wall=0.0, now=values[-1 - STEPS], steps=STEPS, step=STEP
        )
        found = temperature_forecast(card, Past(step=STEP, values=values[:-STEPS]), 85)
        assert found.low is not None
        assert found.high is not None
        told += found.low <= values[-1] <= found.high
    assert told / COURSES >= CONFIDENCE - TOLERANCE


@pytest.mark.parametrize("course", CHANGING)
def test_it_covers_what_changed_its_ways(course: str) -> None:
    told = [held(CHANGING[course](Random(seed), 180, STEPS)) for seed in range(COURSES // 3)]
    assert sum(told) / len(told) >= CONFIDENCE - TOLERANCE


@pytest.mark.parametrize("age", range(STEPS, 5 * STEPS))
def test_growth_that_began_a_horizon_ago_is_followed(age: int) -> None:
    """Its interval is never without width before two horizons, and no wider than its moves."""
    values = [300.0] * 150 + [300.0 + 200 * at for at in range(1, age + 1)]
    told = foretold(values)
    assert told.method == "drift"
    assert told.path[-1] == pytest.approx(values[-1] + 200 * STEPS)
    assert told.low <= told.path[-1] <= told.high <= told.path[-1] + 200 * STEPS + 1e-6
    assert told.high > told.low or age >= 2 * STEPS


@pytest.mark.parametrize("course", MADE_UP)
def test_the_past_coverage_is_near_what_is_claimed_after_days(course: str) -> None:
    shares = [
        share
        for seed in range(6)
        if (share := foretold(MADE_UP[course](Random(seed), 360)).past_coverage) is not None
    ]
    assert len(shares) == 6
    assert all(CONFIDENCE - 0.06 <= share <= CONFIDENCE + 0.12 for share in shares)


@pytest.mark.parametrize("course", ["ramp", "noise", "leak", "daily"])
def test_with_the_least_past_it_covers_as_well(course: str) -> None:
    least = LEAST_HORIZONS * STEPS + 1
    told = [held(MADE_UP[course](Random(seed), least + STEPS)) for seed in range(COURSES)]
    assert sum(told) / COURSES >= CONFIDENCE - TOLERANCE


def test_it_covers_a_recorded_course() -> None:
    values = recorded()
    least = LEAST_HORIZONS * STEPS + 1
    ends = range(least, len(values) - STEPS + 1)
    told = [held(values[: end + STEPS], step=10.0) for end in ends]
    assert len(told) > 60
    assert sum(told) / len(told) >= CONFIDENCE - TOLERANCE


def test_intervals_are_no_wider_than_they_need() -> None:
    """On noise of 3 about a level 80 % lie within 1.28 deviations of it."""
    widths = [
        told.high - told.low
        for seed in range(30)
        for told in [foretold(MADE_UP["noise"](Random(seed), 360))]
    ]
    assert sum(widths) / len(widths) < 1.25 * (2 * 1.28 * 3)


def test_a_ramp_is_followed_and_a_level_is_kept() -> None:
    straight = foretold([3.0 * at for at in range(60)])
    assert straight.path == pytest.approx([3.0 * at for at in range(60, 66)])
    assert straight.past_error == pytest.approx(0, abs=1e-9)
    flat = foretold([5.0] * 60)
    assert (flat.low, flat.path[-1], flat.high) == (5.0, 5.0, 5.0)


def test_loads_are_not_taken_for_a_trend() -> None:
    """What promises use is known to stay; beside it a leak of 1 a step goes on."""
    base = [0.0] * 40 + [80.0] * 20
    values = [at + part for at, part in enumerate(base)]
    told = outlook(Past(step=STEP, values=values, base=base))
    assert isinstance(told, Outlook)
    assert told.path[-1] == pytest.approx(values[-1] + STEPS)


@pytest.mark.parametrize("known", [0, 1, LEAST_HORIZONS * STEPS])
def test_too_little_is_refused_with_what_is_there_and_what_is_needed(known: int) -> None:
    told = outlook(Past(step=STEP, values=[1.0] * known))
    assert told == TooLittle(
        have_seconds=max(0, known - 1) * STEP, need_seconds=LEAST_HORIZONS * STEPS * STEP
    )


def test_a_series_that_has_ended_is_refused() -> None:
    told = outlook(Past(step=STEP, values=[*([1.0] * 60), None, None, None]))
    assert isinstance(told, TooLittle)
    assert isinstance(outlook(Past(step=STEP, values=[*([1.0] * 60), None])), Outlook)


def test_gaps_part_the_past_and_small_holes_do_not() -> None:
    values: list[float | None] = [float(at) for at in range(120)]
    for at in (20, 21, 60, 61, 62, 63, 64):
        values[at] = None
    told = outlook(Past(step=STEP, values=values))
    assert isinstance(told, Outlook)
    assert told.path[-1] == pytest.approx(119 + STEPS)
    assert told.past_seconds == (59 + 54) * STEP
