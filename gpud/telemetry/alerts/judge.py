"""Pure: every rule looked at in every sight, and what that comes to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from gpud.clock import Moment
from gpud.devices.snapshot import Sample
from gpud.events import Event
from gpud.ledger.charge import Charge, is_stale
from gpud.telemetry.alerts import machine
from gpud.telemetry.alerts.alert import Alert, Severity
from gpud.telemetry.alerts.machine import Case, Terms
from gpud.telemetry.alerts.rules import levels
from gpud.telemetry.alerts.rules.happenings import Happenings
from gpud.telemetry.alerts.rules.levels import LOW_USE, is_beyond, observed
from gpud.telemetry.alerts.rules.rule import Level, Observation, Rule, Sight, Sign
from gpud.telemetry.alerts.rules.signs import OF_DEVICES, is_calm
from gpud.telemetry.alerts.rules.trends import Trends, serving_devices
from gpud.telemetry.history.rows import engine_row, rests

# What is more than anybody reads is not begun; what is CRITICAL has as much room again.
MOST_CASES: Final = 2000
_ID_CHARS: Final = 8
_HAPPENINGS: Final = "happenings"

Key: TypeAlias = tuple[str, str]  # rule, subject


@dataclass(frozen=True, slots=True)
class Turn:
    """An alert before and after; before None: it was not told, after None: it is forgotten."""

    before: Alert | None
    after: Alert | None


class Judge:
    """All cases, by rule and subject."""

    def __init__(self, rules: Sequence[Rule], quiet_seconds: float) -> None:
        self.rules: dict[str, Rule] = {}
        self.cases: dict[Key, Case] = {}
        self.left_out = 0  # cases for which the newest look had no room
        self._keys: dict[str, Key] = {}  # by the id of what is shown of the case
        self.happenings = Happenings()
        self._quiet_seconds = quiet_seconds
        self._trends = Trends()
        self._levels: tuple[Level, ...] = ()  # of devices
        self._wanted_by: dict[tuple[str, ...], frozenset[str]] = {}  # rules by what is there
        self._calm: dict[
            str, tuple[Sample, Charge | None]
        ] = {}  # by UUID, as they were found calm
        self._configure(rules)

    def configure(self, rules: Sequence[Rule], quiet_seconds: float, now: Moment) -> list[Turn]:
        """Judge by other rules."""
        self._quiet_seconds = quiet_seconds
        self._configure(rules)
        return self.end_gone(now)

    def end_gone(self, now: Moment) -> list[Turn]:
        """What fires by a rule that is gone is over."""
        turns = []
        for key, case in list(self.cases.items()):
            if key[0] in self.rules:
                continue
            if case.fires:
                turns.append(self._put(key, machine.over(case, now)))
            elif case.pending is not None:
                self._put(key, replace(case, pending=None) if case.alert else None)
        return turns

    def _configure(self, rules: Sequence[Rule]) -> None:
        self.rules = {rule.name: rule for rule in rules}
        self.happenings.configure(rules)
        watched = (rule.what for rule in rules if isinstance(rule.what, Level))
        # How devices serve is looked at for those alone that do.
        self._levels = tuple(
            level for level in watched if level.noun == levels.DEVICES and level.field != LOW_USE
        )
        self._calm.clear()
        self._wanted_by.clear()

    def restore(self, alerts: Iterable[Alert], now: Moment) -> None:
        """Take up what an earlier life of the daemon knew."""
        for alert in alerts:
            self._put((alert.rule, alert.subject), machine.restored(alert, now))
            if alert.holds:
                self.happenings.restore(alert, now)

    def look(self, sight: Sight) -> list[Turn]:
        """One more look: the alerts that have changed in more than their numbers."""
        if sight.watched_since >= sight.now.boottime:
            self._leave_out(sight.now)
        loud = tuple(self._loud(sight))
        wanted, narrowed = self._wanted(sight, loud), self._narrowed(sight, loud)
        known: dict[str, list[str]] = {}
        for name, subject in self.cases:
            known.setdefault(name, []).append(subject)
        turns: list[Turn] = []
        self.left_out = 0
        for name, rule in self.rules.items():
            if name not in wanted and name not in known:
                continue
            seen = {each.subject: each for each in self._observations(rule, narrowed)}
            for subject in dict.fromkeys((*seen, *known.get(name, ()))):
                found = seen.get(subject)
                if found is not None and not found.alias:
                    found = replace(found, alias=_alias_of(subject, sight))
                turns += self._step(rule, subject, found, sight.now)
        turns += self._forget(sight.now)
        return turns

    def _leave_out(self, now: Moment) -> None:
        """Nobody has looked for a while: that time fires nothing, and clears nothing."""
        for key, case in self.cases.items():
            self.cases[key] = machine.paused(case, now)

    def _loud(self, sight: Sight) -> Iterator[Sample]:
        """Devices of which a rule may hold, or did: those that are not calm, or have a case.

        Each is asked about once, not by every rule: most are calm most of the time.
        """
        subjects, serving = {subject for _, subject in self.cases}, serving_devices(sight)
        for sample in sight.snapshot.samples:
            uuid = sample.info.uuid
            charge = sight.charges.get(uuid)
            if (
                not self._is_calm(sample, charge, sight.now.boottime)
                or uuid in serving
                or f"devices/{uuid}" in subjects
            ):
                yield sample

    def _is_calm(self, sample: Sample, charge: Charge | None, now_boottime: float) -> bool:
        """Whether no rule holds of it; what is known of the same figures is not asked again."""
        uuid = sample.info.uuid
        before, before_charge = self._calm.get(uuid, (None, None))
        if before is not None and before_charge is charge and rests(before, sample):
            return not is_stale(sample, now_boottime)
        calm = is_calm(sample, charge, now_boottime) and not any(
            is_beyond(level, sample, charge) for level in self._levels
        )
        if calm:
            self._calm[uuid] = sample, charge
        else:
            self._calm.pop(uuid, None)
        return calm

    def _wanted(self, sight: Sight, loud: Sequence[Sample]) -> frozenset[str]:
        """Rules (names) that may hold of something; the others have nothing to look at."""
        nouns = [levels.NODE]
        if loud:
            nouns.append(levels.DEVICES)
        if sight.engines:
            nouns += (levels.INSTANCES, levels.MODELS)
        if self.happenings.go_on:
            nouns.append(_HAPPENINGS)
        key = tuple(nouns)
        wanted = self._wanted_by.get(key)
        if wanted is None:
            names = (rule.name for rule in self.rules.values() if _noun_of(rule) in key)
            wanted = self._wanted_by[key] = frozenset(names)
        return wanted

    def _narrowed(self, sight: Sight, loud: tuple[Sample, ...]) -> Sight:
        """With what it takes more than a moment to tell, and without the devices that are calm."""
        trends: Mapping[str, Mapping[str, float | None]] = {}
        if sight.engines or self._trends.goes_on:
            trends = self._trends.see(sight)
        if not loud and not sight.engines:
            return sight  # no rule that is wanted looks at any
        rows = {id_: engine_row(reading) for id_, reading in sight.engines.items()}
        snapshot = replace(sight.snapshot, samples=loud)
        return replace(sight, snapshot=snapshot, trends=trends, engine_rows=rows)

    def _step(
        self, rule: Rule, subject: str, seen: Observation | None, now: Moment
    ) -> Iterator[Turn]:
        key = (rule.name, subject)
        case = self.cases.get(key)
        if case is None and not (seen is not None and seen.holds and self._has_room(rule, seen)):
            return
        terms = Terms(
            rule=rule,
            quiet_seconds=self._quiet_seconds,
            absence_clears=not isinstance(rule.what, Level),
        )
        turn = self._put(key, machine.step(case, seen, id_of(*key), terms, now))
        if _is_news(turn):
            yield turn

    def _has_room(self, rule: Rule, seen: Observation) -> bool:
        is_critical = rule.severity_of(seen) is Severity.CRITICAL
        has_room = len(self.cases) < MOST_CASES * (2 if is_critical else 1)
        self.left_out += not has_room
        return has_room

    def _put(self, key: Key, case: Case | None) -> Turn:
        before = self.cases.pop(key, None)
        if before is not None:
            self._keys.pop(before.shown.id, None)
        if case is not None:
            self.cases[key] = case
            self._keys[case.shown.id] = key
        return Turn(
            before.alert if before is not None else None, case.alert if case is not None else None
        )

    def _forget(self, now: Moment) -> Iterator[Turn]:
        """What is over, of rules that are gone."""
        for key, case in list(self.cases.items()):
            if key[0] not in self.rules and not machine.is_listed(case, now):
                yield self._put(key, None)

    def _observations(self, rule: Rule, sight: Sight) -> Iterator[Observation]:
        what = rule.what
        if isinstance(what, Level):
            return observed(what, sight, lambda subject: self._fires(rule.name, subject))
        if isinstance(what, Sign):
            return what.look(sight)
        return self._going_on(rule, sight.now)

    def _going_on(self, rule: Rule, now: Moment) -> Iterator[Observation]:
        """Without what is told within another rule's alert, to the same sinks."""
        wider = self.rules.get(rule.within)
        has_wider = wider is not None and wider.sinks == rule.sinks
        for each in self.happenings.look(rule, now):
            if has_wider and self._fires(rule.within, each.subject):
                self.happenings.settle(rule, each.subject)
            else:
                yield each

    def _fires(self, rule: str, subject: str) -> bool:
        case = self.cases.get((rule, subject))
        return case is not None and case.fires

    def happened(self, event: Event, now: Moment) -> None:
        """An event of a type that `happenings.wants`."""
        self.happenings.take(event, now)

    def alerts(self) -> Iterator[Alert]:
        """Every one, as it is told."""
        for case in self.cases.values():
            yield case.shown

    def told(self, now: Moment) -> Iterator[Alert]:
        """Every one, with what its next look may end."""
        return (machine.told(case, now) for case in self.cases.values())

    def put(self, alert: Alert) -> None:
        """Another version of an alert that has fired."""
        key = (alert.rule, alert.subject)
        self._put(key, replace(self.cases[key], alert=alert))

    def find(self, id_: str) -> Case | None:
        """The case of an alert's id."""
        key = self._keys.get(id_)
        return self.cases[key] if key is not None else None


def id_of(rule: str, subject: str) -> str:
    """The same for the same rule of the same subject, over restarts."""
    if "/" not in subject:
        return f"{rule}-{subject}"
    return f"{rule}-{hashlib.sha256(subject.encode()).hexdigest()[:_ID_CHARS]}"


def _noun_of(rule: Rule) -> str:
    """What a rule is about."""
    if isinstance(rule.what, Level):
        return rule.what.noun
    if isinstance(rule.what, Sign):
        return levels.DEVICES if rule.what.look in OF_DEVICES else levels.NODE
    return _HAPPENINGS


def _alias_of(subject: str, sight: Sight) -> str:
    named = (s.info.alias for s in sight.snapshot.samples if f"devices/{s.info.uuid}" == subject)
    return next(named, "")


def _is_news(turn: Turn) -> bool:
    """Whether more has changed than the numbers that it tells."""
    before, after = turn.before, turn.after
    if before is None or after is None:
        return before is not after
    return (
        before.state is not after.state
        or before.severity is not after.severity
        or before.fire_wall != after.fire_wall
    )
