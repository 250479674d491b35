from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from gpuctl.commands.devices import _Headers
from gpud.v1 import devices_pb2
from gpud.v1.telemetry_pb2 import WatchSnapshotsResponse
from tests.fakes.daemon import FakeDaemon
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl

Golden = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def _snapshots(daemon: FakeDaemon) -> None:
    daemon.answers["WatchSnapshots"] = [
        *(WatchSnapshotsResponse(snapshot=samples.snapshot(n)) for n in range(1, 6)),
        FakeDaemon.HANG,
    ]


@pytest.mark.usefixtures("terminal")
def test_devices(gpuctl: Gpuctl, golden: Golden) -> None:
    golden("devices", gpuctl("devices").out)


def test_devices_in_full(gpuctl: Gpuctl, golden: Golden) -> None:
    golden("devices_wide", gpuctl("devices", "-o", "wide").out)


@pytest.mark.usefixtures("terminal")
def test_devices_fit_80_columns_unless_in_full(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    cards = [samples.card(index) for index in range(8)]
    for card in cards:
        card.model_name = "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition"
        card.memory_total_bytes = 96 * samples.GIB
    devices = [*cards, samples.silent_card(), samples.host()]
    daemon.answers["ListDevices"] = devices_pb2.ListDevicesResponse(devices=devices)
    lines = gpuctl("devices").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == 11
    full = gpuctl("devices -o wide").out
    assert full.count("Workstation Edition") == 8
    assert {"KIND", "POWER"} <= set(full.splitlines()[0].split())


@pytest.mark.parametrize("command", ["devices", "status", "watch --count 1"])
def test_what_a_silent_device_showed_last_is_not_told_as_now(
    command: str, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    lost = samples.card()
    lost.health = devices_pb2.DEVICE_HEALTH_LOST
    daemon.answers["ListDevices"] = devices_pb2.ListDevicesResponse(devices=[lost])
    daemon.answers["WatchSnapshots"] = [WatchSnapshotsResponse(snapshot={"devices": [lost]})]
    lines = gpuctl(command).out.splitlines()
    at = next(index for index, line in enumerate(lines) if "GRANTABLE" in line)
    header, row = lines[at : at + 2]
    told = dict(zip(header.split(), row.split(), strict=True))
    assert told["MEMORY"] == "-/6G"
    assert told["GRANTED"] == "4G"
    unknown = {"GRANTABLE", "UTIL", "TEMP", "POWER"} & set(told)
    assert {told[name] for name in unknown} == {"-"}
    assert len(unknown) == 3 + command.startswith("watch")


def test_every_page_is_read(daemon: FakeDaemon, gpuctl: Gpuctl) -> None:
    def page(request: devices_pb2.ListDevicesRequest) -> devices_pb2.ListDevicesResponse:
        index = int(request.page_token or 0)
        return devices_pb2.ListDevicesResponse(
            devices=[samples.card(index)], next_page_token=str(index + 1) if index < 2 else ""
        )

    daemon.answers["ListDevices"] = page
    assert gpuctl("devices", "-o", "name").out.split() == [
        "devices/SIM-0000", "devices/SIM-0001", "devices/SIM-0002"
    ]  # fmt: skip


def test_watch_ends_after_the_count(gpuctl: Gpuctl, golden: Golden, daemon: FakeDaemon) -> None:
    ended = gpuctl("watch", "--count", "3")
    assert ended.code == 0
    golden("watch", ended.out)
    assert daemon.ended["WatchSnapshots"].wait(10)  # the stream was ended, not left behind


@pytest.mark.usefixtures("terminal")
def test_watch_fits_80_columns(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    first, last = samples.snapshot(1), samples.snapshot(2)
    last.devices.append(samples.silent_card())
    daemon.answers["WatchSnapshots"] = [
        WatchSnapshotsResponse(snapshot=each) for each in (first, last)
    ]
    lines = gpuctl("watch --count 2").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert {"UTIL", "TEMP", "POWER", "HEALTH"} < set(lines[0].split())
    assert lines[1].endswith("HEALTHY")
    assert "UNRESPON" in lines[-1]


def test_watch_as_lines_is_a_bare_snapshot_each(gpuctl: Gpuctl) -> None:
    lines = gpuctl("watch", "--count", "2", "-o", "jsonl").out.splitlines()
    snapshots = [json.loads(line) for line in lines]
    assert [snapshot["sequence"] for snapshot in snapshots] == [1, 2]
    assert snapshots[0]["time"] == "2027-01-15T08:00:01.250Z"
    assert snapshots[0]["devices"][0]["memory_total_bytes"] == 6 * samples.GIB


def test_watch_with_processes_shows_whose_they_are(gpuctl: Gpuctl, golden: Golden) -> None:
    ended = gpuctl("watch", "--count", "1", "--processes")
    assert "\x1b" not in ended.out
    golden("watch_processes", ended.out)


def test_watch_asks_for_what_was_said(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    gpuctl("watch", "--interval", "100ms", "--count", "1", "--device", "gpu0", "--device", "host")
    (request,) = daemon.requests["WatchSnapshots"]
    assert request.interval.nanos == 100_000_000
    assert list(request.devices) == ["gpu0", "host"]
    assert not request.include_processes


def test_the_headers_of_a_watch_stay_in_sight() -> None:
    headers = _Headers(10)
    assert [headers.is_due(4) for _ in range(6)] == [True, False, True, False, True, False]
    piped = _Headers(None)
    assert [piped.is_due(400) for _ in range(3)] == [True, False, False]
