"""Pure: a device's past in equal steps that end now, made of the history's own finer steps."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpud.telemetry.forecast.outlook import STEPS, Past
from gpud.telemetry.history.asking import Answer, Series
from gpud.telemetry.history.fields import Field


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What each field showed, in steps (of `step` seconds, `steps` to a horizon) up to now.

    `before`: seconds from the first moment that anything was seen to the first step.
    """

    steps: int
    step: float
    before: float
    values: Mapping[str, Sequence[float | None]]

    def past(self, field: str, now: float | None) -> Past:
        """One field's; the newest value as it is now, if that is known."""
        values = self.ended(field, now)
        is_first = bool(values) and values[0] is not None
        before = self.before if is_first else 0.0
        return Past(step=self.step, values=values, before_seconds=before)

    def ended(self, field: str, now: float | None) -> Sequence[float | None]:
        """As above, the values alone."""
        values = self.values[field]
        return values if now is None or not values else [*values[:-1], now]


def lined_up(answer: Answer, fields: Sequence[Field], end: float, horizon: float) -> Told:
    """From the first moment that anything was seen to `end` (wall seconds), which is now.

    The steps are counted backwards from now and divide the horizon (seconds): were one of them
    shorter, what grows would seem to grow slower of late. None of them is finer than the answer's.
    """
    steps = max(1, min(STEPS, int(horizon // answer.step)))
    step = horizon / steps
    seen = {each.field: _Seen.of(each, answer.step, end) for each in answer.series}
    first = min((each.times[0] for each in seen.values()), default=end + step)
    moments = [end - step * back for back in range(int((end - first) // step), -1, -1)]
    nothing = [None] * len(moments)
    return Told(
        steps=steps,
        step=step,
        before=(end - first) % step,
        values={
            field.name: [seen[field].at(moment, step) for moment in moments]
            if field in seen
            else nothing
            for field in fields
        },
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """The last value of each of the history's steps (of `fine` seconds), and when it was so."""

    fine: int
    times: Sequence[float]
    values: Sequence[float]

    @classmethod
    def of(cls, series: Series, fine: int, end: float) -> _Seen:
        times = [min(float(point.time + fine), end) for point in series.points]
        return cls(fine, times, [point.last for point in series.points])

    def at(self, moment: float, step: float) -> float | None:
        """What it was at a moment, on the line from the value next to it to one a step from that.

        So what grows evenly is told as it was, and what is noisy stays as noisy: the mean of two
        neighbours would be calmer than what is now, and the errors tried on it too small.
        """
        near = bisect_right(self.times, moment + self.fine / 2) - 1
        if near < 0 or self.times[near] <= moment - step:
            return None
        value, time = self.values[near], self.times[near]
        if time <= moment:
            other = min(bisect_left(self.times, time + step), len(self.times) - 1)
        else:
            other = max(bisect_right(self.times, time - step) - 1, 0)
        if other == near:
            return value
        part = (moment - time) / (self.times[other] - time)
        return value + part * (self.values[other] - value)
