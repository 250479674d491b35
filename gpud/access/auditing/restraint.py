"""Pure: how often the same refusal is told, so that whoever is refused cannot fill a disk."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

MOST_PER_MINUTE = 5
MINUTE_SECONDS = 60.0
# Refusals told apart at once. Beyond that they are counted as one: dropping the oldest instead
# would let new ones be told without end. With five of each, at most some 1300 lines a minute.
MAX_KINDS = 256


class Refusal(NamedTuple):
    """Who was refused what, and why."""

    name: str
    method: str
    reason: str


OTHERS = Refusal("(others)", "", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppressed:
    """So many of a kind were not told in the minute that began `since` (seconds, any clock)."""

    refusal: Refusal
    count: int
    since: float


@dataclass(slots=True)
class _Minute:
    since: float
    told: int = 0
    untold: int = 0


class Restraint:
    """Counts refusals by kind, a minute from the first of each on. Time is handed in."""

    def __init__(self) -> None:
        self._minutes: dict[Refusal, _Minute] = {}  # the oldest first
        self._over: deque[Suppressed] = deque()

    def admits(self, refusal: Refusal, now: float) -> bool:
        """Whether this one is told; it is counted either way."""
        self._close(now)
        minute = self._minutes.get(refusal)
        if minute is None:
            if len(self._minutes) >= MAX_KINDS:
                refusal = OTHERS
            minute = self._minutes.setdefault(refusal, _Minute(now))
        if minute.told < MOST_PER_MINUTE:
            minute.told += 1
            return True
        minute.untold += 1
        return False

    def over(self, now: float) -> list[Suppressed]:
        """What was not told in minutes that have ended, each once."""
        self._close(now)
        over = list(self._over)
        self._over.clear()
        return over

    def _close(self, now: float) -> None:
        while self._minutes:
            refusal, minute = next(iter(self._minutes.items()))
            if now - minute.since < MINUTE_SECONDS:
                return
            del self._minutes[refusal]
            if minute.untold:
                count, since = minute.untold, minute.since
                self._over.append(Suppressed(refusal=refusal, count=count, since=since))
