"""Heat, pressure and vanished devices, as clients see them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gpud.v1 import devices_pb2, node_pb2, reservations_pb2, telemetry_pb2
from tests.running import GIB, Api, Gpud, calling

PATIENCE_SECONDS = 60.0
# Cards that no other test has: what still ends on those would count on ours.
CARDS = '[[devices.simulated]]\ncard = "rtx-3090"\ncount = 2\n'
CARD = "SIM-rtx-3090-0"


class Rig:
    """A daemon with two simulated cards, and what befalls them."""

    def __init__(self, api: Api, scenario: Path) -> None:
        self.api = api
        self._scenario = scenario

    def script(self, **cards: dict[str, Any]) -> None:
        fresh = self._scenario.with_suffix(".new")
        fresh.write_text(json.dumps(cards))
        fresh.rename(self._scenario)

    async def until(
        self, holds: Callable[[devices_pb2.Device], bool], device: str = "gpu0"
    ) -> devices_pb2.Device:
        """The device in the first snapshot from now on of which this holds."""
        request = telemetry_pb2.WatchSnapshotsRequest(devices=[device])
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for answer in self.api.telemetry.WatchSnapshots(request):
                if holds(answer.snapshot.devices[0]):
                    found: devices_pb2.Device = answer.snapshot.devices[0]
                    return found
        raise AssertionError("the stream ended")

    async def event(self, type_: str, since: int = 0) -> node_pb2.Event:
        """The first of this type, once it is in the journal."""
        request = node_pb2.WatchEventsRequest(type=type_, after_sequence=since)
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for answer in self.api.node.WatchEvents(request):
                if answer.event.subject == f"devices/{CARD}":
                    found: node_pb2.Event = answer.event
                    return found
        raise AssertionError("the stream ended")


@pytest.fixture
async def rig(gpud: Callable[..., Gpud], tmp_path: Path) -> AsyncIterator[Rig]:
    scenario = tmp_path / "scenario.json"
    scenario.write_text("{}")
    daemon = gpud(
        cards=0,
        devices=f'scenario = "{scenario}"',
        extra=CARDS,
        environment={"GPUD_POLICY__BAND_HOLD": "200ms"},
    ).start()
    async with calling(daemon) as api:
        yield Rig(api, scenario)


async def test_a_card_that_went_while_gpud_was_down_tells_its_leases(
    gpud: Callable[..., Gpud], tmp_path: Path
) -> None:
    scenario = tmp_path / "scenario.json"
    scenario.write_text("{}")
    daemon = gpud(cards=0, devices=f'scenario = "{scenario}"', extra=CARDS).start()
    async with calling(daemon) as api:
        reserved = await api.reservations.Reserve(
            reservations_pb2.ReserveRequest(bytes=GIB, devices=["gpu0"], owner="ada")
        )
    scenario.write_text('{"gpu0": {"absent": true}}')
    daemon.restart()
    async with calling(daemon) as api:
        told = await Rig(api, scenario).event("device.vanished")
        shown = await api.devices.ListDevices(devices_pb2.ListDevicesRequest())
    assert told.details["reservations"] == reserved.reservation.name
    assert "before gpud was restarted" in told.reason
    # The others keep their names, whatever is missing before them.
    assert [device.alias for device in shown.devices] == ["gpu1", "host"]


def is_hot(device: devices_pb2.Device) -> bool:
    return device.thermal == devices_pb2.THERMAL_CRITICAL


async def test_a_hot_card_says_so_and_cools_down_in_its_time(rig: Rig) -> None:
    cool = await rig.until(lambda device: device.HasField("thermal"))
    assert cool.thermal == devices_pb2.THERMAL_NORMAL
    rig.script(gpu0={"temperature_celsius": 91})
    await rig.until(is_hot)
    got = await rig.api.devices.GetDevice(devices_pb2.GetDeviceRequest(name="gpu0"))
    assert got.device.thermal == devices_pb2.THERMAL_CRITICAL
    other = await rig.api.devices.GetDevice(devices_pb2.GetDeviceRequest(name="gpu1"))
    assert other.device.thermal == devices_pb2.THERMAL_NORMAL
    entered = await rig.event("device.thermal")
    assert entered.reason == "38 -> 91 °C: NORMAL -> CRITICAL"
    assert dict(entered.details) == {
        "alias": "gpu0", "from": "NORMAL", "to": "CRITICAL", "value": "91",
    }  # fmt: skip
    rig.script(gpu0={"temperature_celsius": 60})
    await rig.until(lambda device: device.thermal == devices_pb2.THERMAL_WARNING)
    left = await rig.event("device.thermal", since=entered.sequence)
    assert left.reason == "back to 60 °C: CRITICAL -> WARNING"


async def test_a_full_card_says_so(rig: Rig) -> None:
    await rig.until(lambda device: device.pressure == devices_pb2.PRESSURE_LOW)
    rig.script(gpu0={"foreign": [{"pid": 4242, "bytes": 20 * GIB}]})
    await rig.until(lambda device: device.pressure == devices_pb2.PRESSURE_HIGH)
    told = await rig.event("device.pressure")
    assert told.reason == "0 -> 83.3 % used: LOW -> HIGH"


async def test_a_reading_that_a_card_refuses_leaves_its_band_absent(rig: Rig) -> None:
    rig.script(gpu0={"unsupported": ["temperature_celsius"]})
    shown = await rig.until(lambda device: not device.sample.HasField("temperature_celsius"))
    assert not shown.HasField("thermal")
    assert shown.pressure == devices_pb2.PRESSURE_LOW
    host = await rig.until(lambda device: device.HasField("pressure"), "host")
    assert not host.HasField("thermal")


async def test_a_vanished_card_tells_its_leases_which_end_as_they_should(rig: Rig) -> None:
    reserved = await rig.api.reservations.Reserve(
        reservations_pb2.ReserveRequest(bytes=GIB, devices=["gpu0"], owner="ada")
    )
    name = reserved.reservation.name
    rig.script(gpu0={"absent": True})
    gone = await rig.until(lambda device: device.health == devices_pb2.DEVICE_HEALTH_LOST)
    assert (gone.alias, gone.granted_bytes) == ("gpu0", GIB)
    # What it showed last is nothing that it shows now.
    assert gone.sample.HasField("time")
    assert not gone.sample.HasField("memory_used_bytes")
    assert not gone.HasField("free_bytes")
    told = await rig.event("device.vanished")
    assert told.reason.endswith(f"1 promise lies on it: {name} (1 GiB)")
    assert told.details["reservations"] == name
    released = await rig.api.reservations.Release(reservations_pb2.ReleaseRequest(name=name))
    assert released.reservation.state == reservations_pb2.RESERVATION_STATE_RELEASED
    assert (await rig.until(lambda device: device.granted_bytes == 0)).alias == "gpu0"
    rig.script()
    await rig.until(lambda device: device.health == devices_pb2.DEVICE_HEALTH_HEALTHY)
    await rig.event("device.recovered")
