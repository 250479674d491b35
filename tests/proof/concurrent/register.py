"""Pure: is a value that many write and read at once always the one that was written last?

Each written value is its own. All that touched one value must be able to stand together in one
order: what is between the first end and the last begin of these calls is a stretch in which the
value must have stood. Two such stretches may not overlap, and what fits into one moment must find
one outside of the others' stretches (Gibbons and Korach, Testing Shared Memories, 1997).
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A call that wrote the value, or was shown it."""

    begin_ns: int
    end_ns: int
    value: int | None
    wrote: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is wrong, if anything; and the values that may have been the last."""

    wrong: str
    last_values: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Zone:
    """Between the first end and the last begin of a value's calls."""

    first_end_ns: int
    last_begin_ns: int

    @property
    def is_stretch(self) -> bool:
        return self.first_end_ns < self.last_begin_ns


def explain(accesses: Iterable[Access]) -> Told:
    """Whether one order explains them."""
    by_value: defaultdict[int | None, list[Access]] = defaultdict(list)
    for access in accesses:
        by_value[access.value].append(access)
    writes = [each for group in by_value.values() for each in group if each.wrote]
    last = tuple(
        each.value
        for each in writes
        if each.value is not None and all(other.begin_ns <= each.end_ns for other in writes)
    )
    return Told(wrong=_wrong(by_value), last_values=last)


def _wrong(by_value: dict[int | None, list[Access]]) -> str:
    zones = []
    for value, group in by_value.items():
        written = [each for each in group if each.wrote]
        if value is None or not written:
            return f"somebody was shown the lease's end {value}, which nobody set"
        if len(written) > 1:
            return ""  # two set the very same moment: then they cannot be told apart
        if any(each.end_ns < written[0].begin_ns for each in group):
            return f"somebody was shown the lease's end {value} before it was set"
        zones.append(
            _Zone(
                first_end_ns=min(each.end_ns for each in group),
                last_begin_ns=max(each.begin_ns for each in group),
            )
        )
    stretches = sorted(
        (each for each in zones if each.is_stretch), key=lambda each: each.first_end_ns
    )
    for one, next_ in itertools.pairwise(stretches):
        if next_.first_end_ns < one.last_begin_ns:
            return "a lease's end was shown again after a later one"
    for moment in (each for each in zones if not each.is_stretch):
        if any(
            each.first_end_ns < moment.last_begin_ns and moment.first_end_ns < each.last_begin_ns
            for each in stretches
        ):
            return "a lease's end was set and never shown where it must have been"
    return ""
