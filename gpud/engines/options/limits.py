"""Pure: whether options lie in their ranges, and are among their choices."""

from __future__ import annotations

from collections.abc import Mapping

from gpud.errors import OptionInvalid
from gpud.models.model import ModelOptions


def check_ranges(options: ModelOptions, ranges: Mapping[str, tuple[int, int]]) -> None:
    """Raise OptionInvalid for one outside of its least and most; what is not said passes."""
    for field, (least, most) in ranges.items():
        value = getattr(options, field)
        if value is not None and not least <= value <= most:
            raise OptionInvalid(field=field, problem=f"{value} is not between {least} and {most}")


def check_choices(options: ModelOptions, choices: Mapping[str, tuple[str, ...]]) -> None:
    """Raise OptionInvalid for one that is none of its choices; what is not said passes."""
    for field, known in choices.items():
        value = getattr(options, field)
        if value is not None and value not in known:
            problem = f"{value!r} is not one of {', '.join(known)}"
            raise OptionInvalid(field=field, problem=problem)
