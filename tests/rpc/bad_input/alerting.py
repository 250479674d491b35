"""What can be wrong in what is asked of alerts."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.duration_pb2 import Duration

from gpud.v1 import alerts_pb2
from tests.rpc.bad_input import values
from tests.rpc.bad_input.method import Method, paged
from tests.rpc.bad_input.values import STRANGERS, Values, invalid, not_found

MONTH_SECONDS = 30 * 86400
ALL = {"duration": Duration(seconds=60)}


def alerting() -> dict[str, Method]:
    """By name."""
    asks: dict[str, Callable[[], Values]] = {
        "request_id": values.request_id,
        "owner": lambda: values.text("owner"),
        "comment": lambda: values.text("comment", 1000),
    }
    return {
        "ListAlerts": Method(
            request=alerts_pb2.ListAlertsRequest,
            fields=paged(alerts_pb2.ListAlertsRequest, "")
            | {"min_severity": lambda: values.enum("min_severity", 3)},
            free=frozenset({"include_resolved"}),
        ),
        "AcknowledgeAlert": Method(
            request=alerts_pb2.AcknowledgeAlertRequest,
            base={"name": "alerts/lost-0"},
            fields=asks | {"name": _names},
        ),
        "SilenceAlerts": Method(
            request=alerts_pb2.SilenceAlertsRequest,
            base=ALL,
            fields=asks | {"rule": _rules, "subject": _subjects, "duration": _spans},
            harmless={"rule": "\0"},
        ),
    }


def _names() -> Values:
    for label, value, told in values.name("name", "alerts", "ALERT"):
        # What the others know as another collection's is this one's.
        if label != "of another collection":
            yield label, value, told
    yield "of another collection", "devices/x", not_found("ALERT")


def _rules() -> Values:
    yield from values.text("rule")
    for label, value in STRANGERS:
        yield label, value, invalid("rule")
    yield "of other letters", "LOST", invalid("rule")


def _subjects() -> Values:
    yield from values.text("subject")
    for label, value in STRANGERS:
        yield label, value, not_found("DEVICE")
    yield "a collection alone", "instances/", not_found("DEVICE")
    yield "the whole host, misspelt", "nodes", not_found("DEVICE")


def _spans() -> Values:
    yield "missing", None, invalid("duration")
    yield from values.span("duration", 0, MONTH_SECONDS)
    yield "a nanosecond", Duration(nanos=1), invalid("duration")
    below = Duration(nanos=999_999_999)
    yield "just too short", below, invalid("duration")
