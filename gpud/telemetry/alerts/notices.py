"""Pure: who is told what of an alert, and when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from gpud.clock import Moment
from gpud.telemetry.alerts.alert import Alert, AlertState, Delivery, Severity, Silence
from gpud.telemetry.alerts.machine import MOST_RETURNS, RETURN_SECONDS, Case
from gpud.telemetry.alerts.rules.rule import Rule

VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """That an alert fires, or is over, for one sink. `wall` is when that was decided."""

    sink: str
    alert: Alert
    told: AlertState  # FIRING or RESOLVED
    wall: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """By what notices are made: silences, the least severity of each sink, and how often again.

    `repeat_seconds` 0: never.
    """

    silences: tuple[Silence, ...] = ()
    least: Mapping[str, Severity] = field(default_factory=dict)
    repeat_seconds: float = 0.0

    def silenced_until(self, alert: Alert, now: Moment) -> float | None:
        """Until when (wall) nobody is sent it; None: it is not silenced."""
        left = [
            silence.end.remaining_seconds(now)
            for silence in self.silences
            if silence.covers(alert)
        ]
        longest = max(left, default=0.0)
        return now.wall + longest if longest > 0 else None

    def sinks_of(self, alert: Alert, told: AlertState, rule: Rule | None) -> list[str]:
        """Who is told: that it fires, whom its severity concerns; that it is over, who knows."""
        if told is AlertState.RESOLVED:
            known = {each.sink for each in alert.deliveries if each.told is AlertState.FIRING}
            return [name for name in self.least if name in known]
        named = rule.sinks if rule is not None else None
        return [
            name
            for name, least in self.least.items()
            if alert.severity >= least and (named is None or name in named)
        ]


def due(case: Case, telling: Telling, last_sent: float | None, now: Moment) -> AlertState | None:
    """What is to be told of an alert now; None: nothing. `last_sent` is boottime seconds.

    That it fires: when it begins, when it has become graver, and once a silence is over. That it
    is over: to who was told that it fires. Of one that comes and goes only once it stays away.
    """
    alert = case.alert
    if alert is None or telling.silenced_until(alert, now) is not None:
        return None
    if alert.state is AlertState.RESOLVED:
        if alert.sent is None:
            return None
        away = now.boottime - (case.clear if case.clear is not None else now.boottime)
        settled = alert.returns < MOST_RETURNS or away >= RETURN_SECONDS
        return AlertState.RESOLVED if settled else None
    if alert.state is not AlertState.FIRING:
        return None
    if alert.sent is None or alert.severity > alert.sent:
        return AlertState.FIRING
    again = telling.repeat_seconds
    if again and last_sent is not None and now.boottime - last_sent >= again:
        return AlertState.FIRING
    return None


def last_told(alert: Alert, now: Moment) -> float:
    """When (boottime seconds) the newest delivery of an earlier life was decided on."""
    newest = max((each.wall for each in alert.deliveries), default=now.wall)
    return now.boottime - max(0.0, now.wall - newest)


def sent(alert: Alert, told: AlertState, sinks: Iterable[str], wall: float) -> Alert:
    """The alert once these are being told. Of each sink the newest delivery is kept."""
    knew = {each.sink for each in alert.deliveries if _knows(each)}
    fresh = tuple(Delivery(sink=sink, wall=wall, told=told, knew=sink in knew) for sink in sinks)
    names = {each.sink for each in fresh}
    kept = tuple(each for each in alert.deliveries if each.sink not in names)
    severity = alert.severity if told is AlertState.FIRING else None
    return replace(alert, sent=severity, deliveries=(*kept, *fresh))


def _knows(newest: Delivery) -> bool:
    """Whether the sink's last word is that the alert fires."""
    return newest.told is AlertState.FIRING if newest.delivered else newest.knew


def settled(alert: Alert, delivery: Delivery) -> Alert:
    """The alert with the outcome of a delivery, unless a newer one is under way."""
    return replace(
        alert,
        deliveries=tuple(
            replace(delivery, knew=each.knew)
            if (each.sink, each.wall) == (delivery.sink, delivery.wall)
            else each
            for each in alert.deliveries
        ),
    )


def is_owed(alert: Alert, taken: Delivery) -> bool:
    """Whether who has just taken another notice was not told how this alert stands.

    It was given up there, and not after the other was decided on: or what a sink refuses for good
    would be offered to it with each that it takes. That it is over is owed to who knew of it.
    """
    return any(
        each.sink == taken.sink
        and each.told is alert.state
        and (each.told is AlertState.FIRING or each.knew)
        and not (each.delivered or each.is_waiting)
        and each.wall <= taken.wall
        for each in alert.deliveries
    )


def body(notice: Notice, node: str) -> dict[str, Any]:
    """What a sink gets, as JSON. `id` is the same when the same is sent again."""
    alert, told = notice.alert, notice.told.value
    return {
        "version": VERSION,
        "id": f"{alert.id}/{told}/{notice.wall:.3f}",
        "told": told,
        "time": _stamp(notice.wall),
        "node": node,
        "alert": {
            "name": alert.name,
            "rule": alert.rule,
            "severity": alert.severity.name.lower(),
            "state": alert.state.value,
            "subject": alert.subject,
            "alias": alert.alias,
            "summary": alert.summary,
            "remedy": alert.remedy,
            "value": alert.value,
            "threshold": alert.threshold,
            "unit": alert.unit,
            "since": _stamp(alert.since_wall),
            "fire_time": _stamp(alert.fire_wall),
            "resolve_time": _stamp(alert.resolve_wall),
            "comes_and_goes": alert.returns >= MOST_RETURNS,
        },
    }


def _stamp(wall: float | None) -> str | None:
    """RFC 3339 in UTC."""
    if wall is None:
        return None
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")
