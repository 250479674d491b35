"""Pure: how far one method was off, each time with a weight, and quantiles of that."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from itertools import accumulate


@dataclass(slots=True)
class Errors:
    """Errors of one method (came − told), each with the weight that it was learned with."""

    newest: float = 0.0
    _sorted: list[float] = field(default_factory=list)
    _weights: list[float] = field(default_factory=list)
    _total: float = 0.0
    _squares: float = 0.0
    _off: float = 0.0

    def learn(self, error: float, off: float, weight: float) -> None:
        """One more of them; `off` is what the method is chosen by, less is better."""
        at = bisect_left(self._sorted, error)
        self._sorted.insert(at, error)
        self._weights.insert(at, weight)
        self._total += weight
        self._squares += weight * weight
        self._off += weight * off
        self.newest = error

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._sorted)

    @property
    def mean_off(self) -> float:
        """The weighted mean of `off`; there must be an error."""
        return self._off / self._total

    @property
    def effective(self) -> float:
        """As many errors of one weight tell as much (Kish: Survey Sampling, 1965)."""
        return self._total**2 / self._squares

    def between(self, tail: float, weight: float) -> tuple[float, float]:
        """The errors beyond which, on either side, the next lies in `tail` of all cases at most.

        `weight` is that of the next: of those and itself each has as much of the place as it
        weighs (weighted conformal quantiles). Below what was ever seen it cannot tell.
        """
        summed = list(accumulate(self._weights))
        share = tail * (self._total + weight)
        below = max(bisect_right(summed, share) - 1, 0)
        above = min(bisect_left(summed, self._total + weight - share), self.count - 1)
        return self._sorted[below], self._sorted[above]
