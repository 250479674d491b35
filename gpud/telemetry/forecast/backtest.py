"""Pure: methods tried on a series' own past, and an interval made of how far they were off.

From each point of the past (rolling origin) every method foretells the values of a horizon. Chosen
is the one that was off least; the interval about a forecast is made of the quantiles of the errors
that it had at the horizon's end, as far as they were known by then (split conformal prediction
[1]). A series changes its ways, so in both the older an error is the less it weighs [2]; and which
quantiles are taken is moved after each case, so that in the long run the interval holds the truth
as often as it claims (adaptive conformal inference [3]). What is told of the past is what the very
same procedure would have told then, knowing nothing of what came.

[1] Lei, G'Sell, Rinaldo, Tibshirani, Wasserman: Distribution-free predictive inference for
    regression. JASA 113 (2018)
[2] Barber, Candès, Ramdas, Tibshirani: Conformal prediction beyond exchangeability. Annals of
    Statistics 51 (2023)
[3] Gibbs, Candès: Adaptive conformal inference under distribution shift. NeurIPS 2021
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from gpud.telemetry.forecast.errors import Errors

# Errors that an interval is made of at least: below, its ends are beyond what was ever seen.
LEAST_ERRORS = 8
# After so many horizons an error weighs half: tails of a tenth still have two such to be made of,
# and a way that began two horizons ago has a part in them.
_HALF_LIFE_HORIZONS = 8
# How far the adaptive level moves after one case [3 uses 0.005 for thousands of cases].
_PACE = 0.02
_WIDEST, _NARROWEST = 0.01, 0.6


@dataclass(frozen=True, slots=True)
class Case:
    """One point of the past: what each method foretold of a horizon later, and what came.

    `off`: by how much each was off of what came then, at the mean of all that it foretold of it in
    the steps before. So a method that follows a new way is known before a horizon of it passed.
    """

    told: Sequence[float | None]
    off: Sequence[float | None]  # None where nothing was told
    came: float
    index: int  # of the point; what comes is known `steps` later


@dataclass(slots=True)
class Judge:
    """What is known by one moment of each method's errors, and the level of the interval."""

    methods: int
    steps: int  # of a horizon
    miss_share: float  # that an interval is to miss
    errors: list[Errors] = field(init=False)
    level: float = field(init=False)
    weight: float = field(init=False, default=1.0)  # of the next error

    def __post_init__(self) -> None:
        self.errors = [Errors() for _ in range(self.methods)]
        self.level = self.miss_share

    def learn(self, case: Case) -> None:
        """What came of a case has become known."""
        half = _HALF_LIFE_HORIZONS * self.steps
        # Only ratios count: later ones weigh more, so that none has to be weighed again.
        weight, self.weight = 2 ** (case.index / half), 2 ** ((case.index + 1) / half)
        # Beside the first method, which always tells: others begin later, and what was hard (or
        # easy) to foretell before that is not to count for or against them.
        beside = case.off[0] or 0.0
        for errors, told, off in zip(self.errors, case.told, case.off, strict=True):
            if told is not None and off is not None:
                errors.learn(case.came - told, off - beside, weight)

    def adapt(self, *, missed: bool) -> None:
        """Whether the interval of a case held the truth has become known."""
        moved = self.level + _PACE * (self.miss_share - missed)
        self.level = min(max(moved, _WIDEST), _NARROWEST)

    def best(self) -> int | None:
        """The method that was off least, of those that were tried about as often as any."""
        most = max(errors.count for errors in self.errors)
        if most < LEAST_ERRORS:
            return None
        tried = [at for at, errors in enumerate(self.errors) if errors.count * 2 >= most]
        return min(tried, key=lambda at: self.errors[at].mean_off)

    def interval(self, method: int) -> tuple[float, float]:
        """By how much the truth is below and above what the method tells.

        Errors of neighbouring cases share most of their horizon, so that `steps` of them tell
        about as much as one: with few such, the interval is widened as a t distribution would be.
        It always holds the newest error: of a way that began within the last horizon there are
        too few to be seen in quantiles.
        """
        errors = self.errors[method]
        apart = errors.effective / self.steps
        below, above = errors.between(self.level / 2 * apart / (apart + 1), self.weight)
        wider = 1 + 1 / apart
        newest = errors.newest
        return min(below * wider, newest, 0.0), max(above * wider, newest, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The method for the next case, by its place, its interval, and how the procedure fared."""

    method: int
    low: float
    high: float
    newest_error: float
    # Of the method that was the best by then; None: too few cases were judged.
    past_error: float | None  # median of how far it was off
    past_coverage: float | None
    cases: int


def judged(cases: Sequence[Case], methods: int, steps: int, confidence: float) -> Verdict | None:
    """Try the methods on the past, in its order; None: too little is known of any."""
    judge = Judge(methods, steps, 1 - confidence)
    waiting: deque[tuple[Case, bool | None]] = deque()
    held: list[bool] = []
    off: list[float] = []
    for case in cases:
        # Known by now is what came of the cases of a horizon ago.
        while waiting and waiting[0][0].index + steps <= case.index:
            _settle(judge, *waiting.popleft())
        best = judge.best()
        told = case.told[best] if best is not None else None
        missed: bool | None = None
        if best is not None and told is not None:
            low, high = judge.interval(best)
            held.append(told + low <= case.came <= told + high)
            off.append(abs(case.came - told))
            # One without width that holds would hold at any level: it tells nothing of that.
            missed = None if held[-1] and low == high else not held[-1]
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
        newest_error=judge.errors[best].newest,
        past_error=sorted(off)[len(off) // 2] if is_enough else None,
        past_coverage=sum(held) / len(held) if is_enough else None,
        cases=len(held),
    )


def _settle(judge: Judge, case: Case, missed: bool | None) -> None:
    judge.learn(case)
    if missed is not None:
        judge.adapt(missed=missed)
