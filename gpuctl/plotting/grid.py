"""Pure: points in time, put into so many equal cells; a cell in which nothing was seen is None."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

Cells: TypeAlias = Sequence[float | None]
# (time, value, how many readings it is the mean of)
Points: TypeAlias = Sequence[tuple[float, float, int]]


def cells(points: Points, begin: float, end: float, count: int) -> list[float | None]:
    """The mean of each cell. A step that is longer than a cell fills those that it lasts."""
    sums, weights = [0.0] * count, [0] * count
    if end <= begin:
        return [None] * count
    for time, value, weight in points:
        at = min(count - 1, math.floor((time - begin) / (end - begin) * count))
        if at >= 0:
            sums[at] += value * weight
            weights[at] += weight
    return [
        total / weight if weight else None for total, weight in zip(sums, weights, strict=True)
    ]


def apart(points: Points) -> float:
    """How far apart readings usually are, in seconds: the median; 0 where there are too few."""
    times = [time for time, _, _ in points]
    gaps = sorted(after - before for before, after in pairwise(times))
    return gaps[len(gaps) // 2] if gaps else 0.0


def filled(values: Cells, longest: int) -> list[float | None]:
    """As they are, but holes of so many cells at most take the value before them."""
    told = list(values)
    last, since = None, 0
    for at, value in enumerate(values):
        if value is not None:
            last, since = value, 0
        elif last is not None and since < longest:
            since += 1
            told[at] = last
    return told


def bounds(values: Cells) -> tuple[float, float] | None:
    """The least and the greatest; None: there is no value."""
    there = [value for value in values if value is not None]
    return (min(there), max(there)) if there else None
