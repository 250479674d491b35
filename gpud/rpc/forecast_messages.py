"""Forecasts as protobuf."""

from __future__ import annotations

from collections.abc import Iterable

from gpud.rpc.messages import span, stamp
from gpud.telemetry.forecast.forecast import Forecast
from gpud.v1 import forecast_pb2

DEFAULT_HORIZON_SECONDS = 3600.0
MIN_HORIZON_SECONDS = 60.0
MAX_HORIZON_SECONDS = 86400.0


def answer(
    found: Iterable[Forecast], wall: float, horizon: float
) -> forecast_pb2.GetForecastResponse:
    """All of them, made at a moment."""
    return forecast_pb2.GetForecastResponse(
        time=stamp(wall), horizon=span(horizon), forecasts=[_forecast(each) for each in found]
    )


def _forecast(value: Forecast) -> forecast_pb2.Forecast:
    return forecast_pb2.Forecast(
        device=f"devices/{value.device}",
        alias=value.alias,
        field=value.field,
        now=value.now,
        expected=value.expected,
        low=value.low,
        high=value.high,
        confidence=value.confidence,
        method=value.method,
        basis=value.basis,
        past_error=value.past_error,
        past_coverage=value.past_coverage,
        known=[
            forecast_pb2.KnownChange(
                time=stamp(each.wall),
                bytes=each.promised_bytes,
                subject=each.subject,
                what=each.what,
            )
            for each in value.known
        ],
        refusal=value.refusal,
        reaches_limit_time=stamp(value.limit_wall),
        may_reach_limit=value.may_reach_limit,
    )
