"""Errors of devices and what is done about them, as clients meet it; the host beside them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from gpud.devices.snapshot import Disk, HostReadings, NodeMemory, Readings
from gpud.rpc import messages
from gpud.v1 import alerts_pb2, devices_pb2, node_pb2, telemetry_pb2
from gpud.v1 import reservations_pb2 as pb
from tests.devices import standin
from tests.fakes.cards import sample, snapshot
from tests.running import GIB, Api, Gpud, calling, refused

PATIENCE_SECONDS = 60.0
CARD = "SIM-p106-100-0"


class Rig:
    """A daemon with two simulated cards, and what befalls them."""

    def __init__(self, api: Api, daemon: Gpud, scenario: Path) -> None:
        self.api, self.daemon = api, daemon
        self._scenario = scenario

    def script(self, **cards: dict[str, Any]) -> None:
        fresh = self._scenario.with_suffix(".new")
        fresh.write_text(json.dumps(cards))
        fresh.rename(self._scenario)

    async def until(self, holds: Callable[[devices_pb2.Device], bool]) -> devices_pb2.Device:
        """gpu0 in the first snapshot from now on of which this holds."""
        request = telemetry_pb2.WatchSnapshotsRequest(devices=["gpu0"])
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for answer in self.api.telemetry.WatchSnapshots(request):
                if holds(answer.snapshot.devices[0]):
                    found: devices_pb2.Device = answer.snapshot.devices[0]
                    return found
        raise AssertionError("the stream ended")

    async def count(self, type_: str, **details: str) -> int:
        """How many events of this type, with these details, the journal holds."""
        request = node_pb2.ListEventsRequest(type=type_, page_size=100)
        events = (await self.api.node.ListEvents(request)).events
        return sum(details.items() <= dict(event.details).items() for event in events)

    async def event(self, type_: str, subject: str = "") -> node_pb2.Event:
        """The first of this type, and of a subject, once it is in the journal."""
        request = node_pb2.WatchEventsRequest(type=type_, after_sequence=0)
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for answer in self.api.node.WatchEvents(request):
                found: node_pb2.Event = answer.event
                if subject in ("", found.subject):
                    return found
        raise AssertionError("the stream ended")


@pytest.fixture
async def rig(gpud: Callable[..., Gpud], tmp_path: Path) -> AsyncIterator[Rig]:
    scenario = tmp_path / "scenario.json"
    scenario.write_text("{}")
    daemon = gpud(cards=2, devices=f'scenario = "{scenario}"').start()
    async with calling(daemon) as api:
        yield Rig(api, daemon, scenario)


async def test_a_fatal_error_cordons_until_an_admin_says_otherwise(rig: Rig) -> None:
    rig.script(gpu0={"xid": [45, 79]})
    told = await rig.until(lambda device: device.cordoned)
    assert told.suggested_action == devices_pb2.SUGGESTED_ACTION_REBOOT
    assert told.action_reason == "Xid 79: it has fallen off the bus"
    assert told.cordon_reason == f"{told.action_reason}; reboot the host"
    assert [(each.xid, each.count) for each in told.xids] == [(45, 1), (79, 1)]
    refusal = await refused(
        rig.api.reservations.Reserve(pb.ReserveRequest(bytes=GIB, devices=["gpu0"]))
    )
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert "fallen off the bus" in refusal.message
    error, verdict = await rig.event("device.xid"), await rig.event("device.verdict")
    assert (error.subject, error.details["xid"]) == (f"devices/{CARD}", "45")
    assert dict(verdict.details) == {
        "alias": "gpu0", "from": "NONE", "to": "REBOOT", "fatal": "true",
    }  # fmt: skip
    cordoned = await rig.event("device.cordoned")
    assert (cordoned.actor, cordoned.reason) == ("gpud", told.cordon_reason)
    # The cordon outlives the daemon, and so does what speaks against the card.
    await asyncio.to_thread(rig.daemon.restart)
    async with calling(rig.daemon) as rig.api:
        again = await rig.until(lambda device: device.cordoned and len(device.xids) == 2)
        assert again.suggested_action == told.suggested_action
        assert again.action_reason == told.action_reason
        assert await rig.count("device.xid", xid="79") == 1
        asked = devices_pb2.UncordonDeviceRequest(name="gpu0")
        await rig.api.devices.UncordonDevice(asked)
        clean = await rig.until(
            lambda device: device.suggested_action == devices_pb2.SUGGESTED_ACTION_NONE
        )
        assert (clean.cordoned, len(clean.xids)) == (False, 2)
        answer = await rig.api.reservations.Reserve(pb.ReserveRequest(bytes=GIB, devices=["gpu0"]))
        assert answer.reservation.state == pb.RESERVATION_STATE_GRANTED


async def test_a_card_that_is_gone_is_missed_until_it_is_uncordoned(rig: Rig) -> None:
    rig.script(gpu0={"xid": [79]}, gpu1={"absent": True})
    await rig.until(lambda device: device.cordoned)
    rig.script(gpu0={"xid": [79], "absent": True}, gpu1={"absent": True})
    lost = await rig.until(lambda device: device.health == devices_pb2.DEVICE_HEALTH_LOST)
    assert (lost.cordoned, lost.action_reason) == (True, "Xid 79: it has fallen off the bus")
    await rig.event("device.vanished", f"devices/{CARD}")
    # One with a cordon, and one without.
    asked = [
        devices_pb2.UncordonDeviceRequest(name=alias, request_id=f"give up {alias}")
        for alias in ("gpu0", "gpu1")
    ]
    told = [(await rig.api.devices.UncordonDevice(request)).device for request in asked]
    for device in told:
        await rig.event("device.forgotten", device.name)
    # Whose answer was lost on its way asks again, and is told that it is done.
    again = [(await rig.api.devices.UncordonDevice(request)).device.name for request in asked]
    assert (
        again == [device.name for device in told] == [f"devices/{CARD}", "devices/SIM-p106-100-1"]
    )
    anew = devices_pb2.UncordonDeviceRequest(name="gpu0", request_id="another")
    refusal = await refused(rig.api.devices.UncordonDevice(anew))
    assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_what_a_scenario_scripts_is_told(rig: Rig) -> None:
    rig.script(
        gpu0={
            "throttle_reasons": ["power_cap"],
            "ecc_corrected_count": 3,
            "recovery_action": "drain_p2p",
            "memory_temperature_celsius": 91.5,
            "pcie_width": 1,
            "unsupported": ["performance_state"],
        }
    )
    told = await rig.until(lambda device: device.sample.throttled)
    shown = told.sample
    assert list(shown.throttle_reasons) == ["power_cap"]
    assert (shown.ecc_corrected_count, shown.pcie_width) == (3, 1)
    assert shown.memory_temperature_celsius == 91.5
    assert not shown.HasField("performance_state")
    assert not shown.HasField("ecc_uncorrected_count")
    assert told.suggested_action == devices_pb2.SUGGESTED_ACTION_RESTART_APP
    assert not told.cordoned


async def test_the_host_tells_its_disks(rig: Rig) -> None:
    request = telemetry_pb2.WatchSnapshotsRequest(devices=["gpu0"])
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for answer in rig.api.telemetry.WatchSnapshots(request):
            disks = {disk.what: disk for disk in answer.snapshot.host.disks}
            if len(disks) == 2:
                break
    assert disks["state"].path == str(rig.daemon.state)
    assert 0 < disks["state"].free_bytes <= disks["state"].total_bytes
    assert disks["models"].path == f"{rig.daemon.state}/models"


async def test_a_driver_that_cannot_be_used_is_told_wherever_cards_are_missed(
    gpud: Callable[..., Gpud], nvml_library: Path
) -> None:
    daemon = gpud(
        cards=0,
        environment={
            "GPUD_DEVICES__NVML": "auto",
            "LD_LIBRARY_PATH": str(nvml_library),
            "NVML_STANDIN": "mismatch",
        },
    ).start()
    async with calling(daemon) as api:
        node = (await api.node.GetNode(node_pb2.GetNodeRequest())).node
        (alert,) = (await api.telemetry.ListAlerts(alerts_pb2.ListAlertsRequest())).alerts
        refusals = [
            await refused(api.reservations.Reserve(pb.ReserveRequest(bytes=GIB, devices=devices)))
            for devices in ([], ["gpu0"])
        ]
    assert node.state == node_pb2.NODE_STATE_READY
    assert (alert.name, alert.severity) == (
        "alerts/driver-node",
        alerts_pb2.ALERT_SEVERITY_WARNING,
    )
    codes = [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.NOT_FOUND]
    assert [each.code for each in refusals] == codes
    assert all("different versions; reboot" in each.message for each in refusals)
    (warning,) = node.warnings
    assert warning.startswith("cannot use the nvml driver: its library and the loaded kernel")
    assert "reboot" in warning


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return standin.library_folder(tmp_path_factory)


def test_every_reading_is_told_and_what_is_unknown_is_absent() -> None:
    known = devices_pb2.Sample.DESCRIPTOR.fields_by_name
    # Those that Device has, or that are only reckoned with.
    elsewhere = {
        "memory_driver_reserved_bytes", "compute_mode", "mig_enabled", "recovery_action",
    }  # fmt: skip
    assert set(Readings.__struct_fields__) - set(known) == elsewhere
    card = replace(sample(), readings=Readings())
    told = messages.device(card, None).sample
    assert [field.name for field, _ in told.ListFields()] == ["time"]
    full = Readings(throttle_reasons=(), pcie_generation=0, energy_joules=0.5, remap_failed=False)
    told = messages.device(replace(card, readings=full), None).sample
    assert (told.HasField("throttled"), told.throttled) == (True, False)
    assert (told.HasField("pcie_generation"), told.HasField("remap_failed")) == (True, True)
    assert told.energy_joules == 0.5


def test_errors_are_absent_where_they_are_not_told() -> None:
    card = sample()
    assert len(messages.device(card, None).xids) == 0
    told = messages.device(replace(card, xids={31: 2}), None).xids[0]
    assert (told.xid, told.count) == (31, 2)
    assert told.meaning.startswith("an application used memory")


def test_the_host_beside_its_devices() -> None:
    shown = HostReadings(
        cpu_some_percent=1.5,
        io_full_percent=0.0,
        nodes=(NodeMemory(node=1, total_bytes=4, free_bytes=3),),
        disks=(Disk(what="state", path="/s", total_bytes=2, free_bytes=1, disk="8:1"),),
    )
    host = messages.snapshot(replace(snapshot(), host=shown), [], 0).host
    assert (host.cpu_some_percent, host.HasField("io_full_percent")) == (1.5, True)
    assert not host.HasField("io_some_percent")
    assert (host.nodes[0].node, host.nodes[0].free_bytes) == (1, 3)
    assert (host.disks[0].what, host.disks[0].path, host.disks[0].free_bytes) == ("state", "/s", 1)
    assert host.disks[0].disk == "8:1"


async def test_growth_without_a_promise_is_told_within_two_samples(rig: Rig) -> None:
    promise = pb.ReserveRequest(bytes=2 * GIB, devices=["gpu0"])
    await rig.api.reservations.Reserve(promise)
    seen: dict[int, int] = {}  # bytes in use, by when they were
    told: asyncio.Future[node_pb2.Event] = asyncio.get_running_loop().create_future()

    async def look() -> None:
        request = telemetry_pb2.WatchSnapshotsRequest(devices=["gpu0"])
        async for answer in rig.api.telemetry.WatchSnapshots(request):
            at = answer.snapshot.time.ToNanoseconds()
            if not seen:
                rig.script(gpu0={"foreign": [{"pid": 4242, "bytes": GIB}]})
            seen[at] = answer.snapshot.devices[0].sample.memory_used_bytes
            if told.done() and at > told.result().time.ToNanoseconds():
                return

    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
        tasks.create_task(look())
        told.set_result(await rig.event("device.foreign"))
    event = told.result()
    assert (event.subject, event.details["pids"]) == (f"devices/{CARD}", "4242")
    assert event.details["grown_bytes"] == str(GIB)
    grown = [at for at, used in seen.items() if used >= GIB]
    assert 1 <= sum(at <= event.time.ToNanoseconds() for at in grown) <= 2
