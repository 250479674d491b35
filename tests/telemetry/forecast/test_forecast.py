"""A device's forecast: what is known on top of how it goes on, its edge, and why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from gpud.telemetry.forecast.forecast import (
    Edge,
    Forecast,
    Subject,
    memory_forecast,
    temperature_forecast,
)
from gpud.telemetry.forecast.known import Known
from gpud.telemetry.forecast.outlook import Past

GIB = 2**30
NOW = 1_700_000_000.0
STEP = 600.0


def subject(now: float | None, steps: int = 6) -> Subject:
    return Subject(device="GPU-1", alias="gpu0", now_wall=NOW, now=now, steps=steps, step=STEP)


def past(values: Sequence[float]) -> Past:
    return Past(step=STEP, values=values)


def ends(after: float, size: int) -> Known:
    return Known(
        wall=NOW + after,
        subject="reservations/r",
        what="its lease ends",
        promised_bytes=-size,
        used_bytes=-size,
        taken_bytes=-size,
    )


LEAK = [GIB * (1 + at / 60) for at in range(61)]  # 0.1 GiB an hour, 2 GiB now


def of(gib: int) -> Edge:
    """A device of so much, all of which could be promised."""
    return Edge(total_bytes=gib * GIB, room_bytes=gib * GIB, taken=past(LEAK))


def test_what_is_known_comes_on_top() -> None:
    told = memory_forecast(subject(LEAK[-1]), past(LEAK), of(24), ())
    assert told.expected == pytest.approx(2.1 * GIB)
    assert told.method == "drift"
    assert told.past_coverage == 1.0
    assert told.basis == "10h of its past in steps of 10m, 42 forecasts tried on it"
    less = memory_forecast(subject(LEAK[-1]), past(LEAK), of(24), [ends(60, GIB)])
    assert less.expected == pytest.approx(1.1 * GIB)
    assert less.basis.endswith("; 1 known change")
    none = memory_forecast(subject(LEAK[-1]), past(LEAK), of(24), [ends(60, 9 * GIB)])
    assert (none.expected, none.low) == (0, 0)
    most = memory_forecast(subject(LEAK[-1]), past(LEAK), of(2), ())
    assert (most.expected, most.high) == (2 * GIB, 2 * GIB)


def full_at(room: float, *known: Known) -> float | None:
    """When nothing is left of so much to promise, from now on."""
    edge = replace(of(24), room_bytes=int(room * GIB))
    told = memory_forecast(subject(LEAK[-1]), past(LEAK), edge, known)
    return None if told.limit_wall is None else told.limit_wall - NOW


def test_the_edge_is_where_nothing_is_left_to_promise() -> None:
    assert full_at(2.05) == pytest.approx(1800, rel=1e-3)
    assert full_at(2.2) is None
    assert full_at(2) == 0
    # What ends in between puts it off; what comes in takes what is left.
    assert full_at(2.05, ends(60, GIB)) is None
    assert full_at(2.05, ends(1500, -GIB)) == pytest.approx(1200, abs=601)


def test_without_a_past_the_edge_is_where_it_stands() -> None:
    edge = Edge(total_bytes=6 * GIB, room_bytes=5 * GIB, taken=past([5.0 * GIB]))
    told = memory_forecast(subject(5.0 * GIB), past([5.0 * GIB]), edge, ())
    assert told.limit_wall == NOW
    assert told.expected is None


def test_heat_comes_to_its_critical_band() -> None:
    warming = [80 - 40 * 0.95**at for at in range(61)]
    told = temperature_forecast(subject(warming[-1]), past(warming), 78.5)
    assert told.expected == pytest.approx(80 - 40 * 0.95**66, abs=0.3)
    assert told.limit_wall is not None
    assert 0 < told.limit_wall - NOW < 3600
    assert temperature_forecast(subject(warming[-1]), past(warming), 85).limit_wall is None


def heat(values: Sequence[float]) -> Forecast:
    return temperature_forecast(subject(values[-1]), past(values), 100)


def test_a_load_that_began_once_does_not_begin_again_on_top_of_itself() -> None:
    told = heat([40.0] * 6 + [86.0] * 30)
    assert (told.low, told.expected, told.high) == (86, 86, 86)
    assert not told.may_reach_limit
    # What comes and goes may go on so, and no further.
    loads = ([40.0] * 7 + [86.0] * 8) * 4
    told = heat([*loads, 86.0])
    assert told.low is not None
    assert told.high is not None
    assert told.past_error is not None
    assert told.low >= 40 - 3 * told.past_error
    assert told.high <= 86 + 3 * told.past_error


def test_heat_that_just_begins_to_rise_may_go_on_as_it_did() -> None:
    told = heat([50.0] * 100 + [52.0, 54.0, 56.0])
    assert told.expected is not None
    assert told.high is not None
    assert told.high >= told.expected + 6


def test_no_card_is_colder_than_its_air_or_hotter_than_where_it_ends() -> None:
    rising = heat([50.0 + at for at in range(58)])
    assert (rising.expected, rising.high) == (110, 110)
    assert rising.may_reach_limit
    falling = heat([75.0 - at for at in range(59)])
    assert (falling.expected, falling.low, falling.high) == (15, 15, 15)
    # But as one was seen it can be.
    cold = heat([1.0] * 40)
    assert (cold.low, cold.expected, cold.high) == (1, 1, 1)


def test_memory_may_be_full_where_its_high_is() -> None:
    def told(room: float) -> Forecast:
        edge = replace(of(24), room_bytes=int(room * GIB))
        return memory_forecast(subject(LEAK[-1]), past(noisy), edge, ())

    noisy = [each + GIB * (0.2 if at % 7 == 0 else 0) for at, each in enumerate(LEAK)]
    high = told(24).high
    assert high is not None
    assert not told(24).may_reach_limit
    assert told(high / GIB).may_reach_limit
    assert not told(high / GIB + 0.01).may_reach_limit
    assert not memory_forecast(subject(LEAK[-1]), past(noisy), None, ()).may_reach_limit


def test_less_than_a_step_is_told_too() -> None:
    young = Past(step=STEP, values=[50.0], before_seconds=180)
    told = temperature_forecast(subject(50.0), young, 85)
    assert told.refusal == "not enough history: have 3m, need 5h to look 1h ahead; ask later"


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (0, "not enough history: have 0s, need 5h to look 1h ahead; ask later"),
        (20, "have 3h10m, need 5h to look 1h ahead; ask for 38m at most, or later"),
    ],
)
def test_it_says_what_it_lacks(known: int, words: str) -> None:
    told = temperature_forecast(subject(50.0), past([50.0] * known), 85)
    assert words in told.refusal
    assert (told.expected, told.method, told.limit_wall) == (None, "", None)


def test_a_past_that_ended_is_none_to_go_by() -> None:
    gone = Past(step=STEP, values=[*LEAK, None, None, None, None])
    told = memory_forecast(subject(None), gone, None, ())
    assert told.refusal == "not enough history: 10h of it, but nothing of late; look at its health"
