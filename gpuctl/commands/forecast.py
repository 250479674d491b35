"""`gpuctl forecast`: how memory and heat may go on, by a stated method, with an interval."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import click

from gpuctl.failures import EXIT_REFUSED_BASE, Failure
from gpuctl.messages import duration, known, seconds_of, to_plain
from gpuctl.options import command, span
from gpuctl.plotting.values import value_text
from gpuctl.session import Session
from gpuctl.tables import Column, Table, clean, clock_text
from gpuctl.units import compact_size, span_text
from gpud.v1.forecast_pb2 import Forecast, GetForecastRequest, GetForecastResponse, KnownChange

# As a call that is refused for how things stand: FAILED_PRECONDITION.
_EXIT_NONE = EXIT_REFUSED_BASE + 9
_UNITS = {"memory_used_bytes": "bytes", "temperature_celsius": "celsius"}
_WHAT = {"memory_used_bytes": "memory", "temperature_celsius": "heat"}


@command(named=False, fans_out=True)
@click.argument("devices", nargs=-1, metavar="[DEVICE]...")
@click.option("--horizon", type=span, default="1h", help="How far ahead: 1m … 1d (default: 1h).")
def forecast(session: Session, devices: tuple[str, ...], horizon: float) -> None:
    """Tell what devices are expected to show at the end of a horizon, and how sure that is.

    Of four cases in five the truth is to lie between LOW and HIGH. Where it did so less often in
    the past, a line says it; -o wide tells of all how often it did. Ends with 73 where there is
    too little history for any forecast.
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
    if answer.forecasts and all(each.refusal for each in answer.forecasts):
        message = "cannot foretell anything yet: there is not enough history of any device"
        raise Failure(message=message, exit_code=_EXIT_NONE)


def _lines(session: Session, answer: GetForecastResponse) -> Iterator[str]:
    told = [each for each in answer.forecasts if not each.refusal]
    if told:
        table: Table[Forecast] = Table(
            _COLUMNS, wide=session.output.form == "wide", width=session.output.room
        )
        yield f"in {span_text(seconds_of(answer.horizon))}:"
        yield from table.lines(told)
        yield from _wrapped(session, _missed(told))
        yield ""
    now = seconds_of(answer.time)
    for each in answer.forecasts:
        yield from _news(each, now)
    yield from _wrapped(session, _calm(answer))


def _wrapped(session: Session, lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        width = session.output.room or len(line)
        yield from textwrap.wrap(
            clean(line), width, subsequent_indent="  ", break_on_hyphens=False
        )


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


def _missed(told: list[Forecast]) -> Iterator[str]:
    """Whose interval held the truth less often than it claims, as far as the shares are shown."""
    short = [
        f"{_WHAT.get(each.field, each.field)} of {_name(each)} {held:.0%} of {each.confidence:.0%}"
        for each in told
        if (held := known(each, "past_coverage")) is not None
        and round(held, 2) < round(each.confidence, 2)
    ]
    if short:
        yield f"LOW and HIGH held the truth less often than claimed: {', '.join(short)}"


def _news(value: Forecast, now: float) -> Iterator[str]:
    """What its device comes to, and what is known to come."""
    if value.HasField("reaches_limit_time"):
        left = seconds_of(value.reaches_limit_time) - now
        when = "now" if left < 1 else f"in {span_text(left)} at this pace"
        yield clean(f"{_name(value)} is {_edge(value)} {when}")
    elif value.known:
        yield clean(f"{_name(value)} is known to change")
    for change in value.known:
        yield clean(f"  {clock_text(change.time)[:8]}  {_change(change)}")


def _calm(answer: GetForecastResponse) -> Iterator[str]:
    """Of those that come to no limit: what is the same of many is said once."""
    horizon = span_text(seconds_of(answer.horizon))
    same: dict[str, dict[str, list[str]]] = {}
    for each in answer.forecasts:
        if each.HasField("reaches_limit_time"):
            continue
        if each.may_reach_limit:
            said = f"could be {_edge(each)} within {horizon}"
        else:
            calm = f"not {_edge(each)} within {horizon}, as far as can be told"
            said = each.refusal or calm
        of = f"{_WHAT.get(each.field, each.field)} of " if each.refusal else ""
        same.setdefault(said, {}).setdefault(of, []).append(_name(each))
    for said, names in same.items():
        yield f"{said}: {'; '.join(of + ', '.join(those) for of, those in names.items())}"


def _edge(value: Forecast) -> str:
    return "full" if value.field == "memory_used_bytes" else "critically hot"


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
