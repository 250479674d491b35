"""Pure: one series foretold over a horizon, with an interval, or why it cannot be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gpud.telemetry.forecast.backtest import Case, judged
from gpud.telemetry.forecast.methods import Method, candidates

# Steps of a horizon, and how many horizons of past are looked at, and needed at least.
STEPS = 6
PAST_HORIZONS = 60
LEAST_HORIZONS = 5
CONFIDENCE = 0.8
# A hole of so many steps at most is filled with the value before it; a wider one is a gap.
_LONGEST_HOLE = 2
_DAY_SECONDS = 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A series up to now, a value for each step of `step` seconds, the newest last; None: unseen.

    `base` is the part of each value that is held to stay as it is now (the promises' own use), so
    that loads and unloads are not taken for a trend; empty: none is known. `before_seconds`: since
    when before the first value it has been seen, which is less than a step.
    """

    step: float
    values: Sequence[float | None]
    base: Sequence[float | None] = ()
    before_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """How it goes on: expected step by step, and at the end between low and high."""

    path: tuple[float, ...]
    low: float
    high: float
    method: str
    newest_error: float  # by how much it was off of what is now, a horizon ago
    past_error: float | None
    past_coverage: float | None
    past_seconds: float
    cases: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TooLittle:
    """There is not enough to go by."""

    have_seconds: float
    need_seconds: float


def outlook(past: Past, steps: int = STEPS, confidence: float = CONFIDENCE) -> Outlook | TooLittle:
    """Foretell the next `steps` steps of a series from its own past.

    Methods are tried on the values as they are and, where a base is told, on what is beside it.
    """
    runs = list(_runs(past))
    have = sum(len(run.values) - 1 for run in runs) * past.step
    need = LEAST_HORIZONS * steps * past.step
    too_little = TooLittle(have_seconds=have + past.before_seconds, need_seconds=need)
    if not runs or have < need or runs[-1].end < len(past.values) - _LONGEST_HOLE:
        return too_little
    methods = candidates(steps, _day(past.step))
    told = [_told(run, methods, steps) for run in runs]
    names = [*(m.name for m in methods), *(m.name for m in methods if past.base)]
    cases = [
        case for run, paths in zip(runs, told, strict=True) for case in _cases(run, paths, steps)
    ]
    verdict = judged(cases, len(names), steps, confidence)
    path = told[-1][verdict.method][-1] if verdict is not None else None
    if verdict is None or path is None:
        return too_little
    return Outlook(
        path=tuple(path),
        low=path[-1] + verdict.low,
        high=path[-1] + verdict.high,
        method=names[verdict.method],
        newest_error=verdict.newest_error,
        past_error=verdict.past_error,
        past_coverage=verdict.past_coverage,
        past_seconds=have,
        cases=verdict.cases,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """A part of the past without a gap; `end` is the index after its last value."""

    end: int
    values: list[float]
    base: list[float]


def _runs(past: Past) -> Iterator[_Run]:
    values: list[float] = []
    base: list[float] = []
    hole = 0
    for at, value in enumerate(past.values):
        part = past.base[at] if past.base else 0.0
        if value is None or part is None:
            hole += 1
            continue
        if values and hole > _LONGEST_HOLE:
            yield _Run(end=at - hole, values=values, base=base)
            values, base = [], []
        elif values:
            values += values[-1:] * hole
            base += base[-1:] * hole
        hole = 0
        values.append(value)
        base += [part] if past.base else []
    if values:
        yield _Run(end=len(past.values) - hole, values=values, base=base)


def _told(run: _Run, methods: Sequence[Method], steps: int) -> list[list[list[float] | None]]:
    """By method, from each point: the next steps; with a base first of what is beside it.

    Of two that were off as much the first is taken, and a base that changes but now is no trend.
    """
    whole = [method.ahead(run.values, steps) for method in methods]
    if not run.base:
        return whole
    rest = [value - part for value, part in zip(run.values, run.base, strict=True)]
    beside = [
        [
            None if path is None else [each + part for each in path]
            for path, part in zip(method.ahead(rest, steps), run.base, strict=True)
        ]
        for method in methods
    ]
    return beside + whole


def _cases(run: _Run, told: list[list[list[float] | None]], steps: int) -> Iterator[Case]:
    begin = run.end - len(run.values)
    for at in range(len(run.values) - steps):
        came = run.values[at + steps]
        yield Case(
            told=[None if (path := paths[at]) is None else path[-1] for paths in told],
            off=[_off(paths[at : at + steps], came) for paths in told],
            came=came,
            index=begin + at,
        )


def _off(paths: Sequence[Sequence[float] | None], came: float) -> float | None:
    """By how much a horizon's paths, the one from its begin first, were off of what came then."""
    far = 0.0
    for at, path in enumerate(paths, start=1):
        if path is None:
            return None
        far += abs(path[-at] - came)
    return far / len(paths)


def _day(step: float) -> int | None:
    """How many steps a day has; None: no whole number."""
    day = round(_DAY_SECONDS / step)
    return day if day >= 2 and math.isclose(day * step, _DAY_SECONDS) else None
