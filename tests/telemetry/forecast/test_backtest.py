"""What is told of the past is what the procedure would have told then."""

from __future__ import annotations

from gpud.telemetry.forecast.backtest import LEAST_ERRORS, Case, judged


def test_how_far_it_was_off_is_not_that_of_the_method_picked_in_hindsight() -> None:
    """One is right at first, the other later and in all; most that was told was the first's."""
    first = [Case((0.0, 10.0), 0.0, at) for at in range(20)]
    later = [Case((10.0, 0.0), 0.0, at) for at in range(20, 46)]
    found = judged([*first, *later], methods=2, steps=1, confidence=0.8)
    assert found is not None
    assert found.method == 1
    assert found.past_error == 10


def test_of_too_few_cases_nothing_is_told() -> None:
    cases = [Case((1.0,), 1.0, at) for at in range(2 * LEAST_ERRORS)]
    found = judged(cases, methods=1, steps=1, confidence=0.8)
    few = judged(cases[:-1], methods=1, steps=1, confidence=0.8)
    assert found is not None
    assert few is not None
    assert (found.past_error, found.past_coverage, found.cases) == (0, 1, LEAST_ERRORS)
    assert (few.past_error, few.past_coverage, few.cases) == (None, None, LEAST_ERRORS - 1)
