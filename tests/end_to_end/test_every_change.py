"""Every state that a watch shows is in the journal, with who and which call brought it about."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from gpud.v1 import devices_pb2, instances_pb2, node_pb2, reservations_pb2, telemetry_pb2
from tests.running import GIB, Api, Gpud, calling

PATIENCE_SECONDS = 60.0
MakeGpud = Callable[..., Gpud]


@dataclass(kw_only=True)
class Walk:
    """What each watch showed, by what it was about: states in their order, each once in a row."""

    api: Api
    scenario: Path
    seen: dict[str, list[str]] = field(default_factory=dict)
    devices: dict[str, devices_pb2.Device] = field(default_factory=dict)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def note(self, subject: str, state: str) -> None:
        states = self.seen.setdefault(subject, [])
        if not states or states[-1] != state:
            states.append(state)

    async def watch_devices(self) -> None:
        request = telemetry_pb2.WatchSnapshotsRequest()
        async for told in self.api.telemetry.WatchSnapshots(request):
            async with self.changed:
                for device in told.snapshot.devices:
                    self.devices[device.alias] = device
                    name = device.name
                    self.note(f"{name} thermal", devices_pb2.Thermal.Name(device.thermal))
                    self.note(f"{name} health", devices_pb2.DeviceHealth.Name(device.health))
                    self.note(f"{name} cordoned", str(device.cordoned))
                self.changed.notify_all()

    async def watch_reservation(self, name: str) -> None:
        request = reservations_pb2.WatchReservationRequest(name=name)
        async for told in self.api.reservations.WatchReservation(request):
            state = reservations_pb2.ReservationState.Name(told.reservation.state)
            async with self.changed:
                self.note(name, state.removeprefix("RESERVATION_STATE_"))
                self.changed.notify_all()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS), self.changed:
            await self.changed.wait_for(holds)

    async def until_device(self, alias: str, holds: Callable[[Any], bool]) -> None:
        await self.until(lambda: alias in self.devices and holds(self.devices[alias]))

    def script(self, **cards: Any) -> None:
        fresh = self.scenario.with_suffix(".new")
        fresh.write_text(json.dumps(cards))
        fresh.rename(self.scenario)

    async def events(self, until: str) -> list[node_pb2.Event]:
        """All, up to the first of a type."""
        found = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            request = node_pb2.WatchEventsRequest(after_sequence=0)
            async for told in self.api.node.WatchEvents(request):
                found.append(told.event)
                if told.event.type == until:
                    return found
        raise AssertionError(f"there is no {until}")


@pytest.fixture
async def walk(stubbed: MakeGpud, tmp_path: Path) -> AsyncIterator[Walk]:
    scenario = tmp_path / "scenario.json"
    scenario.write_text("{}")
    daemon = stubbed(
        devices=f'host = true\nscenario = "{scenario}"',
        environment={"GPUD_POLICY__BAND_HOLD": "200ms"},
    ).start()
    async with calling(daemon) as api, asyncio.TaskGroup() as tasks:
        made = Walk(api=api, scenario=scenario)
        watching = tasks.create_task(made.watch_devices())
        yield made
        watching.cancel()


HEALTHS = ("HEALTHY", "LOST")


def of(events: list[node_pb2.Event], subject: str) -> list[node_pb2.Event]:
    return [each for each in events if each.subject == subject]


async def test_reservations(walk: Walk) -> None:
    api = walk.api
    whole = {"devices": ["gpu0"], "bytes": 4 * GIB}
    waits = Duration(seconds=600)
    first, second, short = [
        (await api.reservations.Reserve(asked)).reservation.name
        for asked in (
            reservations_pb2.ReserveRequest(**whole, request_id="first"),
            reservations_pb2.ReserveRequest(**whole, request_id="second", max_wait=waits),
            reservations_pb2.ReserveRequest(
                devices=["gpu1"], bytes=GIB, request_id="short", ttl=Duration(seconds=1)
            ),
        )
    ]
    async with asyncio.TaskGroup() as tasks:
        for name in (first, second, short):
            tasks.create_task(walk.watch_reservation(name))
        await walk.until(lambda: {first, second, short} <= walk.seen.keys())
        await api.reservations.Release(
            reservations_pb2.ReleaseRequest(name=first, request_id="let go")
        )
        await walk.until(lambda: walk.seen[second][-1] == "GRANTED")
        await api.reservations.Release(reservations_pb2.ReleaseRequest(name=second))
    await api.node.DrainNode(node_pb2.DrainNodeRequest())
    events = await walk.events("node.draining")
    for name in (first, second, short):
        told = [each.type.removeprefix("reservation.").upper() for each in of(events, name)]
        assert walk.seen[name] == told, name
    assert walk.seen[second] == ["QUEUED", "GRANTED", "RELEASED"]
    assert walk.seen[short] == ["GRANTED", "EXPIRED"]
    calls = [(each.method, each.request_id) for each in of(events, second)]
    assert calls == [
        ("ReservationService/Reserve", "second"),
        ("ReservationService/Release", "let go"),  # what came free there was granted here
        ("ReservationService/Release", ""),
    ]
    granted, expired = of(events, short)
    assert granted.caller != ""
    assert (expired.method, expired.caller) == ("", "")  # nobody's call


async def test_devices_and_the_node(walk: Walk) -> None:
    api = walk.api
    await walk.until_device("gpu0", lambda d: d.thermal == devices_pb2.THERMAL_NORMAL)
    walk.script(gpu0={"temperature_celsius": 91}, gpu1={"lost": True})
    await walk.until_device("gpu0", lambda d: d.thermal == devices_pb2.THERMAL_CRITICAL)
    await walk.until_device("gpu1", lambda d: d.health == devices_pb2.DEVICE_HEALTH_LOST)
    walk.script()
    await walk.until_device("gpu0", lambda d: d.thermal == devices_pb2.THERMAL_NORMAL)
    await walk.until_device("gpu1", lambda d: d.health == devices_pb2.DEVICE_HEALTH_HEALTHY)
    cordon = devices_pb2.CordonDeviceRequest(name="gpu0", reason="fan", request_id="c-1")
    await api.devices.CordonDevice(cordon)
    await walk.until_device("gpu0", lambda d: d.cordoned)
    await api.devices.UncordonDevice(devices_pb2.UncordonDeviceRequest(name="gpu0"))
    await walk.until_device("gpu0", lambda d: not d.cordoned)
    await api.node.DrainNode(node_pb2.DrainNodeRequest(reason="move"))
    await api.node.ResumeNode(node_pb2.ResumeNodeRequest())
    events = await walk.events("node.resumed")

    warm, gone = walk.devices["gpu0"].name, walk.devices["gpu1"].name
    bands = [each for each in of(events, warm) if each.type == "device.thermal"]
    told = ["THERMAL_NORMAL", *(f"THERMAL_{each.details['to']}" for each in bands)]
    assert walk.seen[f"{warm} thermal"][-len(told) :] == told
    health = [each.type for each in of(events, gone) if each.details["from"] in HEALTHS]
    assert health == ["device.lost", "device.recovered"]
    assert walk.seen[f"{gone} health"] == [
        f"DEVICE_HEALTH_{state}" for state in ("HEALTHY", "LOST", "HEALTHY")
    ]
    cordons = [each for each in of(events, warm) if "cordoned" in each.type]
    assert [(each.type, each.method, each.request_id) for each in cordons] == [
        ("device.cordoned", "DeviceService/CordonDevice", "c-1"),
        ("device.uncordoned", "DeviceService/UncordonDevice", ""),
    ]
    assert walk.seen[f"{warm} cordoned"] == ["False", "True", "False"]
    node = [each for each in of(events, "node") if each.type.startswith("node.")]
    types = [each.type for each in node]
    assert types[:2] == ["node.started", "node.ready"]
    assert types[-2:] == ["node.draining", "node.resumed"]
    assert node[-2].method == "NodeService/DrainNode"


async def test_instances(walk: Walk) -> None:
    api, states = walk.api, instances_pb2.InstanceState
    name, seen = "", ["QUEUED"]
    async with asyncio.timeout(PATIENCE_SECONDS):
        request = instances_pb2.LoadModelRequest(model="tiny", devices=["host"], request_id="up")
        async for loading in api.instances.LoadModel(request):
            name = loading.instance.name
            _append(seen, states.Name(loading.instance.state))
        unload = instances_pb2.UnloadModelRequest(instance=name, request_id="down")
        async for ending in api.instances.UnloadModel(unload):
            _append(seen, states.Name(ending.instance.state))
    events = of(await walk.events("instance.ended"), name)
    told = ["QUEUED", *(each.details["state"] for each in events if "state" in each.details)]
    # A watch shows the newest: one that is passed within a moment may not be among them.
    assert [state for state in told if state in seen] == seen
    assert told[0] == "QUEUED" and {"LOADING", "READY", "STOPPED"} <= set(told)  # noqa: PT018
    ready = next(each for each in events if each.type == "instance.ready")
    ended = events[-1]
    assert (ready.method, ready.request_id) == ("InstanceService/LoadModel", "up")
    assert (ended.method, ended.request_id) == ("InstanceService/UnloadModel", "down")
    of_unload = (await api.node.ListEvents(node_pb2.ListEventsRequest(request_id="down"))).events
    assert "reservation.released" in {each.type for each in of_unload}
    listed = node_pb2.ListEventsRequest(request_id="up")
    of_load = (await api.node.ListEvents(listed)).events
    assert {each.method for each in of_load} == {"InstanceService/LoadModel"}
    assert "reservation.granted" in {each.type for each in of_load}  # its promise


def _append(seen: list[str], state: str) -> None:
    bare = state.removeprefix("INSTANCE_STATE_")
    if seen[-1] != bare:
        seen.append(bare)


async def test_the_configuration(walk: Walk, daemons: list[Gpud]) -> None:
    (daemon,) = daemons
    more = "\n[quotas.ada]\nreservations = 3\n"
    daemon.config.write_text(daemon.config.read_text() + more)
    await walk.api.node.ReloadConfig(node_pb2.ReloadConfigRequest(request_id="again"))
    told = (await walk.events("config.reloaded"))[-1]
    assert (told.method, told.request_id) == ("NodeService/ReloadConfig", "again")
    assert "quotas.ada" in told.reason + str(told.details)
