"""Pure: what real time leaves open, and what earlier answers do."""

from __future__ import annotations

import bisect
import heapq
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.proof.concurrent.history import Operation

FOREVER_NS = 2**63


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A line of the journal, and between which moments of the callers' clock it came about."""

    begin_ns: int
    end_ns: int
    state: int


class Windows:
    """The states that real time leaves for a call."""

    def __init__(self, changes: Sequence[Change], last: int) -> None:
        self._last = last
        by_end = sorted(changes, key=lambda each: each.end_ns)
        self._ends = [each.end_ns for each in by_end]
        self._newest = _running_max(each.state for each in by_end)
        by_begin = sorted(changes, key=lambda each: -each.begin_ns)
        self._begins = [-each.begin_ns for each in by_begin]
        self._oldest = [-state for state in _running_max(-each.state for each in by_begin)]

    def of(self, operation: Operation) -> tuple[int, int]:
        ended = bisect.bisect_left(self._ends, operation.begin_ns)
        begun = bisect.bisect_left(self._begins, -operation.end_ns)
        low = self._newest[ended - 1] if ended else 0
        high = self._oldest[begun - 1] - 1 if begun else self._last
        return low, high


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A state, and the call that was answered out of it."""

    state: int = 0
    by: Operation | None = None


class Floor:
    """The newest state that calls had seen before a moment; moments are asked in order."""

    def __init__(self) -> None:
        # By their ends; the number keeps what ended at once from being compared.
        self._ended: list[tuple[int, int, Shown]] = []
        self._numbers = itertools.count()
        self._newest = Shown()

    def add(self, operation: Operation, state: int) -> None:
        shown = Shown(state=state, by=operation)
        heapq.heappush(self._ended, (operation.end_ns, next(self._numbers), shown))

    def before(self, begin_ns: int) -> Shown:
        while self._ended and self._ended[0][0] < begin_ns:
            shown = heapq.heappop(self._ended)[2]
            if shown.state > self._newest.state:
                self._newest = shown
        return self._newest


def _running_max(values: Iterable[int]) -> list[int]:
    found: list[int] = []
    for value in values:
        found.append(max(value, found[-1]) if found else value)
    return found
