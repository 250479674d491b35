"""Pure: what the journal tells of alerts and silences."""

from __future__ import annotations

from gpud.events import Event
from gpud.telemetry.alerts.alert import Alert, AlertState, Delivery, Silence
from gpud.telemetry.alerts.judge import Turn

# They begin with it, and so does what gpuctl follows.
FAMILY = "alert"


def turned(turn: Turn, wall: float) -> Event | None:
    """That an alert fires, or is over; None: what it has become is told by who did it."""
    alert = turn.after
    if alert is None or alert.state is AlertState.ACKNOWLEDGED:
        return None
    if alert.state is AlertState.RESOLVED:
        seconds = wall - (alert.fire_wall or wall)
        return _event("resolved", alert, wall, alert.summary, seconds=f"{max(0.0, seconds):.3f}")
    before = turn.before
    is_graver = before is not None and before.holds and before.severity is not alert.severity
    more = {"former_severity": before.severity.name} if before is not None and is_graver else {}
    return _event("changed" if is_graver else "firing", alert, wall, alert.summary, **more)


def acknowledged(alert: Alert, wall: float) -> Event:
    """That somebody knows."""
    event = _event("acknowledged", alert, wall, alert.acknowledge_comment or alert.summary)
    return Event(
        wall=wall,
        type=event.type,
        subject=event.subject,
        actor=alert.acknowledged_by,
        reason=event.reason,
        details=event.details,
    )


def undelivered(alert: Alert, delivery: Delivery, wall: float) -> Event:
    """That a sink was not told, after all its tries."""
    tries = "1 try" if delivery.attempts == 1 else f"{delivery.attempts} tries"
    told = "that it fires" if delivery.told is AlertState.FIRING else "that it is over"
    reason = f"{delivery.sink} was not told {told}, after {tries}: {delivery.problem}"
    more = {"sink": delivery.sink, "attempts": str(delivery.attempts)}
    return _event("undelivered", alert, wall, reason, **more)


def silenced(silence: Silence, seconds: float, wall: float) -> Event:
    """That nobody is sent something for a while."""
    told = f" ({silence.comment})" if silence.comment else ""
    reason = f"{covered(silence)}: nobody is sent it for {seconds:.0f} s{told}"
    return _silence_event("silenced", silence, silence.actor, reason, wall)


def unsilenced(silence: Silence, actor: str, wall: float) -> Event:
    """That it is sent again."""
    why = "its silence is over" if actor == "gpud" else "its silence was ended"
    return _silence_event("unsilenced", silence, actor, f"{covered(silence)}: {why}", wall)


def covered(silence: Silence) -> str:
    """What a silence is about, in words."""
    return f"{silence.rule or 'every rule'} of {silence.subject or 'everything'}"


def _event(type_: str, alert: Alert, wall: float, reason: str, **more: str) -> Event:
    details = {
        "rule": alert.rule,
        "severity": alert.severity.name,
        "of": alert.subject,
        **({"alias": alert.alias} if alert.alias else {}),
        **({"value": f"{alert.value:.6g}"} if alert.value is not None else {}),
        **({"threshold": f"{alert.threshold:.6g}"} if alert.threshold is not None else {}),
        **({"unit": alert.unit} if alert.unit else {}),
        **more,
    }
    return Event(
        wall=wall, type=f"{FAMILY}.{type_}", subject=alert.name, reason=reason, details=details
    )


def _silence_event(type_: str, silence: Silence, actor: str, reason: str, wall: float) -> Event:
    return Event(
        wall=wall,
        type=f"{FAMILY}.{type_}",
        subject=silence.subject or "node",
        actor=actor,
        reason=reason,
        details={"rule": silence.rule},
    )
