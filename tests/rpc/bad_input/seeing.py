"""What can be wrong in what is asked of the past and of what is to come."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gpud.v1 import forecast_pb2, history_pb2
from tests.rpc.bad_input import values
from tests.rpc.bad_input.method import Method
from tests.rpc.bad_input.values import UNPRINTABLE, Values, invalid, not_found

DAY_SECONDS = 86400
YEAR_SECONDS = 366 * DAY_SECONDS


def seeing() -> dict[str, Method]:
    """By name."""
    return {
        "QueryHistory": Method(
            request=history_pb2.QueryHistoryRequest,
            fields={
                "subjects": _subjects,
                "device": _device,
                "fields": _fields,
                "window": lambda: values.span("window", 1, YEAR_SECONDS),
                "end_time": _moments,
                "step": _steps,
            },
            more=(
                (
                    "a subject as its device as well",
                    {"subjects": ["gpu0"], "device": "gpu0"},
                    invalid("device"),
                ),
                (
                    "a year of seconds",
                    {
                        "window": Duration(seconds=YEAR_SECONDS),
                        "step": Duration(seconds=1),
                    },
                    invalid("step"),
                ),
            ),
            harmless={"fields": ["\0"]},
        ),
        "GetForecast": Method(
            request=forecast_pb2.GetForecastRequest,
            fields={
                "devices": values.devices,
                "horizon": lambda: values.span("horizon", 60, DAY_SECONDS),
            },
            harmless={"devices": ["\0"]},
        ),
    }


def _subjects() -> Values:
    yield "none of that name", ["gpu99"], not_found("DEVICE")
    yield "an instance that never was", ["instances/i-0"], not_found("HISTORY")
    yield "a model that never was", ["models/nothing"], not_found("HISTORY")
    yield "an empty name", [""], not_found("DEVICE")
    yield "twice the same", ["gpu0", "gpu0"], invalid("subjects")
    yield "the same by its UUID", ["host", "host"], invalid("subjects")
    yield "1001 of them", ["gpu0"] * 1001, invalid("subjects")
    yield from _texts("subjects")


def _device() -> Values:
    yield "none of that name", "gpu99", not_found("DEVICE")
    yield "one too long", "x" * 257, invalid("device")
    for label, value in UNPRINTABLE:
        yield label, value, invalid("device")


def _fields() -> Values:
    yield "a misspelt one", ["temprature_celsius"], invalid("fields")
    yield "an empty name", [""], invalid("fields")
    yield "twice the same", ["power_watts", "power_watts"], invalid("fields")
    yield "1001 of them", ["power_watts"] * 1001, invalid("fields")
    yield from _texts("fields")


def _texts(field: str) -> Values:
    yield "one too long", ["x" * 257], invalid(field)
    for label, value in UNPRINTABLE:
        yield label, [value], invalid(field)


def _moments() -> Values:
    yield "before 1970", Timestamp(seconds=-1), invalid("end_time")
    yield "nanos beyond a second", Timestamp(seconds=5, nanos=1_000_000_000), invalid("end_time")
    yield "negative nanos", Timestamp(seconds=5, nanos=-1), invalid("end_time")


def _steps() -> Values:
    yield from values.span("step", 1, YEAR_SECONDS)
    yield "no whole second", Duration(seconds=5, nanos=1), invalid("step")
    yield "too fine", Duration(seconds=1, nanos=1), invalid("step")
