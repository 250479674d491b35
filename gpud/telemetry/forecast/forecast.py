"""Pure: what a device is expected to show at the end of a horizon, in memory and in heat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpud.telemetry.forecast.known import Known
from gpud.telemetry.forecast.outlook import (
    CONFIDENCE,
    LEAST_HORIZONS,
    Outlook,
    Past,
    TooLittle,
    outlook,
)

MEMORY = "memory_used_bytes"
TEMPERATURE = "temperature_celsius"
# No card is colder than what cools it (servers are made for air of 15 degrees and more: ASHRAE
# TC 9.9, class A1), nor hotter than where it turns itself off (NVIDIA's do before 110).
_COLDEST_CELSIUS, _HOTTEST_CELSIUS = 15.0, 110.0
# Heat stays near what was seen of it, but for so many times what a forecast is usually off by, or
# what the newest was: a load that began once is no reason to expect another on top of it.
_BEYOND_ERRORS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """One field of one device; either expected, low and high, or why there are none."""

    device: str  # UUID
    alias: str
    field: str
    now: float | None
    expected: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float = CONFIDENCE
    method: str = ""
    basis: str = ""
    past_error: float | None = None
    past_coverage: float | None = None
    known: tuple[Known, ...] = ()
    refusal: str = ""
    limit_wall: float | None = None  # when it comes to the device's edge, at the expected pace
    may_reach_limit: bool = False  # `high` is at that edge


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The device, what it shows now, and the horizon: so many steps, and of how many seconds."""

    device: str
    alias: str
    now_wall: float
    now: float | None
    steps: int
    step: float

    @property
    def horizon(self) -> float:
        """In seconds."""
        return self.steps * self.step


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """How much memory a device has, and how much of its room is taken, over time."""

    total_bytes: int
    room_bytes: int
    taken: Past


def memory_forecast(
    subject: Subject, used: Past, edge: Edge | None, known: Sequence[Known]
) -> Forecast:
    """Its memory: what is known to come, on top of how the rest goes on."""
    limit = None if edge is None else _limit(subject, edge, known)
    found = _made(subject, MEMORY, used, outlook(used, subject.steps))
    found = replace(found, known=tuple(known), limit_wall=limit)
    if found.expected is None or found.low is None or found.high is None:
        return found
    change = sum(each.used_bytes for each in known)

    def within(value: float) -> float:
        most = value + change if edge is None else float(edge.total_bytes)
        return min(max(value + change, 0.0), most)

    changes = f"; {len(known)} known changes" if len(known) > 1 else "; 1 known change"
    high = within(found.high)
    return replace(
        found,
        expected=within(found.expected),
        low=within(found.low),
        high=high,
        may_reach_limit=edge is not None and high >= edge.room_bytes,
        basis=found.basis + (changes if known else ""),
    )


def temperature_forecast(subject: Subject, heat: Past, critical_celsius: float) -> Forecast:
    """Its heat, within what a card can be."""
    seen = outlook(heat, subject.steps)
    if isinstance(seen, Outlook):
        seen = _bounded(seen, heat)
    found = _made(subject, TEMPERATURE, heat, seen)
    if not isinstance(seen, Outlook) or subject.now is None:
        return found
    reached = _reached(subject, (subject.now, *seen.path), critical_celsius)
    return replace(found, limit_wall=reached, may_reach_limit=seen.high >= critical_celsius)


def _bounded(seen: Outlook, heat: Past) -> Outlook:
    """Its end and its interval within what the card has shown, and what any card shows."""
    known = [value for value in heat.values if value is not None]
    coldest, hottest = min(known), max(known)
    least, most = min(coldest, _COLDEST_CELSIUS), max(hottest, _HOTTEST_CELSIUS)
    path = tuple(min(max(value, least), most) for value in seen.path)
    if seen.past_error is not None:
        beyond = max(_BEYOND_ERRORS * seen.past_error, abs(seen.newest_error))
        least = max(least, min(coldest, path[-1]) - beyond)
        most = min(most, max(hottest, path[-1]) + beyond)
    low, high = (min(max(value, least), most) for value in (seen.low, seen.high))
    return replace(seen, path=path, low=low, high=high)


def _made(subject: Subject, field: str, past: Past, seen: Outlook | TooLittle) -> Forecast:
    bare = Forecast(device=subject.device, alias=subject.alias, field=field, now=subject.now)
    if isinstance(seen, TooLittle):
        return replace(bare, refusal=_refusal(seen, subject.horizon))
    tried = f", {seen.cases} forecasts tried on it" if seen.cases else ""
    return replace(
        bare,
        expected=seen.path[-1],
        low=seen.low,
        high=seen.high,
        method=seen.method,
        basis=f"{_span(seen.past_seconds)} of its past in steps of {_span(past.step)}{tried}",
        past_error=seen.past_error,
        past_coverage=seen.past_coverage,
    )


def _refusal(seen: TooLittle, horizon: float) -> str:
    have, need = _span(seen.have_seconds), _span(seen.need_seconds)
    if seen.have_seconds >= seen.need_seconds:
        return f"not enough history: {have} of it, but nothing of late; look at its health"
    shorter = seen.have_seconds / LEAST_HORIZONS
    advice = f"; ask for {_span(shorter)} at most, or later" if shorter >= 60 else "; ask later"
    return f"not enough history: have {have}, need {need} to look {_span(horizon)} ahead{advice}"


def _limit(subject: Subject, edge: Edge, known: Sequence[Known]) -> float | None:
    """When nothing is left to promise."""
    seen = outlook(edge.taken, subject.steps)
    newest = edge.taken.values[-1] if edge.taken.values else None
    if newest is None:
        return None
    path = seen.path if isinstance(seen, Outlook) else (newest,) * subject.steps
    changed = [
        value
        + sum(
            each.taken_bytes for each in known if each.wall <= subject.now_wall + at * subject.step
        )
        for at, value in enumerate((newest, *path))
    ]
    return _reached(subject, changed, edge.room_bytes)


def _reached(subject: Subject, path: Sequence[float], limit: float) -> float | None:
    """When a path, whose first value is now, first comes to a limit; None: it does not."""
    if path[0] >= limit:
        return subject.now_wall
    for at in range(1, len(path)):
        if path[at] >= limit:
            part = (limit - path[at - 1]) / (path[at] - path[at - 1])
            return subject.now_wall + (at - 1 + part) * subject.step
    return None


def _span(seconds: float) -> str:
    """`90s`, `42m`, `3h`, `2d4h`."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole}s"
    if whole < 7200 and whole != 3600:
        return f"{whole // 60}m"
    if whole < 2 * 86400:
        minutes = whole % 3600 // 60
        return f"{whole // 3600}h" + (f"{minutes}m" if minutes else "")
    hours = whole % 86400 // 3600
    return f"{whole // 86400}d" + (f"{hours}h" if hours else "")
