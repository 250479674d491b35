"""Quantiles of errors of which each weighs as much as it was learned with."""

from __future__ import annotations

import pytest

from gpud.telemetry.forecast.errors import Errors


def learned(*errors: tuple[float, float]) -> Errors:
    found = Errors()
    for error, weight in errors:
        found.learn(error, abs(error), weight)
    return found


def test_of_equal_weights_they_are_the_conformal_ranks() -> None:
    """Of 19 and the one to come each place is as likely: a tenth are the two at either end."""
    found = learned(*((float(error), 1.0) for error in range(19, 0, -1)))
    assert found.between(0.1, 1) == (2, 18)
    assert (found.count, found.effective) == (19, 19)
    assert found.mean_off == 10


def test_what_weighs_more_counts_more() -> None:
    light = learned((0, 1), (1, 1), (2, 1), (9, 1))
    heavy = learned((0, 1), (1, 1), (2, 1), (9, 6))
    assert light.between(0.45, 1) == (1, 2)
    assert heavy.between(0.45, 6) == (2, 9)
    assert heavy.mean_off == pytest.approx(57 / 9)
    assert heavy.effective < 3


def test_beyond_what_was_seen_it_tells_the_outermost() -> None:
    assert learned((3, 1), (5, 1)).between(0.01, 1) == (3, 5)


def test_the_newest_is_the_last_that_was_learned() -> None:
    assert learned((3, 1), (5, 1), (4, 1)).newest == 4
