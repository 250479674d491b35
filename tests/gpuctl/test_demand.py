"""What the options that reserve, explain and run share ask of gpud."""

from __future__ import annotations

import pytest

from gpud.v1 import reservations_pb2 as r
from gpud.v1.devices_pb2 import DEVICE_KIND_GPU
from tests.fakes.daemon import FakeDaemon
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl

EVERYTHING = (
    "--vram 8GiB --ram 2GiB --device gpu0 --device gpu1 --count 2 --kind gpu --exclusive "
    "--require-driver --spread --numa-node 1 --priority interactive --preemptible --ttl 60s "
    "--owner ada --label a=b --alternative 24GiB --alternative 2x12GiB@gpu2,gpu3 --wait 5m"
)


@pytest.fixture(autouse=True)
def _scripted(daemon: FakeDaemon) -> None:
    daemon.answers.update(
        Reserve=r.ReserveResponse(reservation=samples.reservation()),
        Explain=r.ExplainResponse(fits=True, summary="8 GiB on gpu0"),
    )


@pytest.mark.parametrize(("command", "method"), [("reserve", "Reserve"), ("explain", "Explain")])
def test_everything_that_can_be_asked(
    command: str, method: str, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    assert gpuctl(f"{command} {EVERYTHING}").code == 0
    (request,) = daemon.requests[method]
    assert request.bytes == 8 * samples.GIB
    assert request.host_bytes == 2 * samples.GIB
    assert list(request.devices) == ["gpu0", "gpu1"]
    assert request.device_count == 2
    assert request.kind == DEVICE_KIND_GPU
    assert request.sharing == r.SHARING_EXCLUSIVE
    assert request.require_enforcement == r.ENFORCEMENT_DRIVER
    assert request.placement == r.PLACEMENT_SPREAD
    assert request.numa_node == 1
    assert request.priority == r.PRIORITY_INTERACTIVE
    assert request.preemptible
    assert (request.ttl.seconds, request.max_wait.seconds) == (60, 300)
    assert (request.owner, dict(request.labels)) == ("ada", {"a": "b"})
    assert list(request.alternatives) == [
        r.Shape(bytes=24 * samples.GIB),
        r.Shape(bytes=12 * samples.GIB, device_count=2, devices=["gpu2", "gpu3"]),
    ]


def test_what_was_not_said_is_left_to_gpud(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    gpuctl("reserve --vram 1G")
    (request,) = daemon.requests["Reserve"]
    request.ClearField("request_id")
    request.ClearField("owner")
    assert request == r.ReserveRequest(bytes=samples.GIB)


@pytest.mark.parametrize(
    ("options", "placement"),
    [
        ("--pack", r.PLACEMENT_PACK),
        ("--placement spread", r.PLACEMENT_SPREAD),
        ("--placement spread --spread", r.PLACEMENT_SPREAD),
    ],
)
def test_placements(options: str, placement: int, gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    gpuctl(f"reserve --vram 1G {options}")
    assert daemon.requests["Reserve"][0].placement == placement


@pytest.mark.parametrize("options", ["", "--wait 0", "--wait 0s"])
def test_nobody_waits_unasked(options: str, gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    gpuctl(f"reserve --vram 1G {options}")
    assert not daemon.requests["Reserve"][0].HasField("max_wait")


def test_a_dry_run_does_not_wait(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["Reserve"] = r.ReserveResponse(reservation=samples.queued())
    ended = gpuctl("reserve --vram 4G --wait 5m --validate-only")
    assert ended.code == 0
    assert "QUEUED 2" in ended.out
    assert daemon.requests["Reserve"][0].validate_only
    assert "WatchReservation" not in daemon.requests


def test_a_load_asks_for_its_promise(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["LoadModel"] = samples.load_steps()
    gpuctl("load tiny --priority critical --exclusive --preemptible --wait 2m")
    (request,) = daemon.requests["LoadModel"]
    assert request.priority == r.PRIORITY_CRITICAL
    assert request.sharing == r.SHARING_EXCLUSIVE
    assert request.preemptible
    assert request.max_wait.seconds == 120
    assert request.reservation == ""


def test_a_load_into_a_standing_reservation(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["LoadModel"] = samples.load_steps()
    gpuctl("load tiny --reservation voice")
    (request,) = daemon.requests["LoadModel"]
    assert request.reservation == "reservations/voice"
    assert not request.HasField("max_wait")
