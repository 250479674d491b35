"""`gpuctl history`: what devices, the host, instances and models showed, over time."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click

from gpuctl.messages import duration, seconds_of, timestamp, to_plain
from gpuctl.options import command, moment, span
from gpuctl.plotting.braille import COLUMNS, plot
from gpuctl.plotting.grid import Points, apart, cells, filled
from gpuctl.plotting.sparkline import sparkline
from gpuctl.plotting.values import value_text
from gpuctl.render import FORMATS, knows_unicode, terminal_width
from gpuctl.session import Session
from gpuctl.tables import GAP, Column, Table, clean, moment_text
from gpuctl.units import span_text
from gpud.v1.history_pb2 import QueryHistoryRequest, QueryHistoryResponse, Series

_PLOT_HEIGHT = 8
# By so much a caller's clock may be ahead of gpud's.
_LATE_SECONDS = 5.0
# Of a sparkline. It gives way before names do, but for so much.
_SPARK_WIDTH = 20
_LEAST_SPARK = 6
_HEADER = ("subject", "alias", "field", "unit", "time", "min", "mean", "max", "last", "count")


def _output(ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        ctx.ensure_object(Session).set(output="json" if value == "csv" else value)
    return value


@command(named=False)
@click.argument("subjects", nargs=-1, metavar="[SUBJECT]...")
@click.option("--field", "fields", multiple=True, help="power_watts, …, or all (default: some).")
@click.option("--window", type=span, default="1h", help="How far back (default: 1h).")
@click.option("--step", type=span, help="Of how long a point is (default: as fine as is kept).")
@click.option("--end", metavar="TIME", help="Until when: 10m ago, or 2026-11-20T21:00.")
@click.option("--plot", "plotted", is_flag=True, help="A plot for each series.")
@click.option(
    "-o",
    "--output",
    type=click.Choice([*FORMATS, "csv"]),
    callback=_output,
    help="Form of the result (default: table).",
)
def history(session: Session, output: str | None, plotted: bool, **asked: Any) -> None:
    """Show what was: gpu0, a UUID, instances/ID, models/ID, host; by default all devices.

    A step in which nothing was seen has no point, and is blank in what is drawn.
    """
    request = _request(session, asked)
    client = session.client
    answer = client.call(client.telemetry.QueryHistory, request)
    if output == "csv":
        _write_csv(answer)
    elif not session.output.is_table:
        _write_plain(session, answer)
    elif not answer.series:
        print("no history", file=sys.stderr)
    else:
        end = seconds_of(answer.end_time)
        if request.HasField("end_time") and seconds_of(request.end_time) > end + _LATE_SECONDS:
            asked_end = _moment(seconds_of(request.end_time))
            print(f"{asked_end} is yet to come: this ends now", file=sys.stderr)
        span_told = _Span(begin=end - asked["window"], end=end)
        session.output.lines(_lines(session, answer, span_told, plotted=plotted))


def _request(session: Session, asked: dict[str, Any]) -> QueryHistoryRequest:
    request = QueryHistoryRequest(
        subjects=asked["subjects"], fields=asked["fields"], window=duration(asked["window"])
    )
    if asked["step"] is not None:
        request.step.CopyFrom(duration(asked["step"]))
    if asked["end"] is not None:
        request.end_time.CopyFrom(moment("--end", asked["end"], session.now()))
    return request


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    """From when to when, in seconds since the epoch."""

    begin: float
    end: float


def _write_plain(session: Session, answer: QueryHistoryResponse) -> None:
    if session.output.form == "jsonl":
        for series in answer.series:
            session.output.document(to_plain(series))
    else:
        session.output.document(to_plain(answer))


def _write_csv(answer: QueryHistoryResponse) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(_HEADER)
    for series in answer.series:
        named = (series.subject, series.alias, series.field, series.unit)
        for point in series.points:
            values = (point.min, point.mean, point.max, point.last)
            writer.writerow(
                (*named, point.time.ToJsonString(), *(f"{v:.15g}" for v in values), point.count)
            )


def _lines(
    session: Session, answer: QueryHistoryResponse, told: _Span, *, plotted: bool
) -> Iterator[str]:
    step = seconds_of(answer.step)
    yield f"{span_text(told.end - told.begin)} until {_moment(told.end)}, step {span_text(step)}"
    first = min((_points(series) for series in answer.series), key=lambda points: points[0])
    if first[0][0] > told.begin + max(step, apart(first)):
        yield f"first reading {_moment(first[0][0])}"
    plain = not knows_unicode(sys.stdout)
    if plotted:
        for series in answer.series:
            yield ""
            yield from _plotted(series, told, step, plain=plain)
        return
    room = session.output.room
    width = _SPARK_WIDTH if room is None else _spark_width(answer.series, room)

    def drawn(series: Series) -> str:
        return sparkline(_cells(series, told, step, width), plain=plain)

    spark: Column[Series] = Column(header="", cell=drawn)
    table: Table[Series] = Table((*_NAMES, spark, *_VALUES), width=room)
    yield from table.lines(answer.series)


def _spark_width(series: Sequence[Series], room: int) -> int:
    """What the other columns leave of a line."""
    table: Table[Series] = Table((*_NAMES, *_VALUES))
    left = room - max(map(len, table.lines(series))) - len(GAP)
    return max(_LEAST_SPARK, min(_SPARK_WIDTH, left))


def _value(series: Series, number: float) -> str:
    return value_text(number, series.unit)


_NAMES: tuple[Column[Series], ...] = (
    Column(header="SUBJECT", cell=lambda s: _name(s), shrinks=True),
    Column(header="FIELD", cell=lambda s: s.field, shrinks=True),
)
_VALUES: tuple[Column[Series], ...] = (
    Column(header="MIN", cell=lambda s: _value(s, min(p.min for p in s.points)), right=True),
    Column(header="MEAN", cell=lambda s: _value(s, _mean(s)), right=True),
    Column(header="MAX", cell=lambda s: _value(s, max(p.max for p in s.points)), right=True),
    Column(header="LAST", cell=lambda s: _value(s, s.points[-1].last), right=True),
)


def _plotted(series: Series, told: _Span, step: float, *, plain: bool) -> Iterator[str]:
    last = value_text(series.points[-1].last, series.unit)
    yield clean(f"{_name(series)} {series.field}, last {last}")
    room = terminal_width(sys.stdout) - 10
    values = _cells(series, told, step, room if plain else room * COLUMNS)
    if plain:
        values = [value for value in values for _ in range(COLUMNS)]
    lines = plot(values, _PLOT_HEIGHT, lambda v: value_text(v, series.unit), plain=plain)
    margin = 0
    for line in lines:
        margin = max(line.find("|"), line.find("┤"))
        yield line
    begin, end = _moment(told.begin), _moment(told.end)
    yield f"{' ' * (margin + 1)}{begin}{end.rjust(room - len(begin))}"


def _cells(series: Series, told: _Span, step: float, count: int) -> list[float | None]:
    points = _points(series)
    cell = (told.end - told.begin) / count
    # A reading lasts until the next is due, be it that steps are long or that an engine is read
    # every few seconds; what is longer without a point is a gap.
    lasts = max(step, apart(points))
    return filled(cells(points, told.begin, told.end, count), int(lasts / cell) + (lasts > cell))


def _points(series: Series) -> Points:
    return [(seconds_of(p.time), p.mean, p.count) for p in series.points]


def _mean(series: Series) -> float:
    count = sum(point.count for point in series.points)
    return sum(point.mean * point.count for point in series.points) / count


def _name(series: Series) -> str:
    return series.alias or series.subject.removeprefix("instances/").removeprefix("devices/")


def _moment(seconds: float) -> str:
    return moment_text(timestamp(seconds))
