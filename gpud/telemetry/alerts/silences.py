"""Pure: what nobody is sent for a while, by rule and subject."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gpud.clock import Moment
from gpud.errors import QuotaExceeded
from gpud.telemetry.alerts.alert import Silence

MIN_SECONDS: Final = 1.0
MAX_SECONDS: Final = 30 * 86400.0
MOST: Final = 256


class Silences:
    """Those that last; one for each pair of rule and subject."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Silence] = {}

    def restore(self, silences: Iterable[Silence], now: Moment) -> None:
        """Take up what was kept; after a reboot the wall clock says what is left."""
        for silence in silences:
            end = silence.end.rebased(now, MAX_SECONDS)
            self.put(
                Silence(
                    rule=silence.rule,
                    subject=silence.subject,
                    end=end,
                    actor=silence.actor,
                    comment=silence.comment,
                )
            )

    def all(self) -> tuple[Silence, ...]:
        """In the order in which they were made."""
        return tuple(self._known.values())

    def find(self, rule: str, subject: str) -> Silence | None:
        """The one of just these."""
        return self._known.get((rule, subject))

    def check_room(self, rule: str, subject: str, owner: str) -> None:
        """Raises QuotaExceeded where there are as many as there may be."""
        if (rule, subject) not in self._known and len(self._known) >= MOST:
            raise QuotaExceeded(
                owner=owner,
                limit_name="the number of silences",
                limit=MOST,
                held=len(self._known),
                asked=1,
                unit="silences",
                advice="end some (`gpuctl alerts silence --for 0s`), or silence a whole rule",
            )

    def put(self, silence: Silence) -> None:
        """Add one, or have it last for another time."""
        self._known[silence.rule, silence.subject] = silence

    def drop(self, silence: Silence) -> None:
        """End one, unless it was made anew."""
        if self._known.get((silence.rule, silence.subject)) is silence:
            del self._known[silence.rule, silence.subject]

    def expired(self, now: Moment) -> list[Silence]:
        """Those whose time is over."""
        return [each for each in self._known.values() if each.end.remaining_seconds(now) <= 0]
