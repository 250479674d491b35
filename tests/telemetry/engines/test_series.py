"""What a minute of an engine's counters comes to."""

from __future__ import annotations

import math
from operator import attrgetter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.engines.counting.counters import Counters
from gpud.engines.counting.exposition import Histogram
from gpud.telemetry.engines.series import (
    Point,
    Points,
    added,
    given_rate,
    increase,
    observed,
    per,
    quantile,
    rate,
)

REQUESTS, FAILED, SPANS = (attrgetter(name) for name in ("requests", "failed", "request"))


def points(*told: tuple[float, Any], field: str = "requests") -> Points:
    return tuple(Point(boottime=at, counters=Counters(**{field: value})) for at, value in told)


def spans(*counts: float, sum_: float | None = None) -> Histogram:
    """Up to 1 s, up to 2 s, and beyond."""
    return Histogram(bounds=(1.0, 2.0, math.inf), counts=counts, sum=sum_)


def test_a_rate_is_over_all_that_was_seen() -> None:
    assert rate(points((0, 10), (5, 10), (10, 40)), REQUESTS) == 3
    assert rate(points((0, 10), (5, 10)), REQUESTS) == 0


@pytest.mark.parametrize(
    "told",
    [
        (),
        ((0, 10),),
        ((0, None), (5, 10)),
        ((0, 10), (5, None)),
        ((0, 10), (5, None), (10, 20)),
        ((5, 10), (5, 20)),
        ((0, 90), (5, 10)),
    ],
)
def test_two_readings_one_after_the_other_are_wanted(told: Any) -> None:
    assert increase(points(*told), REQUESTS) is None


def test_of_counters_that_began_anew_only_what_came_after_counts() -> None:
    assert rate(points((0, 900), (5, 1000), (10, 4), (15, 24)), REQUESTS) == 4


def test_a_counter_that_goes_backwards_again_and_again_has_no_rate() -> None:
    told = points(*((5.0 * n, 1000 - n) for n in range(12)))
    assert rate(told, REQUESTS) is None
    assert given_rate(points(*((5.0 * n, 90 - n) for n in range(5)), field="given_tokens")) is None


def test_the_window_is_a_minute_or_what_two_pauses_make() -> None:
    told: Points = ()
    for n in range(40):
        told = added(told, Point(boottime=5.0 * n, counters=Counters()), 5.0)
    assert [told[0].boottime, told[-1].boottime] == [135.0, 195.0]
    told = ()
    for n in range(5):
        told = added(told, Point(boottime=300.0 * n, counters=Counters()), 300.0)
    assert len(told) == 3


def test_after_a_long_silence_nothing_is_told_of_what_was_before() -> None:
    told = added(points((0, 10), (5, 20)), Point(boottime=500, counters=Counters(requests=9)), 5)
    assert [each.boottime for each in told] == [500]


def test_tokens_are_those_given_however_they_were_counted() -> None:
    by_token = points((0, 100), (10, 600), field="given_tokens")
    assert given_rate(by_token) == 50
    steps = [Counters(running=2, token_steps=n, generated_tokens=0) for n in (0, 100, 300)]
    assert given_rate(told_at(steps)) == (200 + 400) / 20
    by_request = points((0, 0), (10, 0), (20, 500), field="generated_tokens")
    assert given_rate(by_request) == 25
    assert given_rate(()) is None
    assert given_rate(by_token[:1]) is None


def told_at(counters: list[Counters]) -> Points:
    return tuple(Point(boottime=10.0 * n, counters=each) for n, each in enumerate(counters))


def test_a_total_whose_digits_are_rounded_did_not_begin_anew() -> None:
    told = points((0, 4_000_000), (5, 3_999_990), (10, 4_000_500), field="given_tokens")
    assert given_rate(told) == 51


def test_a_ratio_is_of_the_same_span() -> None:
    seen = [Counters(requests=r, failed=f) for r, f in ((50, 9), (0, 0), (10, 1), (20, 5))]
    assert per(told_at(seen), FAILED, REQUESTS) == 0.25
    assert per(told_at(seen[1:2]), FAILED, REQUESTS) is None
    assert per(told_at([seen[3], seen[3]]), FAILED, REQUESTS) is None, "none was served"
    silent = [Counters(requests=1), Counters(requests=2)]
    assert per(told_at(silent), FAILED, REQUESTS) is None


def test_quantiles_are_of_the_last_minute_alone() -> None:
    told = points((0, spans(100, 100, 100)), (5, spans(100, 110, 110)), field="request")
    seen = observed(told, SPANS)
    assert seen is not None
    assert seen.counts == (0, 10, 10)
    assert quantile(seen, 0.5) == 1.5


@pytest.mark.parametrize(
    "told",
    [
        (spans(1, 2, 3),),
        (spans(1, 2, 3), spans(1, 2, 3)),
        (spans(1, 2, 3), spans(0, 2, 4)),
        (spans(1, 2, 3), None),
        (None, spans(1, 2, 3)),
        (spans(1, 2, 3), Histogram(bounds=(9.0, math.inf), counts=(4, 5))),
        (spans(0, 0, 0), spans(5, 3, 9)),
    ],
)
def test_without_anything_new_that_makes_sense_there_are_no_quantiles(told: Any) -> None:
    assert observed(points(*enumerate(told), field="request"), SPANS) is None


def test_of_a_histogram_that_began_anew_what_came_after_counts() -> None:
    told = points(
        (0, spans(7, 8, 9)), (1, spans(0, 0, 0)), (2, spans(4, 4, 4, sum_=2.0)), field="request"
    )
    seen = observed(told, SPANS)
    assert seen is not None
    assert seen.counts == (4, 4, 4)


@pytest.mark.parametrize(
    ("histogram", "share", "value"),
    [
        (spans(10, 10, 10), 0.5, 0.5),
        (spans(10, 20, 20), 0.75, 1.5),
        (spans(0, 0, 10), 0.5, 2.0),  # at least that
        (spans(0, 0, 0), 0.5, None),
        (spans(0, 4, 4), 0.0, 1.0),
        (spans(4, 4, 4), 1.0, 1.0),
        (Histogram(bounds=(math.inf,), counts=(3,)), 0.5, None),
        (Histogram(bounds=(-1.0, math.inf), counts=(3, 3)), 0.5, -1.0),
    ],
)
def test_quantiles_lie_within_their_bucket(
    histogram: Histogram, share: float, value: float | None
) -> None:
    assert quantile(histogram, share) == value


@given(
    counts=st.lists(st.integers(0, 50), min_size=3, max_size=3),
    shares=st.lists(st.floats(0, 1), min_size=2, max_size=2),
)
def test_a_greater_share_has_no_smaller_quantile(counts: list[int], shares: list[float]) -> None:
    first, second, third = counts
    histogram = spans(first, first + second, first + second + third)
    low, high = (quantile(histogram, share) for share in sorted(shares))
    if low is None or high is None:
        assert histogram.count == 0
    else:
        assert 0 <= low <= high <= 2
