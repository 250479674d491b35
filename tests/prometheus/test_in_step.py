"""The rules that come along say what gpud's own alerts say."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from gpud.devices.snapshot import Pressure, Thermal
from gpud.devices.verdict.xids import XIDS
from gpud.events import Event
from gpud.ledger.charge import STALE_SECONDS
from gpud.telemetry.alerts.rules.built_in import BUILT_IN
from gpud.telemetry.alerts.rules.happenings import xid_severity
from gpud.telemetry.alerts.rules.rule import Happening, Level, Rule
from gpud.telemetry.alerts.rules.signs import SLACK_BYTES
from gpud.units import parse_span
from tests.prometheus.test_packaging import alerts

# What a unit of gpud's is in the page's.
SCALES = {"percent": 0.01, "days": 86400.0}
# Of rules that have no level, whatever stands in their expression.
EDGES = {
    "driver": {1.0, 2.0},  # as the page tells how grave it is
    "stale": {STALE_SECONDS},
    "overcommit": {float(SLACK_BYTES)},
    "pressure": {float(Pressure.CRITICAL)},
    "thermal": {float(Thermal.WARNING), float(Thermal.THROTTLING), float(Thermal.CRITICAL)},
}
IN_STEP = [alert for alert in alerts() if "rule" in alert.get("labels", {})]


def compared(expression: str) -> set[tuple[str, float]]:
    """What it compares with, and how."""
    found = re.findall(r"(<|>|==) ([0-9.]+(?: \* [0-9.]+)*)", expression)
    return {(sign, math.prod(map(float, number.split("*")))) for sign, number in found}


def level(what: Level) -> tuple[str, float]:
    return "<" if what.below is not None else ">", what.threshold * SCALES.get(what.unit, 1.0)


@pytest.mark.parametrize("alert", IN_STEP, ids=lambda alert: alert["alert"])
def test_an_alert_has_the_thresholds_of_the_rule_that_it_names(alert: dict[str, Any]) -> None:
    name = alert["labels"]["rule"]
    rule: Rule = BUILT_IN[name]
    assert parse_span(alert.get("for", "0s")) == rule.for_seconds
    if rule.severity is not None:
        assert alert["labels"]["severity"] == rule.severity.name.lower()
    if isinstance(rule.what, Level):
        assert level(rule.what) in compared(alert["expr"])
    elif name in EDGES:
        assert {number for _, number in compared(alert["expr"])} & EDGES[name]
    elif isinstance(rule.what, Happening):
        assert f"offset {rule.what.hold_seconds / 60:.0f}m" in alert["expr"]


@pytest.mark.parametrize("number", sorted({*XIDS, 999}))
def test_an_xid_is_as_grave_to_both(number: int) -> None:
    (alert,) = [each for each in IN_STEP if each["alert"] == "GpudXid"]
    told = re.findall(r'if match "(.*?)" .*?}}(\w+){{', alert["labels"]["severity"])
    assert [severity for _, severity in told] == ["critical", "info"]
    found = [severity for pattern, severity in told if re.search(pattern, str(number))]
    event = Event(wall=0.0, type="device.xid", subject="", reason="", details={"xid": str(number)})
    expected = xid_severity(event)
    if expected is None:
        assert f'xid!="{number}"' in alert["expr"]
    else:
        assert (found or ["warning"]) == [expected.name.lower()]


def test_all_the_other_rules_are_passed_on() -> None:
    (generic,) = [alert for alert in alerts() if alert["alert"] == "GpudAlert"]
    (left_out,) = re.findall(r'rule!~"(.*?)"', generic["expr"])
    written_out = {alert["labels"]["rule"] for alert in IN_STEP}
    assert set(left_out.split("|")) == written_out
    assert len(written_out) > 10
