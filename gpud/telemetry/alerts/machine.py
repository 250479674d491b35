"""Pure: the life of one alert: pending, firing, acknowledged, resolved.

What cannot be told now neither fires nor clears: that time counts for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from gpud.clock import Moment
from gpud.telemetry.alerts.alert import Alert, AlertState
from gpud.telemetry.alerts.rules.rule import Observation, Rule
from gpud.telemetry.alerts.rules.words import span
from gpud.telemetry.alerts.silences import MAX_SECONDS

# A subject that is not told of any more may be on its way back: an engine that is started again.
GONE_SECONDS: Final = 60.0
# Who fires again within so long has returned; and from so many returns on it comes and goes.
RETURN_SECONDS: Final = 300.0
MOST_RETURNS: Final = 3
# What is over stays listed for so long, and until who knows of it was told: a silence may last.
LISTED_SECONDS: Final = 3600.0
UNTOLD_SECONDS: Final = MAX_SECONDS + LISTED_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One rule of one subject. `alert` has fired; `pending` may. Seconds of boottime.

    `held`: since when it holds, while it is pending. `clear`: since when it holds no more, of one
    that fires or is over. `seen`: when its subject was last told of.
    """

    seen: float
    alert: Alert | None = None
    pending: Alert | None = None
    held: float = 0.0
    clear: float | None = None

    @property
    def fires(self) -> bool:
        """Whether it has fired and is not over."""
        return self.alert is not None and self.alert.holds

    @property
    def shown(self) -> Alert:
        """As it is told: what may fire goes before what is over."""
        found = self.pending or self.alert
        assert found is not None  # noqa: S101 — there is no case without one
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """By what a case is judged. `quiet_seconds`: how long it has to be clear to be over.

    `absence_clears`: the rule tells of all that it holds of, so who is not told of is clear.
    """

    rule: Rule
    quiet_seconds: float
    absence_clears: bool


def restored(alert: Alert, now: Moment) -> Case:
    """One of an earlier life of the daemon: what fires goes on until it is seen to be over."""
    if alert.holds:
        return Case(seen=now.boottime, alert=alert)
    ago = max(0.0, now.wall - (alert.resolve_wall or 0.0))
    return Case(seen=now.boottime, alert=alert, clear=now.boottime - ago)


def step(
    case: Case | None, seen: Observation | None, id_: str, terms: Terms, now: Moment
) -> Case | None:
    """The case after one more look; None: there is none (any more).

    `seen` None: the look told nothing of the subject. `id_` is a new alert's.
    """
    if seen is not None:
        if seen.holds is None:
            return case and paused(case, now)
        if seen.holds:
            return _held(case, seen, id_, terms, now)
    if case is None:
        return None
    if seen is None and not terms.absence_clears:
        if case.fires and now.boottime - case.seen < GONE_SECONDS:
            return case
        return over(case, now) if case.fires else _cleared(case, seen, terms, now)
    return _cleared(replace(case, seen=now.boottime), seen, terms, now)


def paused(case: Case, now: Moment) -> Case:
    """Nobody can tell, or could since it was last told of: both clocks stand still."""
    passed = now.boottime - case.seen
    moved = None if case.clear is None else case.clear + passed
    is_over = case.alert is not None and not case.alert.holds
    return replace(
        case,
        seen=now.boottime,
        held=case.held + passed,
        clear=case.clear if is_over else moved,
    )


def over(case: Case, now: Moment, seen: Observation | None = None) -> Case:
    """It has ended; `seen` tells how it is now, None: its rule or its subject is gone."""
    alert = case.alert
    assert alert is not None  # noqa: S101 — it fires
    if seen is not None and seen.words:
        quiet = 0.0 if case.clear is None else now.boottime - case.clear
        lasting = f", for {span(round(quiet))}" if quiet >= 1 else ""
        alert = replace(alert, value=seen.value, summary=f"{alert.who}: {seen.words}{lasting}")
    else:
        alert = replace(alert, summary=f"{alert.who}: over; it was: {alert.words}")
    alert = replace(alert, state=AlertState.RESOLVED, resolve_wall=now.wall)
    return replace(case, alert=alert, pending=None, clear=now.boottime)


