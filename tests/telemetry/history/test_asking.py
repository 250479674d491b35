"""How fine it is told, what is refused, and the points that blocks come to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpud.errors import OptionInvalid
from gpud.telemetry.history.asking import (
    MOST_VALUES,
    USUAL_POINTS,
    Asked,
    check,
    series_of,
    step_of,
    steps_for,
)
from gpud.telemetry.history.blocks import COARSE, FINE, MIDDLE, Row, encoded, of_rows, rolled
from gpud.telemetry.history.fields import BY_NAME

HOUR, DAY = 3600, 86400
NOW = 1_700_006_400  # an hour begins here
POWER = BY_NAME["power_watts"]
# After weeks: seconds of 15 minutes, ten seconds of 6 hours, minutes of 28 days.
OLD = {FINE: NOW - 900, MIDDLE: NOW - 6 * HOUR, COARSE: NOW - 28 * DAY}
# It has run for 5 minutes, or for 90 minutes.
YOUNG = {FINE: NOW - 300}
GROWING = {FINE: NOW - 900, MIDDLE: NOW - 90 * 60, COARSE: NOW - 2 * HOUR}


def asked(window: float, step: int | None = None) -> Asked:
    return Asked(subjects=("devices/A",), fields=(POWER,), begin=NOW - window, end=NOW, step=step)


@pytest.mark.parametrize(
    ("oldest", "window", "step", "told"),
    [
        (OLD, 300, None, 1),
        (OLD, 900, None, 2),  # 500 points are enough
        (OLD, HOUR, None, 10),
        (OLD, 6 * HOUR, None, 50),
        (OLD, DAY, None, 180),
        (OLD, 28 * DAY, None, 4860),
        (OLD, 300, 7, 7),
        (OLD, HOUR, 1, 10),  # seconds do not reach back so far
        (OLD, HOUR, 15, 20),
        (OLD, DAY, 10, 60),
        (OLD, DAY, HOUR, HOUR),
        (YOUNG, HOUR, None, 1),  # nothing that is coarser tells more
        (YOUNG, HOUR, 1, 1),
        (GROWING, HOUR, None, 10),
        (GROWING, DAY, None, 20),  # the hour's block holds nothing from before
        ({}, HOUR, None, 8),
    ],
)
def test_the_step_that_is_told(
    oldest: dict[int, int], window: float, step: int | None, told: int
) -> None:
    assert step_of(asked(window, step), oldest) == told


def test_many_series_are_told_coarser() -> None:
    many = replace(asked(900), subjects=tuple(f"devices/{at}" for at in range(600)))
    step = step_of(many, OLD)
    assert 900 / step * 600 <= MOST_VALUES < 900 / (step - 1) * 600
    assert 900 / step < USUAL_POINTS


def test_a_year_of_seconds_is_refused_with_numbers() -> None:
    with pytest.raises(OptionInvalid) as refused:
        check(asked(365 * DAY, 1))
    assert str(refused.value) == (
        "cannot accept step: 31536000 s in steps of 1 s are 31536000 points of each of 1 series, "
        "and at most 11000 fit; ask for a step of at least 2867 s, a window of at most 11000 s, "
        "or fewer series"
    )
    check(asked(365 * DAY, 2867))
    check(asked(11_000, 1))
    check(asked(365 * DAY))


def test_a_field_that_a_subject_has_not_is_no_series() -> None:
    mixed = replace(asked(HOUR), subjects=("devices/A", "host"), fields=(POWER,))
    assert mixed.series_count == 1


def test_only_steps_that_fit_are_gathered() -> None:
    assert steps_for(1) == (FINE,)
    assert steps_for(15) == (FINE,)
    assert steps_for(20) == (FINE, MIDDLE)
    assert steps_for(600) == (FINE, MIDDLE, COARSE)


def rows(begin: int, count: int) -> list[tuple[int, Row]]:
    return [(begin + s, (float(s),)) for s in range(count)]


def test_points_come_from_the_coarsest_and_then_from_finer_blocks() -> None:
    begin = NOW - HOUR
    older = [of_rows(FINE, (POWER.number,), rows(begin, 300))]
    packed = {
        (MIDDLE, begin): encoded(rolled(older, MIDDLE)),
        (FINE, begin): b"what a coarser block tells is not looked at",
        (FINE, begin + 300): encoded(of_rows(FINE, (POWER.number,), rows(begin + 300, 30))),
    }
    unpacked = of_rows(FINE, (POWER.number,), rows(begin + 360, 3))
    (found,) = series_of("devices/A", asked(HOUR), 10, packed, unpacked)
    assert [point.time for point in found.points] == [
        *range(begin, begin + 330, 10),
        begin + 360,  # half a minute in which nothing was seen is a gap
    ]
    first, last = found.points[0], found.points[-1]
    assert (first.min, first.mean, first.max, first.last, first.count) == (0, 4.5, 9, 9, 10)
    assert (last.count, last.last) == (3, 2)


def test_what_lies_outside_the_window_is_not_told() -> None:
    begin = NOW - HOUR
    packed = {(FINE, begin): encoded(of_rows(FINE, (POWER.number,), rows(begin, 30)))}
    one = replace(asked(HOUR), begin=begin + 12, end=begin + 25)
    (found,) = series_of("devices/A", one, 10, packed, None)
    assert [point.time for point in found.points] == [begin + 10, begin + 20]
    assert list(series_of("devices/A", replace(one, begin=begin + 50), 10, packed, None)) == []


def test_blocks_that_tell_of_one_moment_twice_tell_it_once() -> None:
    begin = NOW - HOUR
    packed = {
        (FINE, begin): encoded(of_rows(FINE, (POWER.number,), rows(begin, 60))),
        (FINE, begin + 30): encoded(of_rows(FINE, (POWER.number,), rows(begin + 30, 30))),
    }
    (found,) = series_of("devices/A", asked(HOUR), 1, packed, None)
    assert [point.time for point in found.points] == list(range(begin, begin + 60))
