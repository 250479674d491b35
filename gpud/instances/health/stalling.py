"""Pure: whether a load that is not READY yet comes on, by what is seen of it from outside.

What only a load that comes on can show counts for as long as it goes on: another answer to whether
it is ready, a further step that its engine tells, more bytes on its device. What one that waits
for ever may show too counts for a while: lines that were not printed before, and CPU time. Of a
line only its words count, for many print a number of their tries, or the time, for ever.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gpud.devices.snapshot import Snapshot
from gpud.engines.engine import LoadStep, Readiness
from gpud.units import MIB

# For so many limits in a row lines and CPU time are taken for progress, where nothing else is.
WEAK_LIMITS: Final = 5
# Of one core, over one limit: less is what looking at a clock now and then takes.
WORK_SHARE: Final = 0.1
LEAST_BYTES: Final = 1 * MIB
# The last of them tell what it does now.
_LINES: Final = 20
_NUMBERED = re.compile(r"\S*\d\S*")
_NO_LETTERS = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What an engine says at a moment, and the last lines that it printed."""

    readiness: Readiness
    step: LoadStep
    lines: tuple[str, ...] = ()


class Stall:
    """Of one load; `is_over` says when what is told here has stood still too long."""

    def __init__(self, limit_seconds: float, began: float) -> None:
        """Moments are seconds of one clock that never goes back."""
        self._limit = limit_seconds
        self._progressed = self._sure = began
        self._known: set[object] = set()
        self._last: tuple[str, ...] = ()
        self._most_bytes = 0
        self._cpu_seconds: float | None = None

    def heard(self, look: Look, now: float) -> None:
        """What was heard of it at a moment."""
        if self._is_new(look.readiness) | self._is_new(look.step):
            self._sure_at(now)
        if self._prints(look.lines):
            self._likely_at(now)

    def grew(self, device_bytes: int | None, cpu_seconds: float | None, now: float) -> None:
        """What it has taken of its devices and of the CPUs; None: that cannot be seen."""
        if self._has_more_bytes(device_bytes):
            self._sure_at(now)
        if self._works(cpu_seconds):
            self._likely_at(now)

    def is_over(self, now: float) -> bool:
        """Whether it has shown no progress for longer than the limit."""
        return now - self._progressed > self._limit

    def _sure_at(self, now: float) -> None:
        self._progressed = self._sure = now

    def _likely_at(self, now: float) -> None:
        if now - self._sure <= WEAK_LIMITS * self._limit:
            self._progressed = now

    def _is_new(self, sign: object) -> bool:
        """One that comes back is no progress: it may go to and fro for ever."""
        is_new = sign not in self._known
        self._known.add(sign)
        return is_new

    def _has_more_bytes(self, found: int | None) -> bool:
        if found is None or found < self._most_bytes + LEAST_BYTES:
            return False
        self._most_bytes = found
        return True

    def _prints(self, lines: tuple[str, ...]) -> bool:
        lines = lines[-_LINES:]
        if lines == self._last:
            return False
        self._last = lines
        said = {words_of(line) for line in lines} - self._known
        self._known |= said
        return bool(said)

    def _works(self, taken: float | None) -> bool:
        if taken is None:
            return False
        if self._cpu_seconds is None:
            self._cpu_seconds = taken
        if taken - self._cpu_seconds < WORK_SHARE * self._limit:
            return False
        self._cpu_seconds = taken
        return True


def words_of(line: str) -> str:
    """Its words without numbers, stamps and bars: what is the same whenever it is said again."""
    return _NO_LETTERS.sub(" ", _NUMBERED.sub(" ", line)).strip()


def device_bytes(snapshot: Snapshot | None, reservation: str | None) -> int | None:
    """What the processes of a promise use, on all of its devices; None: nobody tells."""
    if snapshot is None or reservation is None:
        return None
    listed = [process for sample in snapshot.samples for process in sample.processes or ()]
    own = [each.used_bytes for each in listed if each.claim == reservation]
    return sum(size for size in own if size is not None) if own else None
