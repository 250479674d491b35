"""Pure: a Pulse from metrics in the Prometheus text format."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Final

from gpud.engines.engine import Pulse

# `name{labels} value [timestamp]`; a label's value may hold escaped quotes, and braces.
_SAMPLE: Final = re.compile(
    r'^([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(?:[^"}]|"(?:[^"\\\n]|\\.)*")*\})? +(\S+)(?: +-?\d+)?\s*$',
    re.MULTILINE,
)


def totals(text: str) -> dict[str, float]:
    """Each metric's value, over all its series; what is no finite number is left out."""
    found: dict[str, float] = {}
    for name, written in _SAMPLE.findall(text):
        value = _number(written)
        if value is not None:
            found[name] = found.get(name, 0.0) + value
    return found


def pulse(text: str, counters: Iterable[tuple[str, str]]) -> Pulse:
    """What these counters tell, each named by its metric; None what the text does not hold."""
    found, names = totals(text), dict(counters)

    def told(field: str) -> float | None:
        return found.get(names.get(field, ""))

    running, waiting = told("running"), told("waiting")
    return Pulse(
        running=None if running is None else max(0, round(running)),
        waiting=None if waiting is None else max(0, round(waiting)),
        progress=told("progress"),
        completed=told("completed"),
        tokens=told("tokens"),
    )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
