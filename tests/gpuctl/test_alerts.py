from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from gpud.v1 import alerts_pb2 as a
from gpud.v1 import node_pb2
from tests.fakes.daemon import FakeDaemon, Refusal
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl
from tests.gpuctl.samples import NOW

Golden = Callable[[str, str], None]


def at(seconds: float) -> Timestamp:
    return Timestamp(seconds=int(NOW + seconds))


def alert(**fields: Any) -> a.Alert:
    return a.Alert(
        **{
            "name": "alerts/thermal-80a86cc3",
            "rule": "thermal",
            "severity": "ALERT_SEVERITY_CRITICAL",
            "state": "ALERT_STATE_FIRING",
            "since": at(-90),
            "fire_time": at(-60),
            "subject": "devices/GPU-0",
            "alias": "gpu0",
            "value": 91.0,
            "threshold": 85.0,
            "unit": "celsius",
            "summary": "gpu0: 91 °C, CRITICAL (from 85 °C on)",
            "remedy": "see to its cooling",
        }
        | fields
    )


def deliveries() -> list[a.Delivery]:
    return [
        a.Delivery(sink="hook", attempts=2, problem="it answers 500", waiting=True),
        a.Delivery(sink="pager", delivered=True, attempts=1),
        a.Delivery(sink="script", attempts=3, problem="it ended with code 1"),
    ]


LOW = alert(
    name="alerts/high_memory-1", rule="high_memory", severity="ALERT_SEVERITY_WARNING",
    summary="gpu1: memory in use is 93.2 %, above 90 %", silenced_until=at(3600),
)  # fmt: skip
KNOWN = alert(
    name="alerts/lost-2", rule="lost", state="ALERT_STATE_ACKNOWLEDGED",
    summary="gpu2: it is lost: gone", acknowledged_by="anna@host1", acknowledge_comment="ordered",
)  # fmt: skip
NOTE = alert(
    name="alerts/pressure-3", severity="ALERT_SEVERITY_INFO", summary="gpu3: 97 %: CRITICAL",
)  # fmt: skip
SILENCE = a.Silence(
    rule="high_memory", subject="devices/GPU-1", end_time=at(3600), actor="bert", comment="known"
)


def answer(*alerts: a.Alert, silences: tuple[a.Silence, ...] = ()) -> a.ListAlertsResponse:
    return a.ListAlertsResponse(alerts=alerts, silences=silences)


@pytest.mark.usefixtures("terminal")
def test_alerts(gpuctl: Gpuctl, daemon: FakeDaemon, golden: Golden) -> None:
    long = alert(summary="gpu7: " + "it goes on " * 6)
    daemon.answers["ListAlerts"] = answer(alert(), KNOWN, LOW, long, silences=(SILENCE,))
    ended = gpuctl("alerts")
    assert (ended.code, ended.err) == (0, "")
    assert all(len(line) <= 80 for line in ended.out.splitlines()[:-1])
    golden("alerts", ended.out)
    (asked,) = daemon.requests["ListAlerts"]
    assert not asked.include_resolved
    assert asked.min_severity == a.ALERT_SEVERITY_UNSPECIFIED


def test_alerts_wide_and_over(gpuctl: Gpuctl, daemon: FakeDaemon, golden: Golden) -> None:
    told = alert(deliveries=deliveries(), state="ALERT_STATE_RESOLVED", resolve_time=at(-5))
    daemon.answers["ListAlerts"] = answer(told, KNOWN)
    golden("alerts_wide", gpuctl("alerts -o wide --all --severity warning").out)
    (asked,) = daemon.requests["ListAlerts"]
    assert asked.include_resolved
    assert asked.min_severity == a.ALERT_SEVERITY_WARNING


