"""Courses that memory and heat take, made up and recorded, each a list of equal steps."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from random import Random

GOLDEN = Path(__file__).parents[2] / "golden" / "host_memory.json"


def ramp(luck: Random, count: int) -> list[float]:
    """It rises, with noise."""
    slope, noise = luck.uniform(0.5, 3), luck.uniform(0, 2)
    return [at * slope + luck.gauss(0, noise) for at in range(count)]


def steps(luck: Random, count: int) -> list[float]:
    """Models are loaded and unloaded, of 4 GiB and more."""
    values = [luck.choice((0.0, 4.0, 8.0))]
    while len(values) < count:
        loads = luck.random() < 1 / 20
        values.append(luck.choice((0.0, 4.0, 8.0, 12.0, 16.0)) if loads else values[-1])
    return values


def sawtooth(luck: Random, count: int) -> list[float]:
    """It grows and is let go, again and again."""
    period = luck.randint(8, 30)
    return [at % period + luck.gauss(0, 0.3) for at in range(count)]


def noise(luck: Random, count: int) -> list[float]:
    """About a level."""
    return [50 + luck.gauss(0, 3) for _ in range(count)]


def leak(luck: Random, count: int) -> list[float]:
    """A little more with most requests, never less."""
    values, total = [], 0.0
    for _ in range(count):
        total += luck.expovariate(5) if luck.random() < 0.7 else 0
        values.append(total + luck.gauss(0, 0.1))
    return values


def daily(luck: Random, count: int) -> list[float]:
    """Warm by day; a day is 144 steps."""
    phase = luck.uniform(0, 144)
    return [
        60 + 10 * math.sin((at + phase) / 144 * 2 * math.pi) + luck.gauss(0, 1)
        for at in range(count)
    ]


def wander(luck: Random, count: int) -> list[float]:
    """Each step from where the last one ended."""
    values = [50.0]
    while len(values) < count:
        values.append(values[-1] + luck.gauss(0, 1))
    return values


def heat(luck: Random, count: int) -> list[float]:
    """A card under loads that change: it goes 40 % of the way to their heat in a step."""
    values, degrees, load = [], 40.0, 0.0
    for _ in range(count):
        if luck.random() < 1 / 15:
            load = luck.choice((0.0, 0.5, 1.0))
        degrees += (40 + load * 40 - degrees) * 0.4
        values.append(degrees + luck.gauss(0, 0.5))
    return values


MADE_UP: dict[str, Callable[[Random, int], list[float]]] = {
    made.__name__: made for made in (ramp, steps, sawtooth, noise, leak, daily, wander, heat)
}


# These change their ways so many horizons before now; the last `horizon` steps are yet to come.
_LONG_AGO, _LATELY = 6.0, 1.0


def _changed(luck: Random, count: int, horizon: int) -> int:
    return count - horizon - round(horizon * luck.uniform(_LATELY, _LONG_AGO))


def flat_then_ramp(luck: Random, count: int, horizon: int) -> list[float]:
    """Nothing moves, and then it grows."""
    begin, slope = _changed(luck, count, horizon), luck.uniform(0.1, 3)
    noise = luck.choice((0.0, 0.05)) * slope
    return [40 + slope * max(0, at - begin) + luck.gauss(0, noise) for at in range(count)]


def ramp_then_flat(luck: Random, count: int, horizon: int) -> list[float]:
    """It grows, and then nothing moves."""
    end, slope = _changed(luck, count, horizon), luck.uniform(0.1, 3)
    noise = luck.choice((0.0, 0.05)) * slope
    return [40 + slope * min(at, end) + luck.gauss(0, noise) for at in range(count)]


def flat_then_loads(luck: Random, count: int, horizon: int) -> list[float]:
    """Nothing moves, and then models are loaded and unloaded, within some steps each."""
    begin = _changed(luck, count, 4 * horizon) + 3 * horizon
    values, aim = [4.0], 4.0
    for at in range(1, count):
        if at >= begin and luck.random() < 1 / horizon:
            aim = luck.choice((0.0, 4.0, 8.0, 12.0, 16.0))
        values.append(values[-1] + min(max(aim - values[-1], -16.0), 4.0))
    return values


CHANGING: dict[str, Callable[[Random, int, int], list[float]]] = {
    made.__name__: made for made in (flat_then_ramp, ramp_then_flat, flat_then_loads)
}


def recorded() -> list[float]:
    """A host's used memory in bytes, every 10 s, while tests and builds ran on it."""
    values: list[float] = json.loads(GOLDEN.read_text())["memory_used_bytes"]
    return values
