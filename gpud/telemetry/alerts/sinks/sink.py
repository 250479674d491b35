"""The sink seam: whoever is told of an alert, and how trying again goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from gpud.errors import GpudError

# Before the second try; each pause is twice the one before, up to the longest.
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 300.0
# So much of a pause is left out by chance, so that many hosts do not come at once.
JITTER: Final = 0.5
_MAX_DOUBLINGS: Final = 20


@dataclass(kw_only=True, eq=False)
class SinkFailed(GpudError):
    """A try came to nothing; `is_final` where another would come to the same."""

    sink: str
    problem: str
    is_final: bool = False

    def __str__(self) -> str:
        return f"cannot tell alerts to {self.sink}: {self.problem}"


class Sink(Protocol):
    """Somebody who is told."""

    @property
    def name(self) -> str:
        """As the configuration calls it."""
        ...

    async def send(self, body: dict[str, Any]) -> None:
        """Tell it; returns once it has taken that. Raises SinkFailed. Cancellable."""
        ...


def pause_seconds(failures: int, luck: float) -> float:
    """How long to wait after so many failures, the first being 1; `luck` is 0 … 1."""
    doublings = min(_MAX_DOUBLINGS, max(0, failures - 1))
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * float(2**doublings))
    return longest * (1 - JITTER * luck)
