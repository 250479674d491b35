"""Pure: what a command is sent when its promise is about to end, or has."""

from __future__ import annotations

import signal

# Before its bytes are taken, a command has this long to end by itself, or half of what is left.
LEAD_SECONDS = 10.0
# From SIGTERM to SIGKILL.
GRACE_SECONDS = 10.0


class Losing:
    """When to send which signal. Moments are on the monotonic clock; `acts`: send any at all."""

    def __init__(self, *, acts: bool) -> None:
        self.acts = acts
        self._terminate_at: float | None = None
        self._kill_at: float | None = None

    def announced(self, left_seconds: float, now: float) -> float | None:
        """It ends in so long. In how many seconds SIGTERM follows; None if it does not."""
        if not self.acts or self._kill_at is not None:
            return None
        left = max(0.0, left_seconds)
        ahead = left - min(LEAD_SECONDS, left / 2)
        self._terminate_at = now + ahead
        return ahead

    def withdrawn(self) -> None:
        """It does not end after all. A signal that was sent is not taken back."""
        self._terminate_at = None

    def lost(self, now: float) -> None:
        """It has ended."""
        if self.acts and self._kill_at is None:
            self._terminate_at = now

    @property
    def next_time(self) -> float | None:
        """When something is due next; None while nothing is."""
        times = [at for at in (self._terminate_at, self._kill_at) if at is not None]
        return min(times, default=None)

    @property
    def kill_time(self) -> float | None:
        """When SIGKILL follows a SIGTERM that was sent."""
        return self._kill_at

    def due(self, now: float) -> list[signal.Signals]:
        """What to send now, each once."""
        if self._terminate_at is not None and now >= self._terminate_at:
            self._terminate_at, self._kill_at = None, now + GRACE_SECONDS
            # One that is stopped would not hear it.
            return [signal.SIGTERM, signal.SIGCONT]
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self.acts = False
            return [signal.SIGKILL]
        return []
