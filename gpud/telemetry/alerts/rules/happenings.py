"""Pure: what events of the journal say that goes on, until they say that it is over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from gpud.clock import Moment
from gpud.devices.verdict.xids import XIDS
from gpud.events import Event
from gpud.telemetry.alerts.alert import Alert, Severity
from gpud.telemetry.alerts.rules.rule import Happening, Observation, Rule

ENDED: Final = ".ended"
# A process that was ended leaves this one; it is no fault.
_CLEANED_UP: Final = 45


@dataclass(frozen=True, slots=True, kw_only=True)
class _Occurrence:
    """One that goes on; `until` is boottime seconds, None until its end is told."""

    subject: str
    alias: str
    words: str
    severity: Severity | None
    until: float | None


class Happenings:
    """What goes on, by rule, subject and key. In memory alone: what tells it tells it again.

    Nothing is left out, or its end would be nobody's: each ends by itself, or lasts for as long as
    whoever tells of it keeps it as well.
    """

    def __init__(self) -> None:
        self._rules: dict[str, Rule] = {}
        self._open: dict[str, dict[tuple[str, ...], _Occurrence]] = {}

    def configure(self, rules: Iterable[Rule]) -> None:
        """Watch for the events of these rules."""
        happening = [rule for rule in rules if isinstance(rule.what, Happening)]
        self._rules = {_what(rule).type: rule for rule in happening}
        names = {rule.name for rule in happening}
        self._open = {name: found for name, found in self._open.items() if name in names}

    def wants(self, type_: str) -> bool:
        """Whether events of the type matter."""
        return type_.removesuffix(ENDED) in self._rules

    def take(self, event: Event, now: Moment) -> None:
        """An event of a type that matters."""
        rule = self._rules[event.type.removesuffix(ENDED)]
        what, found = _what(rule), self._open.setdefault(rule.name, {})
        key = (event.subject, *(event.details.get(name, "") for name in what.key))
        if event.type.endswith(ENDED):
            found.pop(key, None)
            return
        severity = None
        if what.severity_of is not None:
            severity = what.severity_of(event)
            if severity is None:
                return
        hold = what.hold_seconds
        found[key] = _Occurrence(
            subject=event.subject,
            alias=event.details.get("alias", ""),
            words=event.reason,
            severity=severity,
            until=None if hold is None else now.boottime + hold,
        )

    def restore(self, alert: Alert, now: Moment) -> None:
        """One that fired before a restart goes on for what is left of its time."""
        for rule in self._rules.values():
            hold = _what(rule).hold_seconds
            if rule.name == alert.rule and hold is not None and alert.fire_wall is not None:
                left = min(hold, max(0.0, alert.fire_wall + hold - now.wall))
                self._open.setdefault(rule.name, {})[(alert.subject,)] = _Occurrence(
                    subject=alert.subject,
                    alias=alert.alias,
                    words=alert.words,
                    severity=alert.severity,
                    until=now.boottime + left,
                )

    @property
    def go_on(self) -> bool:
        """Whether anything does, or did when it was last looked at."""
        return any(self._open.values())

    def settle(self, rule: Rule, subject: str) -> None:
        """What goes on of a subject is over: somebody else has told of it."""
        found = self._open.get(rule.name, {})
        for key in [key for key, one in found.items() if one.subject == subject]:
            del found[key]

    def look(self, rule: Rule, now: Moment) -> Iterator[Observation]:
        """Of each subject the gravest that goes on, and how many there are."""
        found = self._open.get(rule.name, {})
        for key in [
            key
            for key, one in found.items()
            if one.until is not None and one.until <= now.boottime
        ]:
            del found[key]
        by_subject: dict[str, list[_Occurrence]] = {}
        for one in found.values():
            by_subject.setdefault(one.subject, []).append(one)
        for subject, own in by_subject.items():
            worst = max(reversed(own), key=lambda one: one.severity or 0)
            more = f" (and {len(own) - 1} more)" if len(own) > 1 else ""
            yield Observation(
                subject=subject,
                alias=worst.alias,
                holds=True,
                words=f"{worst.words}{more}",
                severity=worst.severity,
                value=float(len(own)),
                unit="count",
            )


def xid_severity(event: Event) -> Severity | None:
    """How grave an error is that a driver reported; None: it is none."""
    text = event.details.get("xid", "")
    number = int(text) if text.isdecimal() else 0
    if number == _CLEANED_UP:
        return None
    known = XIDS.get(number)
    if known is None:
        return Severity.WARNING
    if known.is_fatal:
        return Severity.CRITICAL
    return Severity.INFO if known.action.name == "NONE" else Severity.WARNING


def _what(rule: Rule) -> Happening:
    assert isinstance(rule.what, Happening)  # noqa: S101 — only such are kept
    return rule.what