def is_listed(case: Case, now: Moment) -> bool:
    """Whether what is over is kept for a while yet."""
    alert = case.alert
    waits = alert is not None and (
        alert.sent is not None or any(each.is_waiting for each in alert.deliveries)
    )
    over_for = 0.0 if case.clear is None else now.boottime - case.clear
    return over_for < (UNTOLD_SECONDS if waits else LISTED_SECONDS)


def told(case: Case, now: Moment) -> Alert:
    """As it stands now: one that is not over yet, but may be before long, says so."""
    if not case.fires or case.clear is None:
        return case.shown
    quiet = span(round(now.boottime - case.clear))
    return replace(case.shown, summary=f"{case.shown.summary} (no longer so for {quiet})")


def acknowledged(alert: Alert, by: str, comment: str) -> Alert:
    """Somebody knows of it."""
    return replace(
        alert,
        state=AlertState.ACKNOWLEDGED,
        acknowledged_by=by,
        acknowledge_comment=comment,
    )


def _held(case: Case | None, seen: Observation, id_: str, terms: Terms, now: Moment) -> Case:
    if case is not None and case.fires:
        return _goes_on(case, seen, terms, now)
    pending = case.pending if case is not None else None
    since, held = (now.wall, now.boottime)
    if case is not None and pending is not None:
        since, held = pending.since_wall, case.held
    pending = _told(
        Alert(
            id=id_,
            rule=terms.rule.name,
            severity=terms.rule.severity_of(seen),
            state=AlertState.PENDING,
            subject=seen.subject,
            since_wall=since,
            summary="",
        ),
        seen,
        terms.rule,
    )
    if now.boottime - held >= terms.rule.for_seconds:
        return _fired(case, pending, now)
    known = case or Case(seen=now.boottime)
    return replace(known, seen=now.boottime, pending=pending, held=held)


def _fired(case: Case | None, pending: Alert, now: Moment) -> Case:
    """One that returns so often that it comes and goes stays acknowledged."""
    last, alert = (
        case.alert if case else None,
        replace(pending, state=AlertState.FIRING, fire_wall=now.wall),
    )
    has_returned = (
        last is not None
        and case is not None
        and case.clear is not None
        and now.boottime - case.clear < RETURN_SECONDS
    )
    if last is not None and has_returned:
        alert = replace(
            alert, returns=last.returns + 1, sent=last.sent, deliveries=last.deliveries
        )
        if alert.returns >= MOST_RETURNS and last.acknowledged_by:
            alert = acknowledged(alert, last.acknowledged_by, last.acknowledge_comment)
    return Case(seen=now.boottime, alert=alert)


def _goes_on(case: Case, seen: Observation, terms: Terms, now: Moment) -> Case:
    """One that has become graver is news, also to who acknowledged it."""
    assert case.alert is not None  # noqa: S101 — it fires
    severity = terms.rule.severity_of(seen)
    alert = case.alert
    if severity > alert.severity and alert.state is AlertState.ACKNOWLEDGED:
        alert = replace(alert, state=AlertState.FIRING, acknowledged_by="", acknowledge_comment="")
    is_same = (alert.severity, alert.value) == (severity, seen.value)
    if not is_same or not alert.summary.endswith(seen.words):
        alert = _told(replace(alert, severity=severity), seen, terms.rule)
    return Case(seen=now.boottime, alert=alert)


def _cleared(case: Case, seen: Observation | None, terms: Terms, now: Moment) -> Case | None:
    """It holds no more: what was pending is dropped, what fires is over once that has lasted."""
    case = replace(case, pending=None)
    if case.alert is None:
        return None
    if not case.alert.holds:
        return case if is_listed(case, now) else None
    clear = now.boottime if case.clear is None else case.clear
    if now.boottime - clear >= terms.quiet_seconds:
        return over(replace(case, clear=clear), now, seen)
    return replace(case, clear=clear)


def _told(alert: Alert, seen: Observation, rule: Rule) -> Alert:
    """With what is seen now."""
    alias = seen.alias or alert.alias
    who = alias or alert.subject
    names_it = seen.words.startswith(f"{who} ")
    return replace(
        alert,
        alias=alias,
        value=seen.value,
        threshold=seen.threshold,
        unit=seen.unit,
        summary=seen.words if names_it else f"{who}: {seen.words}",
        remedy=seen.remedy or rule.remedy,
    )