def test_alerts_for_programs(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["ListAlerts"] = answer(alert(), silences=(SILENCE,))
    plain = json.loads(gpuctl("alerts -o json").out)
    assert plain["alerts"][0]["severity"] == "ALERT_SEVERITY_CRITICAL"
    assert plain["silences"][0]["actor"] == "bert"
    (line,) = gpuctl("alerts -o jsonl").out.splitlines()
    assert json.loads(line)["rule"] == "thermal"
    assert gpuctl("alerts -o name").out == "alerts/thermal-80a86cc3\n"


def test_no_alerts(gpuctl: Gpuctl) -> None:
    ended = gpuctl("alerts")
    assert (ended.code, ended.out, ended.err) == (0, "", "no alerts\n")


@pytest.mark.parametrize(
    ("alerts", "code", "line"),
    [
        ((), 0, "OK - nothing is wrong"),
        ((NOTE,), 0, "OK - nothing is wrong"),
        ((KNOWN, LOW), 0, "OK - nothing new (1 acknowledged, 1 silenced)"),
        ((KNOWN, KNOWN), 0, "OK - nothing new (2 acknowledged)"),
        (
            (alert(severity="ALERT_SEVERITY_WARNING", summary="gpu1: 93 %"), NOTE),
            1,
            "WARNING - 1 warning: gpu1: 93 %",
        ),
        (
            (alert(summary="x"), alert(severity="ALERT_SEVERITY_WARNING", summary="y"), LOW),
            2,
            "CRITICAL - 1 critical, 1 warning: x; y",
        ),
        (
            tuple(alert(summary=f"n{n}") for n in range(7)),
            2,
            "CRITICAL - 7 critical: n0; n1; n2; n3; n4; and 2 more",
        ),
        ((alert(state="ALERT_STATE_PENDING"),), 0, "OK - nothing is wrong"),
        ((alert(summary="\x1b[2J\nOK - fine"),), 2, "CRITICAL - 1 critical:  OK - fine"),
    ],
)
def test_a_check(
    gpuctl: Gpuctl, daemon: FakeDaemon, alerts: tuple[a.Alert, ...], code: int, line: str
) -> None:
    daemon.answers["ListAlerts"] = answer(*alerts)
    ended = gpuctl("alerts --check")
    assert (ended.code, ended.out, ended.err) == (code, f"{line}\n", "")


@pytest.mark.parametrize(
    ("state", "code", "line"),
    [
        ("READY", 1, "WARNING - 1 warning: gpu1: 93 %"),
        ("DRAINING", 1, "WARNING - 1 warning: gpu1: 93 %"),
        ("RECONCILING", 1, "WARNING - the node is RECONCILING (x); 1 warning: gpu1: 93 %"),
        ("DEGRADED", 2, "CRITICAL - the node is DEGRADED (x); 1 warning: gpu1: 93 %"),
    ],
)
def test_a_check_is_of_the_node_too(
    gpuctl: Gpuctl, daemon: FakeDaemon, state: str, code: int, line: str
) -> None:
    low = alert(severity="ALERT_SEVERITY_WARNING", summary="gpu1: 93 %")
    daemon.answers["ListAlerts"] = answer(low)
    node = samples.node(state=f"NODE_STATE_{state}", state_reason="x")
    daemon.answers["GetNode"] = node_pb2.GetNodeResponse(node=node)
    ended = gpuctl("alerts --check")
    assert (ended.code, ended.out) == (code, f"{line}\n")
    assert gpuctl("status --check").code == code


def test_a_check_for_programs(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["ListAlerts"] = answer(alert(), LOW)
    ended = gpuctl("alerts --check -o json")
    plain = json.loads(ended.out)
    assert (ended.code, plain["status"], len(plain["alerts"])) == (2, "CRITICAL", 1)


def test_a_check_of_what_does_not_answer(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["ListAlerts"] = Refusal(
        code=grpc.StatusCode.UNAVAILABLE, message="cannot tell", reason="RECONCILING"
    )
    ended = gpuctl("alerts --check")
    assert (ended.code, ended.out) == (3, "UNKNOWN - cannot tell\n")
    daemon.stop()
    ended = gpuctl("alerts --check")
    assert ended.code == 3
    assert ended.out.startswith("UNKNOWN - cannot reach gpud")


def test_following(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["ListAlerts"] = answer(alert())
    daemon.answers["ListEvents"] = node_pb2.ListEventsResponse(events=[samples.event(9)])
    daemon.answers["WatchEvents"] = [
        node_pb2.WatchEventsResponse(event=samples.event(10)),
        node_pb2.WatchEventsResponse(event=samples.event(11)),
    ]
    ended = gpuctl("alerts -f")
    assert ended.code == 0
    listed, row, header, *events = ended.out.splitlines()
    assert listed.startswith("SEVERITY")
    assert row.startswith("CRITICAL")
    assert header.split() == ["TIME", "TYPE", "SUBJECT", "ACTOR", "REASON"]
    assert len(events) == 2
    (asked,) = daemon.requests["ListEvents"]
    assert (asked.type, asked.page_size) == ("alert", 1)
    (watched,) = daemon.requests["WatchEvents"]
    assert watched.type == "alert"


def test_acknowledging(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["AcknowledgeAlert"] = a.AcknowledgeAlertResponse(alert=KNOWN)
    ended = gpuctl("alerts ack lost-2 -m ordered --request-id x")
    assert ended.code == 0
    assert "ACKNOWLEDGED" in ended.out
    (asked,) = daemon.requests["AcknowledgeAlert"]
    assert (asked.name, asked.comment, asked.request_id) == ("alerts/lost-2", "ordered", "x")
    assert asked.owner
    gpuctl("alerts ack alerts/lost-2")
    again = daemon.requests["AcknowledgeAlert"][1]
    assert again.name == "alerts/lost-2"
    assert again.request_id
    assert gpuctl("alerts ack devices/x").code == 2


@pytest.mark.parametrize("name", ["thermal-80a86cc3", "thermal", "gpu0"])
def test_an_alert_is_named_by_its_rule_or_by_what_it_is_about_as_well(
    gpuctl: Gpuctl, daemon: FakeDaemon, name: str
) -> None:
    low = alert(name="alerts/x-1", rule="high_memory", alias="gpu1")
    daemon.answers["ListAlerts"] = answer(alert(), low)
    daemon.answers["AcknowledgeAlert"] = a.AcknowledgeAlertResponse(alert=KNOWN)
    assert gpuctl(f"alerts ack {name}").code == 0
    (asked,) = daemon.requests["AcknowledgeAlert"]
    assert asked.name == "alerts/thermal-80a86cc3"
    daemon.answers["ListAlerts"] = answer(alert(), alert(name="alerts/thermal-2"))
    several = gpuctl("alerts ack thermal")
    assert several.code == 2
    assert "write alerts/thermal-80a86cc3 or alerts/thermal-2" in several.err


def test_silencing(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["SilenceAlerts"] = a.SilenceAlertsResponse(silences=[SILENCE])
    ended = gpuctl("alerts silence --rule high_memory --subject gpu1 --for 1h -m known")
    assert ended.code == 0
    assert ended.out == (
        "silenced until 2027-01-15 09:00:00: high_memory of devices/GPU-1, by bert: known\n"
    )
    (asked,) = daemon.requests["SilenceAlerts"]
    assert (asked.rule, asked.subject, asked.duration.seconds) == ("high_memory", "gpu1", 3600)
    assert json.loads(gpuctl("alerts silence --everything --for 0s -o json").out)["silences"]
    daemon.answers["SilenceAlerts"] = a.SilenceAlertsResponse()
    assert gpuctl("alerts silence --rule x --for 0s").out == "nothing is silenced\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("alerts silence --for 1h", "say --rule, --subject or both"),
        ("alerts silence --everything --rule x --for 1h", "say --rule, --subject or both"),
        ("alerts silence --rule x", "Missing option '--for'"),
        ("alerts silence --rule x --for soon", "is not a span of time"),
        ("alerts --check -f", "leave out --follow and --all"),
        ("alerts --severity grave", "is not one of"),
        ("alerts quiet", "No such command 'quiet'"),
    ],
)
def test_what_cannot_be_meant(gpuctl: Gpuctl, line: str, words: str) -> None:
    ended = gpuctl(line)
    assert ended.code == 2
    assert words in ended.err
