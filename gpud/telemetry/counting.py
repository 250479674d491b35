"""What is counted for the page as it happens: events by type, and how long commits take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from gpud.clock import Clock
from gpud.histogram import Histogram
from gpud.store import Committed

# An fdatasync on flash takes a millisecond, on a spinning disk ten, on one that fails seconds.
COMMIT_BOUNDS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
# Types are of our own making, a hundred or so: a bound for the day on which one is not.
MOST_TYPES = 256
OTHER = "other"


class EventCounts:
    """Durable events since the start, by type."""

    def __init__(self) -> None:
        self.by_type: Counter[str] = Counter()

    def committed(self, commits: Iterable[Committed]) -> None:
        """Called by whoever hears of commits."""
        counts = self.by_type
        for commit in commits:
            for entry in commit.write.entries:
                is_known = entry.type in counts or len(counts) < MOST_TYPES
                counts[entry.type if is_known else OTHER] += 1


class CommitTimes:
    """How long the store's transactions took, those that failed too; for SqliteStore.timed."""

    def __init__(self, clock: Clock) -> None:
        self.seconds = Histogram(COMMIT_BOUNDS_SECONDS)
        self._clock = clock

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Around one transaction, in the store's thread."""
        began = self._clock.now().boottime
        try:
            yield
        finally:
            self.seconds.observe(self._clock.now().boottime - began)
