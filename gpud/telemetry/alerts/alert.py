"""Pure: what an alert is."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from gpud.ledger.reservation import Deadline


class Severity(enum.IntEnum):
    """How much it matters."""

    INFO = 1
    WARNING = 2
    CRITICAL = 3


class AlertState(enum.Enum):
    """Where it stands."""

    PENDING = "pending"  # holds, not yet for as long as its rule asks
    FIRING = "firing"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What became of telling one sink: that it fires, or that it is over.

    `is_waiting`: it is still being tried; `problem` is then why the last try came to nothing.
    `knew`: what it took last, before this, was that the alert fires.
    """

    sink: str
    wall: float
    told: AlertState  # FIRING or RESOLVED
    delivered: bool = False
    is_waiting: bool = True
    attempts: int = 0
    problem: str = ""
    knew: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A rule that holds of a subject. Walls are seconds since the epoch.

    `sent` is the severity that sinks were last told while it was not over; None: they know of
    nothing. `returns` counts how often it fired again soon after it was over.
    """

    id: str
    rule: str
    severity: Severity
    state: AlertState
    subject: str  # devices/{uuid}, instances/{id}, models/{id}, reservations/{id}, node
    since_wall: float
    summary: str
    remedy: str = ""
    alias: str = ""
    unit: str = ""
    value: float | None = None
    threshold: float | None = None
    fire_wall: float | None = None
    resolve_wall: float | None = None
    acknowledged_by: str = ""
    acknowledge_comment: str = ""
    silenced_until_wall: float | None = None
    sent: Severity | None = None
    returns: int = 0
    deliveries: tuple[Delivery, ...] = ()

    @property
    def name(self) -> str:
        """alerts/{id}."""
        return f"alerts/{self.id}"

    @property
    def holds(self) -> bool:
        """Whether it has fired and is not over."""
        return self.state in (AlertState.FIRING, AlertState.ACKNOWLEDGED)

    @property
    def who(self) -> str:
        """Its subject as people know it."""
        return self.alias or self.subject

    @property
    def words(self) -> str:
        """The summary without its subject."""
        return self.summary.removeprefix(f"{self.who}: ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Until its end nobody is sent what a rule says of a subject; "" is for all of them."""

    rule: str
    subject: str
    end: Deadline
    actor: str
    comment: str = ""

    def covers(self, alert: Alert) -> bool:
        """Whether the alert is one of those."""
        return self.rule in ("", alert.rule) and self.subject in ("", alert.subject)
