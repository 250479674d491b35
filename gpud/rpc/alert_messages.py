"""Alerts and silences as protobuf, and what is asked of them."""

from __future__ import annotations

from collections.abc import Sequence

from gpud.devices.snapshot import Snapshot
from gpud.errors import OptionInvalid
from gpud.rpc import messages
from gpud.rpc.messages import stamp
from gpud.telemetry.alerts.alert import Alert, AlertState, Delivery, Severity, Silence
from gpud.telemetry.alerts.silences import MAX_SECONDS, MIN_SECONDS
from gpud.v1 import alerts_pb2

# Alert.subject, but for devices, which are known by their aliases too.
_NOUNS = ("instances", "models", "reservations")
_NODE = "node"


def alert(value: Alert) -> alerts_pb2.Alert:
    """An alert as told."""
    return alerts_pb2.Alert(
        name=value.name,
        rule=value.rule,
        severity=f"ALERT_SEVERITY_{value.severity.name}",
        state=f"ALERT_STATE_{value.state.name}",
        since=stamp(value.since_wall),
        fire_time=stamp(value.fire_wall),
        resolve_time=stamp(value.resolve_wall),
        subject=value.subject,
        alias=value.alias,
        value=value.value,
        threshold=value.threshold,
        unit=value.unit,
        summary=value.summary,
        remedy=value.remedy,
        acknowledged_by=value.acknowledged_by,
        acknowledge_comment=value.acknowledge_comment,
        silenced_until=stamp(value.silenced_until_wall),
        deliveries=[_delivery(each) for each in value.deliveries],
        return_count=value.returns,
    )


def _delivery(value: Delivery) -> alerts_pb2.Delivery:
    return alerts_pb2.Delivery(
        sink=value.sink,
        time=stamp(value.wall),
        delivered=value.delivered,
        attempts=value.attempts,
        problem=value.problem,
        told=f"ALERT_STATE_{value.told.name}",
        waiting=value.is_waiting,
    )


def silences(values: Sequence[Silence]) -> list[alerts_pb2.Silence]:
    """Silences as told."""
    return [
        alerts_pb2.Silence(
            rule=value.rule,
            subject=value.subject,
            end_time=stamp(value.end.wall),
            actor=value.actor,
            comment=value.comment,
        )
        for value in values
    ]


def asked(request: alerts_pb2.ListAlertsRequest, known: Sequence[Alert]) -> list[Alert]:
    """Those that the request is about, in the order of `key`. Raises OptionInvalid."""
    numbers = alerts_pb2.AlertSeverity.DESCRIPTOR.values_by_number
    messages.checked_enum("min_severity", request.min_severity, numbers)
    found = [
        each
        for each in known
        if each.severity >= request.min_severity
        and (request.include_resolved or each.state is not AlertState.RESOLVED)
    ]
    return sorted(found, key=key)


def key(value: Alert) -> str:
    """Its place in a list: the gravest first."""
    return f"{max(Severity) - value.severity}/{value.id}"


def silence_span(request: alerts_pb2.SilenceAlertsRequest) -> float:
    """For how many seconds; 0 ends a silence. Raises OptionInvalid."""
    seconds = messages.checked_span("duration", request, 0.0, MAX_SECONDS)
    if seconds is None:
        raise OptionInvalid(field="duration", problem="is missing; say for how long")
    if 0 < seconds < MIN_SECONDS:
        problem = f"{seconds:g} s is below {MIN_SECONDS:g} s; 0 ends a silence"
        raise OptionInvalid(field="duration", problem=problem)
    return seconds


def silence_subject(text: str, snapshot: Snapshot | None) -> str:
    """Alert.subject of a name or an alias; "" for all. Raises OptionInvalid, DeviceNotFound."""
    subject = messages.checked_text("subject", text)
    noun, _, id_ = subject.partition("/")
    if subject in ("", _NODE) or (noun in _NOUNS and id_):
        return subject
    return f"devices/{messages.checked_device('subject', subject, snapshot).info.uuid}"
