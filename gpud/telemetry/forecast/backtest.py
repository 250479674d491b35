"""Pure: methods tried on a series' own past, and an interval made of how far they were off.

From each point of the past (rolling origin) every method foretells the value a horizon later. The
interval about a forecast is made of the quantiles of the errors that were known by then (split
conformal prediction [1]); which quantiles, is moved after each case so that in the long run the
interval holds the truth as often as it claims, also where the series changes its ways (adaptive
conformal inference [2]). So what is told of the past is what the very same procedure would have
told then, knowing nothing of what came.

[1] Lei, G'Sell, Rinaldo, Tibshirani, Wasserman: Distribution-free predictive inference for
    regression. JASA 113 (2018)
[2] Gibbs, Candès: Adaptive conformal inference under distribution shift. NeurIPS 2021
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field

# Errors that an interval is made of at least: below, its ends are beyond what was ever seen.
LEAST_ERRORS = 8
# How far the adaptive level moves after one case [2 uses 0.005 for thousands of cases].
_PACE = 0.02
_WIDEST, _NARROWEST = 0.01, 0.6


@dataclass(frozen=True, slots=True)
class Case:
    """One point of the past: what each method foretold of a horizon later, and what came."""

    told: Sequence[float | None]
    came: float
    index: int  # of the point; what comes is known `steps` later


@dataclass(slots=True)
class Judge:
    """What is known by one moment of each method's errors, and the level of the interval."""

    methods: int
    steps: int  # of a horizon
    miss_share: float  # that an interval is to miss
    errors: list[list[float]] = field(init=False)  # came − told, sorted
    sums: list[float] = field(init=False)
    level: float = field(init=False)

    def __post_init__(self) -> None:
        self.errors = [[] for _ in range(self.methods)]
        self.sums = [0.0] * self.methods
        self.level = self.miss_share

    def learn(self, case: Case) -> None:
        """What came of a case has become known."""
        for at, told in enumerate(case.told):
            if told is not None:
                error = case.came - told
                insort(self.errors[at], error)
                self.sums[at] += abs(error)

    def adapt(self, *, missed: bool) -> None:
        """Whether the interval of a case held the truth has become known."""
        moved = self.level + _PACE * (self.miss_share - missed)
        self.level = min(max(moved, _WIDEST), _NARROWEST)

    def best(self) -> int | None:
        """The method that was off least, of those that were tried about as often as any."""
        most = max(len(errors) for errors in self.errors)
        if most < LEAST_ERRORS:
            return None
        tried = [at for at, errors in enumerate(self.errors) if len(errors) * 2 >= most]
        return min(tried, key=lambda at: self.sums[at] / len(self.errors[at]))

    def interval(self, method: int) -> tuple[float, float]:
        """By how much the truth is below and above what the method tells.

        Errors of neighbouring cases share most of their horizon, so that `steps` of them tell
        about as much as one: with few such, the interval is widened as a t distribution would be.
        """
        errors = self.errors[method]
        count, apart = len(errors), len(errors) / self.steps
        tail = self.level / 2 * apart / (apart + 1)
        # Conformal ranks: of n errors and the one to come each place is as likely.
        below = max(math.floor(tail * (count + 1)), 1)
        above = min(math.ceil((1 - tail) * (count + 1)), count)
        wider = 1 + 1 / apart
        return min(errors[below - 1] * wider, 0.0), max(errors[above - 1] * wider, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The method for the next case, by its place, its interval, and how the procedure fared."""

    method: int
    low: float
    high: float
    # Of the method that was the best by then; None: too few cases were judged.
    past_error: float | None  # median of how far it was off
    past_coverage: float | None
    cases: int


def judged(cases: Sequence[Case], methods: int, steps: int, confidence: float) -> Verdict | None:
    """Try the methods on the past, in its order; None: too little is known of any."""
    judge = Judge(methods, steps, 1 - confidence)
    waiting: list[tuple[Case, bool | None]] = []
    held: list[bool] = []
    off: list[float] = []
    for case in cases:
        # Known by now is what came of the cases of a horizon ago.
        while waiting and waiting[0][0].index + steps <= case.index:
            _settle(judge, *waiting.pop(0))
        best = judge.best()
        told = case.told[best] if best is not None else None
        missed: bool | None = None
        if best is not None and told is not None:
            low, high = judge.interval(best)
            missed = not told + low <= case.came <= told + high
            held.append(not missed)
            off.append(abs(case.came - told))
        waiting.append((case, missed))
    for settled in waiting:
        _settle(judge, *settled)
    best = judge.best()
    if best is None:
        return None
    low, high = judge.interval(best)
    is_enough = len(held) >= LEAST_ERRORS
    return Verdict(
        method=best,
        low=low,
        high=high,
        past_error=sorted(off)[len(off) // 2] if is_enough else None,
        past_coverage=sum(held) / len(held) if is_enough else None,
        cases=len(held),
    )


def _settle(judge: Judge, case: Case, missed: bool | None) -> None:
    judge.learn(case)
    if missed is not None:
        judge.adapt(missed=missed)
