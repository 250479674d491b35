"""What is told of the past is what the procedure would have told then; late errors weigh more."""

from __future__ import annotations

from gpud.telemetry.forecast.backtest import LEAST_ERRORS, Case, Verdict, judged


def case(at: int, came: float, *told: float) -> Case:
    return Case(told=told, off=[abs(came - each) for each in told], came=came, index=at)


def verdict(cases: list[Case], methods: int = 1, steps: int = 1) -> Verdict:
    found = judged(cases, methods, steps, confidence=0.8)
    assert found is not None
    return found


def test_how_far_it_was_off_is_not_that_of_the_method_picked_in_hindsight() -> None:
    """One is right at first, the other of late; most that was told was the first's."""
    first = [case(at, 0, 0, 10) for at in range(10)]
    later = [case(at, 0, 10, 0) for at in range(10, 18)]
    found = verdict([*first, *later], methods=2)
    assert found.method == 1
    assert found.past_error == 10


def test_the_method_that_is_the_best_of_late_is_taken() -> None:
    """In all the first was off less: of 80 cases 60 were its."""
    first = [case(at, 0, 0, 10) for at in range(60)]
    later = [case(at, 0, 10, 0) for at in range(60, 80)]
    assert verdict([*first, *later], methods=2).method == 1


def test_the_interval_is_as_wide_as_of_late() -> None:
    """Twenty errors of 100 are too many after quiet, and too few to matter after long quiet."""
    quiet = [case(at, at % 3, 1) for at in range(200)]
    wild = [case(at, 100 * (at % 3), 100) for at in range(200, 220)]
    still = [case(at, at % 3, 1) for at in range(220, 320)]
    woken, calmed = verdict([*quiet, *wild]), verdict([*quiet, *wild, *still])
    assert woken.low <= -100 < 100 <= woken.high
    assert -2 < calmed.low <= calmed.high < 2


def test_the_newest_error_lies_in_the_interval() -> None:
    """One of 300 is in no quantile, yet the only one of what began just now."""
    cases = [*(case(at, 0, 0) for at in range(300)), case(300, 50, 0)]
    found = verdict(cases, steps=6)
    assert (found.low, found.high) == (0, 50)


def test_what_holds_without_width_does_not_narrow_what_comes_later() -> None:
    """As many as that would have had the level at its narrowest."""
    quiet = [case(at, 0, 0) for at in range(300)]
    moves = [case(at, 10 * (at % 5 == 0), 0) for at in range(300, 321)]
    still = [case(at, 0, 0) for at in range(321, 323)]
    found = verdict([*quiet, *moves, *still])
    assert found.high >= 10


def test_of_too_few_cases_nothing_is_told() -> None:
    cases = [case(at, 1, 1) for at in range(2 * LEAST_ERRORS)]
    found, few = verdict(cases), verdict(cases[:-1])
    assert (found.past_error, found.past_coverage, found.cases) == (0, 1, LEAST_ERRORS)
    assert (few.past_error, few.past_coverage, few.cases) == (None, None, LEAST_ERRORS - 1)
