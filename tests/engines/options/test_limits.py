"""Ranges and choices of options, whichever engine's they are."""

from __future__ import annotations

import pytest

from gpud.engines.options.limits import check_choices, check_ranges
from gpud.errors import OptionInvalid
from gpud.models.model import ModelOptions

RANGES = {"batch": (1, 8), "threads": (2, 4)}
CHOICES = {"dtype": ("auto", "half")}


@pytest.mark.parametrize("said", [{}, {"batch": 1}, {"batch": 8, "threads": 4}])
def test_what_lies_within_or_is_not_said_passes(said: dict[str, int]) -> None:
    check_ranges(ModelOptions(**said), RANGES)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"batch": 0}, "0 is not between 1 and 8"),
        ({"batch": 9}, "9 is not between 1 and 8"),
        ({"batch": 8, "threads": 1}, "1 is not between 2 and 4"),
    ],
)
def test_what_lies_outside_is_named(said: dict[str, int], problem: str) -> None:
    with pytest.raises(OptionInvalid, match=problem) as refused:
        check_ranges(ModelOptions(**said), RANGES)  # type: ignore[arg-type]
    assert refused.value.field == list(said)[-1]


def test_a_choice_is_one_of_those_that_are_known() -> None:
    check_choices(ModelOptions(), CHOICES)
    check_choices(ModelOptions(dtype="half"), CHOICES)
    with pytest.raises(OptionInvalid, match="'Half' is not one of auto, half") as refused:
        check_choices(ModelOptions(dtype="Half"), CHOICES)
    assert refused.value.field == "dtype"
