"""Pure: how a series may go on. Each method says from every point of it what comes k steps later.

    last value        it stays as it is
    drift             it goes on as over the last span: x + k·(x − x[−w])/w   [1, §5.2]
    damped trend      Holt's level and trend, the trend dying away            [1, §8.2; 2]
    approach          an exponential approach to a level, as a body that warms or cools (Newton):
                      the AR(1) fitted to the last span                       [1, §9.3]
    day before        it changes as it did at this time of the day before     [1, §5.2]

[1] Hyndman, Athanasopoulos: Forecasting: Principles and Practice, 3rd ed. (OTexts.com/fpp3)
[2] Gardner, McKenzie: Forecasting trends in time series. Management Science 31 (1985)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

# Slower than this a fitted approach is no approach: it would end far from all that was seen.
_SLOWEST = 0.98


class Method(Protocol):
    """One way to go on."""

    @property
    def name(self) -> str:
        """In words."""
        ...

    def ahead(self, values: Sequence[float], steps: int) -> list[list[float] | None]:
        """From each point the next `steps` values; None where it has seen too little."""
        ...


@dataclass(frozen=True, slots=True)
class LastValue:
    """It stays as it is."""

    name: str = "last value"

    def ahead(self, values: Sequence[float], steps: int) -> list[list[float] | None]:
        """From the first point on."""
        return [[value] * steps for value in values]


@dataclass(frozen=True, slots=True)
class Drift:
    """It goes on as over the last `width` steps."""

    width: int
    name: str = "drift"

    def ahead(self, values: Sequence[float], steps: int) -> list[list[float] | None]:
        """From where there are `width` steps on."""
        told: list[list[float] | None] = [None] * min(self.width, len(values))
        for at in range(self.width, len(values)):
            value = values[at]
            slope = (value - values[at - self.width]) / self.width
            told.append([value + slope * k for k in range(1, steps + 1)])
        return told


@dataclass(frozen=True, slots=True)
class DampedTrend:
    """Level and trend, smoothed; of the trend each step has `damping` of the one before."""

    level: float
    trend: float
    damping: float
    name: str = "damped trend"

    def ahead(self, values: Sequence[float], steps: int) -> list[list[float] | None]:
        """From the third point on."""
        reach = list(accumulate(self.damping**power for power in range(1, steps + 1)))
        told: list[list[float] | None] = []
        level = slope = 0.0
        for at, value in enumerate(values):
            if at == 0:
                level = value
            else:
                before = level
                level = self.level * value + (1 - self.level) * (before + self.damping * slope)
                slope = self.trend * (level - before) + (1 - self.trend) * self.damping * slope
            told.append([level + factor * slope for factor in reach] if at > 1 else None)
        return told


@dataclass(frozen=True, slots=True)
class Approach:
    """An exponential approach to a level, fitted by least squares to the last `width` steps."""

    width: int
    name: str = "approach to a level"

    def ahead(self, values: Sequence[float], steps: int) -> list[list[float] | None]:
        """From where there are `width` steps on."""
        told: list[list[float] | None] = [None] * min(self.width, len(values))
        for at in range(self.width, len(values)):
            seen = values[at - self.width : at + 1]
            level, rate = _fitted(seen)
            told.append([level + (seen[-1] - level) * rate**k for k in range(1, steps + 1)])
        return told


def _fitted(seen: Sequence[float]) -> tuple[float, float]:
    """The level, and which part of the way to it is left after each step."""
    before, after = seen[:-1], seen[1:]
    mean_before, mean_after = sum(before) / len(before), sum(after) / len(after)
    spread = sum((value - mean_before) ** 2 for value in before)
    if spread <= 0:
        return seen[-1], 0.0
    shared = sum((x - mean_before) * (y - mean_after) for x, y in zip(before, after, strict=True))
    rate = min(max(shared / spread, 0.0), _SLOWEST)
    return (mean_after - rate * mean_before) / (1 - rate), rate


@dataclass(frozen=True, slots=True)
class DayBefore:
    """It changes as it did a day before; `day` in steps."""

    day: int
    name: str = "change of the day before"

    def ahead(self, values: Sequence[float], steps: int) -> list[list[float] | None]:
        """From where there is a day before on."""
        told: list[list[float] | None] = [None] * min(self.day, len(values))
        for at in range(self.day, len(values)):
            then = at - self.day
            then_on = (values[min(then + k, at)] for k in range(1, steps + 1))
            told.append([values[at] + value - values[then] for value in then_on])
        return told


def candidates(steps: int, day: int | None) -> tuple[Method, ...]:
    """Those that are tried for a horizon of so many steps; `day` in steps, None: none is there."""
    daily: tuple[Method, ...] = () if day is None else (DayBefore(day),)
    return (
        LastValue(),
        Drift(steps),
        DampedTrend(0.7, 0.3, 0.95),
        Approach(2 * steps),
        Approach(4 * steps),
        *daily,
    )
