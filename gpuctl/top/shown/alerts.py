"""Pure: the list of alerts."""

from __future__ import annotations

from collections.abc import Iterable

from gpuctl.glance.trouble import alert_subject
from gpuctl.messages import seconds_of, word
from gpuctl.tables import clean
from gpuctl.top.shown.field import Cell, Field, cell, number_field, text_field
from gpuctl.units import span_text
from gpud.v1.alerts_pb2 import Alert, AlertSeverity, AlertState

_SEVERITY = {
    AlertSeverity.ALERT_SEVERITY_CRITICAL: "bad",
    AlertSeverity.ALERT_SEVERITY_WARNING: "warn",
}


def alert_tone(alert: Alert) -> str:
    """That of its severity while it fires."""
    return _SEVERITY.get(alert.severity, "") if _is_firing(alert) else "dim"


def alert_fields(now: float) -> tuple[Field[Alert], ...]:
    """`now` by gpud's clock."""
    return (
        Field(
            header="STATE",
            cell=_standing,
            key=lambda a: float(a.severity) + 10 * _is_firing(a),
            width=12,
            grows=9,
        ),
        text_field("ABOUT", lambda a: clean(alert_subject(a)), 8, grows=12, least=6),
        text_field("RULE", lambda a: clean(a.rule), 15, grows=10, rank=2),
        number_field(
            "SINCE", lambda a: span_text(_age(a, now)), lambda a: _age(a, now), 6, rank=1
        ),
        # Nearly all of 80 columns: it is what the list is read for.
        text_field("WHAT", _what, 47, grows=120, least=10),
    )


def by_need(alerts: Iterable[Alert]) -> list[Alert]:
    """As gpud orders them, but what needs nobody last: it is known, silenced, or no more."""
    return sorted(alerts, key=lambda alert: not _is_firing(alert))


def _age(alert: Alert, now: float) -> float:
    return max(0.0, now - seconds_of(alert.since))


def _is_firing(alert: Alert) -> bool:
    return alert.state == AlertState.ALERT_STATE_FIRING and not alert.HasField("silenced_until")


def _state(alert: Alert) -> str:
    return "SILENCED" if alert.HasField("silenced_until") else word(alert, "state")


def _standing(alert: Alert, width: int) -> Cell:
    """How grave it is; of one that needs nobody that first, and where there is room both."""
    severity, state = word(alert, "severity"), _state(alert)
    if _is_firing(alert):
        return cell(severity, alert_tone(alert))
    both = f"{state} {severity}"
    return cell(both if len(both) <= width else state, alert_tone(alert))


def _what(alert: Alert) -> str:
    """The summary, without the subject that has a column of its own."""
    summary = clean(alert.summary)
    return summary.removeprefix(f"{clean(alert_subject(alert))}: ")


def alert_text(alert: Alert) -> str:
    """What a filter looks into."""
    words = (alert.rule, alert_subject(alert), alert.summary)
    return clean(" ".join((*words, word(alert, "severity"), _state(alert))))
