"""Pure: the list of alerts."""

from __future__ import annotations

from gpuctl.glance.trouble import alert_subject
from gpuctl.messages import seconds_of, word
from gpuctl.tables import clean
from gpuctl.top.shown.field import Field, cell, text_field
from gpuctl.units import span_text
from gpud.v1.alerts_pb2 import Alert, AlertSeverity, AlertState

_SEVERITY = {
    AlertSeverity.ALERT_SEVERITY_CRITICAL: "bad",
    AlertSeverity.ALERT_SEVERITY_WARNING: "warn",
}


def alert_tone(alert: Alert) -> str:
    """That of its severity while it fires."""
    fires = alert.state == AlertState.ALERT_STATE_FIRING
    return _SEVERITY.get(alert.severity, "") if fires else "dim"


def alert_fields(now: float) -> tuple[Field[Alert], ...]:
    """`now` by gpud's clock."""
    return (
        Field(
            header="SEVERITY",
            cell=lambda a, _: cell(word(a, "severity"), alert_tone(a)),
            key=lambda a: float(a.severity),
            width=8,
        ),
        Field(
            header="STATE",
            cell=lambda a, _: cell(_state(a), alert_tone(a)),
            key=_state,
            width=12,
        ),
        text_field("ABOUT", lambda a: clean(alert_subject(a)), 8, grows=12),
        text_field("RULE", lambda a: clean(a.rule), 15, grows=10, rank=1),
        Field(
            header="SINCE",
            cell=lambda a, _: cell(span_text(max(0.0, now - seconds_of(a.since)))),
            key=lambda a: now - seconds_of(a.since),
            width=6,
            right=True,
        ),
        text_field("WHAT", lambda a: clean(a.summary), 30, grows=140),
    )


def _state(alert: Alert) -> str:
    return "SILENCED" if alert.HasField("silenced_until") else word(alert, "state")


def alert_text(alert: Alert) -> str:
    """What a filter looks into."""
    words = (alert.rule, alert_subject(alert), alert.summary)
    return clean(" ".join((*words, word(alert, "severity"), _state(alert))))
