"""`gpuctl forecast`: how memory and heat may go on, by a stated method, with an interval."""

from __future__ import annotations

from collections.abc import Iterator

import click

from gpuctl.messages import duration, known, seconds_of, to_plain
from gpuctl.options import command, span
from gpuctl.plotting.values import value_text
from gpuctl.session import Session
from gpuctl.tables import Column, Table, clean, clock_text
from gpuctl.units import compact_size, span_text
from gpud.v1.forecast_pb2 import Forecast, GetForecastRequest, GetForecastResponse, KnownChange

_UNITS = {"memory_used_bytes": "bytes", "temperature_celsius": "celsius"}
_WHAT = {"memory_used_bytes": "memory", "temperature_celsius": "heat"}


@command(named=False, fans_out=True)
@click.argument("devices", nargs=-1, metavar="[DEVICE]...")
@click.option("--horizon", type=span, default="1h", help="How far ahead (default: 1h).")
def forecast(session: Session, devices: tuple[str, ...], horizon: float) -> None:
    """Tell what devices are expected to show at the end of a horizon, and how sure that is.

    Of four cases in five the truth is to lie between LOW and HIGH; -o wide tells how often it did
    in the past.
    """
    client = session.client
    request = GetForecastRequest(devices=devices, horizon=duration(horizon))
    answer = client.call(client.telemetry.GetForecast, request)
    if session.output.is_table:
        session.output.lines(_lines(session, answer))
    elif session.output.form == "jsonl":
        for each in answer.forecasts:
            session.output.document(to_plain(each))
    else:
        session.output.document(to_plain(answer))


def _lines(session: Session, answer: GetForecastResponse) -> Iterator[str]:
    told = [each for each in answer.forecasts if not each.refusal]
    if told:
        table: Table[Forecast] = Table(
            _COLUMNS, wide=session.output.form == "wide", width=session.output.room
        )
        yield f"in {span_text(seconds_of(answer.horizon))}:"
        yield from table.lines(told)
        yield ""
    now = seconds_of(answer.time)
    for each in answer.forecasts:
        yield clean(f"{_name(each)} {_sentence(each, now, seconds_of(answer.horizon))}")
        for change in each.known:
            yield clean(f"  {clock_text(change.time)[:8]}  {_change(change)}")


_COLUMNS: tuple[Column[Forecast], ...] = (
    Column(header="SUBJECT", cell=lambda f: _name(f)),
    Column(header="WHAT", cell=lambda f: _WHAT.get(f.field, f.field)),
    Column(header="NOW", cell=lambda f: _value(f, "now"), right=True),
    Column(header="EXPECTED", cell=lambda f: _value(f, "expected"), right=True),
    Column(header="LOW", cell=lambda f: _value(f, "low"), right=True),
    Column(header="HIGH", cell=lambda f: _value(f, "high"), right=True),
    Column(header="OFF BY", cell=lambda f: _value(f, "past_error"), right=True),
    Column(header="HELD", cell=lambda f: _share(known(f, "past_coverage")), right=True, wide=True),
    Column(header="CLAIMED", cell=lambda f: _share(f.confidence), right=True, wide=True),
    Column(header="METHOD", cell=lambda f: f.method, shrinks=True),
    Column(header="BASIS", cell=lambda f: f.basis, wide=True),
)


def _sentence(value: Forecast, now: float, horizon: float) -> str:
    what = _WHAT.get(value.field, value.field)
    limit = seconds_of(value.reaches_limit_time) if value.HasField("reaches_limit_time") else None
    is_memory = value.field == "memory_used_bytes"
    if limit is not None:
        left = limit - now
        reached = "is full" if is_memory else "is critically hot"
        return f"{reached} now" if left < 1 else f"{reached} in {span_text(left)} at this pace"
    if value.refusal:
        return f"{what}: {value.refusal}"
    stays = "is not full" if is_memory else "is not critically hot"
    return f"{stays} within {span_text(horizon)}, as far as can be told"


def _change(value: KnownChange) -> str:
    sign = "+" if value.bytes > 0 else "-"
    subject = value.subject.removeprefix("reservations/")
    return f"{sign}{compact_size(abs(value.bytes))} promised: {subject}, {value.what}"


def _name(value: Forecast) -> str:
    return value.alias or value.device.removeprefix("devices/")


def _value(value: Forecast, field: str) -> str:
    return value_text(known(value, field), _UNITS.get(value.field, ""))


def _share(part: float | None) -> str:
    return "" if part is None else f"{part:.0%}"
