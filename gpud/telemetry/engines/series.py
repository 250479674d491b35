"""Pure: what an engine counted over the last minute: rates, ratios, quantiles.

A total that is lower than before began anew, or lies; either way only what comes after it counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from gpud.engines.counting.counters import Counters, fell, given_between
from gpud.engines.counting.exposition import Histogram

WINDOW_SECONDS: Final = 60.0
# Of looks that are further apart than the window, so many of their pauses are looked back on.
_PAUSES: Final = 2.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What an engine had counted at a moment of CLOCK_BOOTTIME."""

    boottime: float
    counters: Counters


Points = tuple[Point, ...]
Total = Callable[[Counters], float | None]
Spans = Callable[[Counters], Histogram | None]


def added(points: Points, new: Point, interval_seconds: float) -> Points:
    """With a newer point, and without those that the window has left behind."""
    oldest = new.boottime - max(WINDOW_SECONDS, _PAUSES * interval_seconds)
    kept = [each for each in points if each.boottime >= oldest]
    return (*kept, new)


def increase(points: Points, total: Total) -> tuple[float, float] | None:
    """By how much a total grew, and in how many seconds; None: two readings of it are wanted."""
    if not points or (newest := total(points[-1].counters)) is None:
        return None
    first, since = newest, points[-1].boottime
    for point in reversed(points[:-1]):
        value = total(point.counters)
        if value is None or fell(value, first):
            break
        first, since = value, point.boottime
    seconds = points[-1].boottime - since
    return (max(0.0, newest - first), seconds) if seconds > 0 else None


def rate(points: Points, total: Total) -> float | None:
    """Per second."""
    grown = increase(points, total)
    return None if grown is None else grown[0] / grown[1]


def given_rate(points: Points) -> float | None:
    """Tokens given per second."""
    given, since = 0.0, points[-1].boottime if points else 0.0
    for after, before in pairwise(reversed(points)):
        between = given_between(before.counters, after.counters)
        if between is None:
            break
        given, since = given + between, before.boottime
    seconds = points[-1].boottime - since if points else 0.0
    return given / seconds if seconds > 0 else None


def per(points: Points, part: Total, whole: Total) -> float | None:
    """How much of one for each of another, over the same span; None where there was none of it."""

    def both(counters: Counters) -> bool:
        return part(counters) is not None and whole(counters) is not None

    told = _run(tuple(each for each in points if both(each.counters)), part, whole)
    grown_part, grown_whole = increase(told, part), increase(told, whole)
    if grown_part is None or grown_whole is None or grown_whole[0] <= 0:
        return None
    return grown_part[0] / grown_whole[0]


def _run(points: Points, *totals: Total) -> Points:
    """The newest points in which none of the totals falls."""
    for at in range(len(points) - 1, 0, -1):
        before, after = points[at - 1].counters, points[at].counters
        if any(fell(total(before) or 0.0, total(after) or 0.0) for total in totals):
            return points[at:]
    return points


def observed(points: Points, spans: Spans) -> Histogram | None:
    """What a histogram was added to since the window began; None where nothing was."""
    newest = spans(points[-1].counters) if points else None
    if newest is None:
        return None
    found = None
    for point in reversed(points[:-1]):
        before = spans(point.counters)
        difference = _difference(newest, before) if before is not None else None
        if difference is None or (found is not None and difference.count < found.count):
            break
        found = difference
    return found if found is not None and found.count > 0 else None


def _difference(after: Histogram, before: Histogram) -> Histogram | None:
    """None where they are not of one histogram that only grew."""
    if after.bounds != before.bounds:
        return None
    counts = tuple(a - b for a, b in zip(after.counts, before.counts, strict=True))
    if any(count < 0 for count in counts) or list(counts) != sorted(counts):
        return None
    return Histogram(bounds=after.bounds, counts=counts, sum=_less(after.sum, before.sum))


def _less(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


def quantile(histogram: Histogram, share: float) -> float | None:
    """The value that this share (0..1) of what was observed is not above; None: nothing was.

    Within a bucket what it holds is taken to lie evenly. Where it falls into the last, which has
    no upper bound, the lower one is told: it is at least that. After Prometheus' own
    (https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile).
    """
    rank = share * histogram.count
    if histogram.count <= 0:
        return None
    lower, below = 0.0, 0.0
    for bound, count in zip(histogram.bounds, histogram.counts, strict=True):
        if count >= rank and count > below:
            if bound == histogram.bounds[-1]:
                return lower if len(histogram.bounds) > 1 else None
            if bound <= 0:
                return bound
            return lower + (bound - lower) * max(0.0, rank - below) / (count - below)
        lower, below = max(0.0, bound), count
    return None
