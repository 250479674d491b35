"""Pure: what an alert is."""

from __future__ import annotations

import enum
from dataclasses import dataclass


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
class Alert:
    """A rule that holds of a subject. Walls are seconds since the epoch."""

    id: str
    rule: str
    severity: Severity
    state: AlertState
    subject: str  # devices/{uuid}, instances/{id}, models/{id}, node
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
