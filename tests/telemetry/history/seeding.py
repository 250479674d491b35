"""A past for a daemon that has not begun: written by gpud's own hand, as if it had seen it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from gpud.settings import History as Settings
from gpud.telemetry.history.blocks import COARSE, FINE, MIDDLE
from gpud.telemetry.history.fields import BY_NAME
from gpud.telemetry.history.file import HistoryFile, Keep
from gpud.telemetry.history.history import FILE
from gpud.telemetry.history.ring import Ring

# By the name of the field: its value so many seconds before the end.
Course = Mapping[str, Callable[[int], float]]


def seed(state: Path, end: float, seconds: int, every: int, **subjects: Course) -> None:
    """Write what each device (`gpu0`: of that alias, a simulated P106-100) showed until `end`."""
    settings, ring, closed = Settings(), Ring(seconds + 60), []
    for before in range(seconds, 0, -every):
        time, ended = ring.turn(end - before)
        closed += ended
        for alias, course in subjects.items():
            numbers = tuple(BY_NAME[name].number for name in course)
            ring.put(_name(alias), numbers, time, tuple(told(before) for told in course.values()))
    closed += ring.close()
    spans = {
        FINE: float(settings.seconds),
        MIDDLE: float(settings.ten_seconds),
        COARSE: float(settings.minutes),
    }
    keep = Keep(spans=spans, max_bytes=int(settings.max_bytes), keep_free_bytes=0)
    file = HistoryFile(state / FILE, keep, lambda _: 2**40)
    file.write(closed, {_name(alias): alias for alias in subjects})
    file.roll_up(end)
    file.age(end)
    file.close()


def _name(alias: str) -> str:
    return f"devices/SIM-p106-100-{alias.removeprefix('gpu')}"
