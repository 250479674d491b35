"""Pure: the rules in force: what gpud brings, as the configuration changes it, and its own.

Raises ConfigInvalid where a rule could not be meant.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import Final

from gpud.errors import ConfigInvalid, OptionInvalid
from gpud.settings import AlertRule, Alerts
from gpud.telemetry.alerts.alert import Severity
from gpud.telemetry.alerts.rules.built_in import BUILT_IN
from gpud.telemetry.alerts.rules.levels import place_of, unit_of
from gpud.telemetry.alerts.rules.rule import Level, Rule

_OF_LEVELS: Final = ("field", "subject", "above", "below", "clear")
_LIKE: Final = 0.8


def rules_of(settings: Alerts) -> tuple[Rule, ...]:
    """Every rule that is on; none where alerts are off. Raises ConfigInvalid."""
    found = dict(BUILT_IN)
    for name, said in settings.rules.items():
        try:
            found[name] = _changed(found[name], said) if name in found else _own(name, said)
        except OptionInvalid as error:
            raise ConfigInvalid(
                f"cannot use the configuration: alerts.rules.{name}.{error.field}: {error.problem}"
            ) from error
    off = {name for name, said in settings.rules.items() if not said.on}
    return tuple(rule for rule in found.values() if settings.on and rule.name not in off)


def _changed(rule: Rule, said: AlertRule) -> Rule:
    what = rule.what
    if isinstance(what, Level):
        what = _level(said, what)
    else:
        for key in _OF_LEVELS:
            if getattr(said, key) not in ("", None):
                problem = f"{rule.name} has no threshold of its own; say on, for, severity, sinks"
                raise OptionInvalid(field=key, problem=problem)
    return replace(
        rule,
        what=what,
        severity=_severity(said) or rule.severity,
        for_seconds=rule.for_seconds if said.for_ is None else float(said.for_),
        sinks=said.sinks,
    )


def _own(name: str, said: AlertRule) -> Rule:
    if not said.field:
        near = difflib.get_close_matches(name, BUILT_IN, n=1, cutoff=_LIKE)
        hint = f"did you mean {near[0]}? " if near else ""
        problem = f"is missing: {hint}a rule of one's own says what it watches"
        raise OptionInvalid(field="field", problem=problem)
    return Rule(
        name=name,
        what=_level(said, None),
        severity=_severity(said) or Severity.WARNING,
        for_seconds=float(said.for_ or 0.0),
        sinks=said.sinks,
        remedy="a rule of the configuration",
    )


def _level(said: AlertRule, base: Level | None) -> Level:
    """A level as said, and the rest as in `base`."""
    field = said.field or (base.field if base is not None else "")
    unit, (noun, only) = unit_of(field), place_of(field, said.subject)
    if base is not None and field == base.field and not said.subject:
        noun, only = base.noun, base.only
    above, below = said.above, said.below
    if above is not None and below is not None:
        raise OptionInvalid(field="below", problem="stands beside above; make two rules of it")
    if above is None and below is None:
        if base is None or field != base.field:
            raise OptionInvalid(field="above", problem="is missing; say above, or below")
        above, below = base.above, base.below
    words = base.words if base is not None and field == base.field else f"{field} is"
    level = Level(
        field=field, noun=noun, unit=unit, words=words, above=above, below=below, only=only
    )
    return replace(level, clear=_clear(said, base, level))


def _clear(said: AlertRule, base: Level | None, level: Level) -> float:
    """Where it is over: as said; else as far from the threshold as gpud has it for this field."""
    edge, is_above = level.threshold, level.above is not None
    if said.clear is not None:
        if said.clear > edge if is_above else said.clear < edge:
            side = "above" if is_above else "below"
            problem = f"{said.clear:g} is {side} {edge:g}: it would be over before it fires"
            raise OptionInvalid(field="clear", problem=problem)
        return said.clear
    is_like = base is not None and base.field == level.field
    if not is_like or base is None or (base.above is not None) is not is_above:
        return edge
    gap = abs(base.threshold - base.clear)
    return edge - gap if is_above else edge + gap


def _severity(said: AlertRule) -> Severity | None:
    return Severity[said.severity.upper()] if said.severity else None
