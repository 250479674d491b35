"""Pure: what was measured in rounds, against what it must reach."""

from __future__ import annotations

import enum
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Details = Mapping[str, float | str]


class Unit(enum.Enum):
    """What the two sides are measured in, and how many of its steps make one SI unit."""

    MICROSECONDS = ("µs", 1e6)
    MILLISECONDS = ("ms", 1e3)
    PER_SECOND = ("/s", 1.0)
    MEBIBYTES = ("MiB", 1 / 2**20)
    CALLS = ("", 1.0)

    @property
    def sign(self) -> str:
        """As printed behind a number."""
        return self.value[0]

    def of(self, value: float) -> float:
        """A value in seconds, bytes or a plain number, in this unit."""
        return value * self.value[1]


class Comparison(enum.Enum):
    """How ours stands against the other."""

    RATIO = "×"
    DIFFERENCE = "difference"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What the comparison must reach and what it aims at; None: told, not judged.

    A difference is in seconds. `at_least`: more is better.
    """

    must: float | None = None
    aim: float | None = None
    at_least: bool = False
    comparison: Comparison = Comparison.RATIO

    def reached(self, value: float, bound: float | None) -> bool | None:
        """Whether the value is on the right side of the bound; None without one."""
        if bound is None:
            return None
        return value >= bound if self.at_least else value <= bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One row of the table. `rounds` are (ours, other), measured one right after the other."""

    row: str
    quantity: str
    unit: Unit
    rounds: tuple[tuple[float, float], ...]
    bar: Bar
    details: Details = field(default_factory=dict)

    @property
    def ours(self) -> float:
        """Our median, in SI units."""
        return statistics.median(ours for ours, _ in self.rounds)

    @property
    def other(self) -> float:
        """The other's median, in SI units."""
        return statistics.median(other for _, other in self.rounds)

    @property
    def compared(self) -> float:
        """The median of what each round's two sides compare to.

        Within a round both sides met the same machine; between rounds it may have changed.
        """
        return statistics.median(self.comparisons())

    def comparisons(self) -> list[float]:
        """Each round's ratio, or difference in seconds."""
        if self.bar.comparison is Comparison.DIFFERENCE:
            return [ours - other for ours, other in self.rounds]
        return [ours / other for ours, other in self.rounds]

    @property
    def met(self) -> str:
        """`aim`, `must`, `no`, or nothing when it is not judged."""
        if self.bar.must is None:
            return ""
        if self.bar.reached(self.compared, self.bar.aim):
            return "aim"
        return "must" if self.bar.reached(self.compared, self.bar.must) else "no"


def percentile(values: Sequence[float], fraction: float) -> float:
    """The smallest value that so large a fraction of all does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]
