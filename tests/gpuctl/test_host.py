"""The host, what devices need, and warnings, as `gpuctl status` and `devices` tell them."""

from __future__ import annotations

import pytest

from gpuctl.commands.host import host_lines
from gpud.v1 import devices_pb2, node_pb2, telemetry_pb2
from tests.fakes.daemon import FakeDaemon
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl

GIB = 1024**3


def host(**more: object) -> telemetry_pb2.HostReadings:
    known: dict[str, object] = {
        "cpu_percent": 12.4,
        "load_average": 3.14,
        "memory_total_bytes": 16 * GIB,
        "memory_available_bytes": 12 * GIB,
    }
    return telemetry_pb2.HostReadings(**{**known, **more})  # type: ignore[arg-type]


def test_the_host_in_a_line() -> None:
    assert host_lines(host()) == ["host: cpu 12%  load 3.14  ram 4/16G"]
    assert host_lines(telemetry_pb2.HostReadings()) == ["host: cpu -  ram -/-"]


def test_swap_stalls_and_disks_are_told_where_there_are() -> None:
    shown = host(
        swap_total_bytes=2 * GIB,
        swap_used_bytes=GIB,
        cpu_some_percent=9.9,
        memory_some_percent=10.0,
        io_some_percent=55.5,
        disks=[
            telemetry_pb2.Disk(what="state", path="/s", total_bytes=100 * GIB, free_bytes=GIB),
            telemetry_pb2.Disk(what="models", path="/m", total_bytes=500 * GIB, free_bytes=0),
        ],
    )
    assert host_lines(shown) == [
        "host: cpu 12%  load 3.14  ram 4/16G  swap 1/2G  waiting for memory 10%, io 56%",
        "disk: state 1G free of 100G  models 0 free of 500G",
    ]


def test_folders_on_one_disk_are_told_once_and_those_on_several_by_their_paths() -> None:
    def folder(what: str, path: str, free: int, disk: str) -> telemetry_pb2.Disk:
        return telemetry_pb2.Disk(
            what=what, path=path, total_bytes=90 * GIB, free_bytes=free * GIB, disk=disk
        )

    # Read at different moments, one disk shows different bytes free.
    state = folder("state", "/s", 62, "8:1")
    models = folder("models", "/a", 61, "8:1"), folder("models", "/b", 60, "8:1")
    same = host(disks=[state, *models])
    assert host_lines(same)[1] == "disk: state,models 62G free of 90G"
    # And two disks may show the same.
    other = folder("models", "/b", 62, "8:17")
    several = host(disks=[state, folder("models", "/a", 61, "8:1"), other])
    assert host_lines(several)[1] == "disk: state,/a 62G free of 90G  /b 62G free of 90G"
    # One that does not tell its disk has one of its own.
    untold = host(disks=[folder("models", "/a", 62, ""), folder("models", "/b", 62, "")])
    assert host_lines(untold)[1] == "disk: /a 62G free of 90G  /b 62G free of 90G"


@pytest.mark.usefixtures("terminal")
def test_status_tells_the_host_and_warnings(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    node = samples.node()
    node.warnings.append("cannot use the nvml driver: " + "its library is another's " * 6)
    daemon.answers["GetNode"] = node_pb2.GetNodeResponse(node=node)
    snapshot = telemetry_pb2.Snapshot(host=host())
    daemon.answers["GetSnapshot"] = telemetry_pb2.GetSnapshotResponse(snapshot=snapshot)
    out = gpuctl("status").out
    assert "\nwarning: cannot use the nvml driver: its library is another's" in out
    assert "\n     " in out  # wrapped, not cut
    assert "\nhost: cpu 12%  load 3.14  ram 4/16G\n" in out
    assert max(map(len, out.splitlines())) <= 80
    assert '"load_average": 3.14' in gpuctl("status -o json").out


def test_devices_tell_what_is_to_be_done(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    card = samples.card()
    card.suggested_action = devices_pb2.SUGGESTED_ACTION_RESET
    card.action_reason = "its driver says: it needs a reset"
    card.xids.add(xid=31, count=4, meaning="a page fault")
    card.xids.add(xid=95, count=1, meaning="an error")
    card.sample.throttled = True
    card.sample.throttle_reasons.append("thermal")
    card.sample.pcie_generation, card.sample.pcie_width = 3, 1
    card.sample.ecc_corrected_count, card.sample.ecc_uncorrected_count = 7, 0
    daemon.answers["ListDevices"] = devices_pb2.ListDevicesResponse(devices=[card])
    assert "gpu0: reset it: its driver says: it needs a reset" in gpuctl("status").out
    header, row = gpuctl("devices -o wide").out.splitlines()
    for column, cell in (
        ("THROTTLED", "thermal"), ("PCIE", "3x1"), ("ECC", "7/0"),
        ("XIDS", "31x4,95"), ("DO", "RESET"),
    ):  # fmt: skip
        at = header.index(column)
        # A column to the right ends with its heading.
        assert cell in row[max(0, at - 4) : at + 12], column
