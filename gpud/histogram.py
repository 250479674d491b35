"""Pure: how long things took, counted by bounds that stay."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate


class Histogram:
    """Spans in seconds, by upper bounds; what is above the last is in the total alone.

    Observed by one thread; another may read it meanwhile and then sees one span more or less.
    """

    __slots__ = ("_counts", "bounds", "total_seconds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Bounds in seconds, ascending."""
        self.bounds = bounds
        self.total_seconds = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, seconds: float) -> None:
        """Count one span."""
        self._counts[bisect_left(self.bounds, seconds)] += 1
        self.total_seconds += seconds

    def cumulative(self) -> tuple[int, ...]:
        """How many took no longer than each bound; the last is how many there were."""
        return tuple(accumulate(self._counts))
