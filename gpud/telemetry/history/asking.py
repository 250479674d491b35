"""Pure: what of the history is asked, how fine it can be told, and the points it comes to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gpud.errors import NotFound, OptionInvalid
from gpud.telemetry.history.blocks import (
    FINE,
    SPANS,
    Block,
    laid,
    readable,
    rolled,
    start_of,
    uncovered,
    within,
)
from gpud.telemetry.history.fields import Field, fields_for

# Of a series, where nobody says how fine; enough for any screen.
USUAL_POINTS: Final = 500
# Of a series at most, as with Prometheus' range queries.
MOST_POINTS: Final = 11_000
# Of all series of an answer: some 55 bytes each, and clients take messages of 4 MiB.
MOST_VALUES: Final = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which subjects and fields, from when to when (wall seconds), in what steps (seconds)."""

    subjects: tuple[str, ...]
    fields: tuple[Field, ...]
    begin: float
    end: float
    step: int | None = None

    @property
    def window(self) -> float:
        """Its length in seconds."""
        return self.end - self.begin

    @property
    def series_count(self) -> int:
        """How many series there may be."""
        return sum(len(fields_for(subject, self.fields)) for subject in self.subjects)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What was seen in [time, time + step)."""

    time: int
    count: int
    min: float
    mean: float
    max: float
    last: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One field of one subject; what nobody saw has no point."""

    subject: str
    field: Field
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Its series, the step that was used, and where what is kept begins (wall seconds)."""

    series: tuple[Series, ...]
    step: int
    oldest: int | None


class HistoryMissing(NotFound):
    """An instance or a model that may be there, and that nothing was kept of."""

    reason = "HISTORY_NOT_FOUND"
    noun = "any history of"
    listing = "gpuctl history"


def check(asked: Asked) -> None:
    """Refuse more points than an answer can hold. Raises OptionInvalid."""
    if asked.step is None:
        return
    series = asked.series_count
    most = min(MOST_POINTS, MOST_VALUES // max(1, series))
    points = math.ceil(asked.window / asked.step)
    if points > most:
        raise OptionInvalid(
            field="step",
            problem=f"{asked.window:.0f} s in steps of {asked.step} s are {points} points of each "
            f"of {series} series, and at most {most} fit; ask for a step of at least "
            f"{math.ceil(asked.window / max(1, most))} s, a window of at most "
            f"{most * asked.step} s, or fewer series",
        )


def step_of(asked: Asked, oldest: Mapping[int, int]) -> int:
    """The step that is told: as asked, unless what reaches back so far is coarser.

    `oldest` has by step when the oldest block begins.
    """
    kept = _finest(asked.begin, oldest)
    most = max(1, min(USUAL_POINTS, MOST_VALUES // max(1, asked.series_count)))
    # Of a window that begins before anything was kept, the part that is there.
    seen = asked.end - max(asked.begin, min(oldest.values(), default=asked.begin))
    wanted = asked.step or seen / most
    return max(1, math.ceil(wanted / kept)) * kept


def _finest(begin: float, oldest: Mapping[int, int]) -> int:
    """The finest step whose blocks reach back to a moment, or as far as any do."""
    for step, start in sorted(oldest.items()):
        wider = [each for each in oldest if each > step]
        is_whole = all(start_of(each, start) <= oldest[each] for each in wider)
        if start <= begin or is_whole:
            return step
    return FINE


def steps_for(step: int) -> tuple[int, ...]:
    """The steps of blocks that can be gathered into steps of this length."""
    return tuple(each for each in SPANS if each <= step and step % each == 0)


def series_of(
    subject: str,
    asked: Asked,
    step: int,
    packed: Mapping[tuple[int, int], bytes],
    unpacked: Block | None,
) -> Iterator[Series]:
    """What is known of a subject.

    `packed` are blocks by their steps and beginnings, in the order they were written; `unpacked`
    is what is seen now: where something tells of a later time, the clock was set back since.
    """
    numbers = {field.number for field in asked.fields}
    blocks = laid(_read(packed, numbers))
    if unpacked is not None:
        now = unpacked.times[0]
        blocks = [*(within(block, -math.inf, now) for block in blocks), unpacked]
    if not blocks:
        return
    told = rolled(blocks, step, numbers)
    for field in asked.fields:
        column = told.columns.get(field.number)
        if column is None:
            continue
        rows = zip(
            told.times, column.counts, column.mins, column.means, column.maxs, column.lasts,
            strict=True,
        )  # fmt: skip
        points = tuple(_points(rows, asked.begin - step, asked.end))
        if points:
            yield Series(subject=subject, field=field, points=points)


def _read(packed: Mapping[tuple[int, int], bytes], numbers: set[int]) -> Iterator[Block]:
    for step, start in uncovered(packed):
        yield from readable(step, [packed[step, start]], numbers)


def _points(rows: Iterable[Sequence[float | None]], after: float, until: float) -> Iterator[Point]:
    for time, count, least, mean, most, last in rows:
        # None of them is None where something was counted.
        if not count or time is None or not after < time < until:
            continue
        yield Point(
            time=int(time),
            count=int(count),
            min=float(least or 0),
            mean=float(mean or 0),
            max=float(most or 0),
            last=float(last or 0),
        )
