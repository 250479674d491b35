"""What a node tells of the past of two cards, and of what is to come."""

from __future__ import annotations

import math

from google.protobuf.duration_pb2 import Duration

from gpud.v1 import forecast_pb2 as f
from gpud.v1 import history_pb2 as h
from tests.gpuctl.samples import GIB, NOW, moment

UUID = "devices/SIM-0000"


def series(alias: str, field: str, unit: str, *values: float | None) -> h.Series:
    """A point a minute until now; None is a gap."""
    made = h.Series(subject=UUID, alias=alias, field=field, unit=unit)
    for at, value in enumerate(values):
        if value is not None:
            point = made.points.add(min=value - 1, mean=value, max=value + 1, last=value, count=6)
            point.time.CopyFrom(moment(60 * (at - len(values))))
    return made


def history() -> h.QueryHistoryResponse:
    wave = [60 + 10 * math.sin(at / 8) for at in range(60)]
    return h.QueryHistoryResponse(
        series=[
            series("gpu0", "memory_used_bytes", "bytes", *(at / 20 * GIB for at in range(60))),
            series("gpu0", "temperature_celsius", "celsius", *wave[:20], *[None] * 20, *wave[40:]),
            series("gpu1", "power_watts", "watts", *[9.0] * 60),
        ],
        step=Duration(seconds=60),
        oldest_time=moment(-30 * 60),
        end_time=moment(),
    )


def forecast() -> f.GetForecastResponse:
    full = f.Forecast(
        device=UUID,
        alias="gpu0",
        field="memory_used_bytes",
        now=4 * GIB,
        expected=5 * GIB,
        low=4.5 * GIB,
        high=5.5 * GIB,
        confidence=0.8,
        method="drift",
        basis="7h of its past in steps of 10m, 24 forecasts tried on it",
        past_error=0.25 * GIB,
        past_coverage=0.84,
        reaches_limit_time=moment(34 * 60),
    )
    full.known.add(time=moment(600), bytes=-GIB, subject="reservations/r-1", what="its lease ends")
    heat = f.Forecast(
        device=UUID,
        alias="gpu0",
        field="temperature_celsius",
        now=61.0,
        expected=63.4,
        low=60.0,
        high=66.2,
        confidence=0.8,
        method="approach to a level",
        past_error=1.5,
    )
    young = f.Forecast(
        device="devices/SIM-0001",
        alias="gpu1",
        field="memory_used_bytes",
        now=0,
        confidence=0.8,
        refusal="not enough history: have 42m, need 5h to look 1h ahead; ask later",
    )
    return f.GetForecastResponse(
        time=moment(), horizon=Duration(seconds=3600), forecasts=[full, heat, young]
    )


assert NOW % 60 == 0
