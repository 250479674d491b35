"""Alerts as clients and sinks see them, over restarts and reloads."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from gpud.v1 import alerts_pb2, node_pb2, reservations_pb2
from gpud.v1.alerts_pb2 import Alert
from tests.running import GIB, Api, Gpud, calling, refused
from tests.telemetry.alerts.sinks.receiving import Receiver, receiving

PATIENCE_SECONDS = 60.0
CARD = "devices/SIM-titan-x-0"
HOT = {"temperature_celsius": 91}
COOL = {"temperature_celsius": 40}
FIRING, ACKNOWLEDGED, RESOLVED = (
    alerts_pb2.ALERT_STATE_FIRING,
    alerts_pb2.ALERT_STATE_ACKNOWLEDGED,
    alerts_pb2.ALERT_STATE_RESOLVED,
)


class Rig:
    """A daemon with two simulated cards, what befalls them, and who is told."""

    def __init__(self, gpud: Gpud, scenario: Path, receiver: Receiver) -> None:
        self.gpud = gpud
        self.scenario = scenario
        self.receiver = receiver
        self.rules = ""
        self.sinks = f'[alerts.sinks.hook]\nwebhook = "{receiver.url}/x"\n'
        self.write()

    def write(self) -> None:
        self.gpud.extra = (
            f'[alerts]\nquiet = "0s"\n[alerts.rules.thermal]\nfor = "0s"\n{self.rules}{self.sinks}'
        )
        self.gpud.write_config()

    def script(self, **cards: dict[str, Any]) -> None:
        fresh = self.scenario.with_suffix(".new")
        fresh.write_text(json.dumps(cards))
        fresh.rename(self.scenario)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def rig(gpud: Callable[..., Gpud], tmp_path: Path, receiver: Receiver) -> Rig:
    scenario = tmp_path / "scenario.json"
    scenario.write_text("{}")
    cards = '[[devices.simulated]]\ncard = "titan-x"\ncount = 2\n'
    daemon = gpud(
        cards=0,
        devices=f'scenario = "{scenario}"\n{cards}',
        environment={"GPUD_POLICY__BAND_HOLD": "100ms"},
    )
    return Rig(daemon, scenario, receiver)


@pytest.fixture
async def api(rig: Rig) -> AsyncIterator[Api]:
    rig.gpud.start()
    async with calling(rig.gpud) as made:
        yield made


async def listed(api: Api, **fields: Any) -> list[Alert]:
    request = alerts_pb2.ListAlertsRequest(**fields)
    return list((await api.telemetry.ListAlerts(request)).alerts)


async def event(api: Api, type_: str, name: str = "") -> node_pb2.Event:
    """The first of this type (of an alert), once it is in the journal."""
    request = node_pb2.WatchEventsRequest(type=type_, after_sequence=0)
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for answer in api.node.WatchEvents(request):
            if name in answer.event.subject:
                found: node_pb2.Event = answer.event
                return found
    raise AssertionError("the stream ended")


async def bodies(receiver: Receiver, count: int) -> list[dict[str, Any]]:
    return await asyncio.to_thread(receiver.wait_for, count)


async def different(receiver: Receiver, count: int) -> list[dict[str, Any]]:
    """As many that are not the same again: what was on its way at a SIGKILL comes twice."""
    got: list[dict[str, Any]] = []
    while len({each["id"] for each in got}) < count:
        got = await bodies(receiver, len(got) + 1)
    return list({each["id"]: each for each in got}.values())


async def thermal(api: Api) -> Alert:
    """It, once it fires."""
    await event(api, "alert.firing", "thermal")
    (found,) = [each for each in await listed(api) if each.rule == "thermal"]
    return found


async def test_heat_is_told_acknowledged_and_over(rig: Rig, api: Api) -> None:
    assert await listed(api) == []
    rig.script(gpu0=HOT)
    found = await thermal(api)
    assert (found.subject, found.alias, found.state) == (CARD, "gpu0", FIRING)
    assert found.severity == alerts_pb2.ALERT_SEVERITY_CRITICAL
    assert (found.value, found.threshold, found.unit) == (91.0, 85.0, "celsius")
    (told,) = await bodies(rig.receiver, 1)
    assert (told["told"], told["alert"]["name"]) == ("firing", found.name)

    request = alerts_pb2.AcknowledgeAlertRequest(
        request_id="a", name=found.name, comment="a fan is on its way", owner="anna"
    )
    known = (await api.telemetry.AcknowledgeAlert(request)).alert
    assert (known.state, known.acknowledged_by) == (ACKNOWLEDGED, "anna")
    again = (await api.telemetry.AcknowledgeAlert(request)).alert
    assert again.acknowledge_comment == "a fan is on its way"
    request.comment = "another"
    refusal = await refused(api.telemetry.AcknowledgeAlert(request))
    assert (refusal.code, refusal.fields) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        ("request_id",),
    )
    journal = await event(api, "alert.acknowledged")
    assert (journal.actor, journal.reason) == ("anna", "a fan is on its way")

    rig.script(gpu0=COOL)
    await event(api, "alert.resolved", "thermal")
    assert await listed(api) == []
    (over,) = await listed(api, include_resolved=True)
    assert (over.state, over.acknowledged_by) == (RESOLVED, "anna")
    assert over.HasField("resolve_time")
    told = await bodies(rig.receiver, 2)
    assert [each["told"] for each in told] == ["firing", "resolved"]
    request = alerts_pb2.AcknowledgeAlertRequest(name=found.name)
    refusal = await refused(api.telemetry.AcknowledgeAlert(request))
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "WRONG_STATE",
    )


async def test_a_restart_forgets_nothing(rig: Rig, api: Api) -> None:
    rig.script(gpu0=HOT, gpu1={"lost": True})
    found = await thermal(api)
    await event(api, "alert.firing", "lost")
    await bodies(rig.receiver, 2)
    acknowledge = alerts_pb2.AcknowledgeAlertRequest(name=found.name, comment="I know")
    await api.telemetry.AcknowledgeAlert(acknowledge)
    silence = alerts_pb2.SilenceAlertsRequest(rule="lost", duration=Duration(seconds=3600))
    await api.telemetry.SilenceAlerts(silence)
    rig.gpud.restart()
    async with calling(rig.gpud) as after:
        told = {each.rule: each for each in await listed(after)}
        assert told["thermal"].state == ACKNOWLEDGED
        assert told["thermal"].acknowledge_comment == "I know"
        assert told["thermal"].fire_time == found.fire_time
        assert told["lost"].state == FIRING
        assert told["lost"].HasField("silenced_until")
        answer = await after.telemetry.ListAlerts(alerts_pb2.ListAlertsRequest())
        assert [each.rule for each in answer.silences] == ["lost"]
        rig.script(gpu0=COOL, gpu1={"lost": True})
        await event(after, "alert.resolved", "thermal")
        got = await different(rig.receiver, 3)
    assert sorted((each["told"], each["alert"]["rule"]) for each in got) == [
        ("firing", "lost"), ("firing", "thermal"), ("resolved", "thermal"),
    ]  # fmt: skip


async def test_what_a_dead_sink_was_to_be_told_is_told_after_a_restart(rig: Rig) -> None:
    rig.receiver.answers = [503] * 1000
    rig.gpud.start()
    async with calling(rig.gpud) as api:
        rig.script(gpu0=HOT)
        found = await thermal(api)
        await bodies(rig.receiver, 1)
        (waiting,) = (await thermal(api)).deliveries
        assert (waiting.delivered, waiting.told) == (False, FIRING)
    rig.gpud.kill()
    rig.receiver.answers.clear()
    count = len(rig.receiver.got)
    rig.gpud.start()
    told = await bodies(rig.receiver, count + 1)
    # The same id, so that who was told already can know it.
    assert told[-1]["id"] == told[0]["id"]
    assert told[-1]["alert"]["name"] == found.name


async def test_a_sink_that_stays_down_is_told_of_in_the_journal(rig: Rig) -> None:
    rig.sinks = rig.sinks.rstrip() + "\nretries = 0\n"
    rig.receiver.answers = [500]
    rig.write()
    rig.gpud.start()
    async with calling(rig.gpud) as api:
        rig.script(gpu0=HOT)
        found = await event(api, "alert.undelivered")
        assert found.reason == (
            "hook was not told that it fires, after 1 try: it answers 500 Internal Server Error"
        )
        (lost,) = (await thermal(api)).deliveries
        assert (lost.delivered, lost.waiting, lost.attempts) == (False, False, 1)


async def test_what_is_silenced_is_told_once_the_silence_is_over(rig: Rig, api: Api) -> None:
    silence = alerts_pb2.SilenceAlertsRequest(
        request_id="s", rule="thermal", subject="gpu0", comment="known",
        duration=Duration(seconds=600), owner="anna",
    )  # fmt: skip
    (made,) = (await api.telemetry.SilenceAlerts(silence)).silences
    assert (made.rule, made.subject, made.actor) == ("thermal", CARD, "anna")
    rig.script(gpu0=HOT, gpu1=HOT)
    (told,) = await bodies(rig.receiver, 1)
    assert told["alert"]["alias"] == "gpu1"
    first = await listed(api)
    assert {each.alias: each.HasField("silenced_until") for each in first} == {
        "gpu0": True, "gpu1": False,
    }  # fmt: skip
    ended = alerts_pb2.SilenceAlertsRequest(
        rule="thermal", subject=CARD, duration=Duration(), owner="bert"
    )
    assert list((await api.telemetry.SilenceAlerts(ended)).silences) == []
    got = await bodies(rig.receiver, 2)
    assert got[1]["alert"]["alias"] == "gpu0"
    journal = await event(api, "alert.unsilenced")
    assert (journal.actor, journal.subject) == ("bert", CARD)
    # Sent again, the first request is remembered, and makes no other.
    assert list((await api.telemetry.SilenceAlerts(silence)).silences) == []


async def test_a_reload_takes_over_rules_and_sinks_at_once(rig: Rig, api: Api) -> None:
    rig.script(gpu0=HOT)
    await thermal(api)
    await bodies(rig.receiver, 1)
    rig.rules = (
        "on = false\n"
        '[alerts.rules.mine]\nfield = "temperature_celsius"\nsubject = "gpu0"\nabove = 60\n'
        'severity = "info"\nsinks = ["other"]\n'
    )
    rig.sinks = f'[alerts.sinks.other]\nwebhook = "{rig.receiver.url}/other"\n'
    rig.sinks += 'min_severity = "info"\n'
    rig.write()
    reload = node_pb2.ReloadConfigRequest()
    changes = (await api.node.ReloadConfig(reload)).changes
    assert [(each.key, each.needs_restart) for each in changes] == [
        ("alerts.rules.mine", False),
        ("alerts.rules.thermal", False),
        ("alerts.sinks.hook", False),
        ("alerts.sinks.other", False),
    ]
    await event(api, "alert.resolved", "thermal")
    await event(api, "alert.firing", "mine")
    await bodies(rig.receiver, 2)
    path, _, told = rig.receiver.got[1]
    assert (path, told["alert"]["rule"]) == ("/other", "mine")
    assert [each.rule for each in await listed(api)] == ["mine"]

    rig.rules = '[alerts.rules.mine]\nfield = "nothing"\nabove = 1\n'
    rig.write()
    refusal = await refused(api.node.ReloadConfig(reload))
    assert "alerts.rules.mine.field: there is no field 'nothing'" in refusal.message
    assert [each.rule for each in await listed(api)] == ["mine"]


async def test_lists_are_by_gravity_and_page_by_page(rig: Rig, api: Api) -> None:
    rig.script(gpu0=HOT, gpu1={"temperature_celsius": 82})
    async with asyncio.timeout(PATIENCE_SECONDS):
        watch = api.node.WatchEvents(
            node_pb2.WatchEventsRequest(type="alert.firing", after_sequence=0)
        )
        for _ in range(2):
            await watch.read()
    first = await api.telemetry.ListAlerts(alerts_pb2.ListAlertsRequest(page_size=1))
    token = first.next_page_token
    second = await api.telemetry.ListAlerts(
        alerts_pb2.ListAlertsRequest(page_size=1, page_token=token)
    )
    assert [each.alias for each in (*first.alerts, *second.alerts)] == ["gpu0", "gpu1"]
    grave = await listed(api, min_severity=alerts_pb2.ALERT_SEVERITY_CRITICAL)
    assert [each.alias for each in grave] == ["gpu0"]


async def test_a_command_gets_what_is_wrong(rig: Rig, tmp_path: Path) -> None:
    pipe, script = tmp_path / "pipe", tmp_path / "on-alert"
    os.mkfifo(pipe)
    script.write_text('#!/bin/sh\nexec cat > "$1"\n')
    script.chmod(0o700)
    rig.sinks = f'[alerts.sinks.script]\ncommand = ["{script}", "{pipe}"]\n'
    rig.write()
    rig.gpud.start()
    rig.script(gpu0=HOT)
    async with asyncio.timeout(PATIENCE_SECONDS):
        told = json.loads(await asyncio.to_thread(pipe.read_text))
    assert (told["told"], told["alert"]["rule"]) == ("firing", "thermal")


async def test_what_outsiders_take_of_promises_is_told(rig: Rig, api: Api) -> None:
    reserved = await api.reservations.Reserve(
        reservations_pb2.ReserveRequest(bytes=10 * GIB, devices=["gpu0"])
    )
    assert reserved.reservation.name
    rig.script(gpu0={"foreign": [{"pid": 4242, "bytes": 4 * GIB}]})
    found = await event(api, "alert.firing", "overcommit")
    assert found.details["of"] == CARD
    assert "of the 10 GiB that are promised are not there: others use 4 GiB" in found.reason
    rig.script(gpu0={})
    await event(api, "alert.resolved", "overcommit")
