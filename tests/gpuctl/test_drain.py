"""cordon and uncordon, drain and resume."""

from __future__ import annotations

import json

import pytest

from gpud.v1 import devices_pb2 as d
from gpud.v1 import instances_pb2 as i
from gpud.v1 import node_pb2 as n
from gpud.v1 import reservations_pb2 as r
from tests.fakes.daemon import FakeDaemon
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl


def cordoned() -> d.Device:
    made = samples.card()
    made.cordoned = True
    made.cordon_reason = "fan is loud"
    return made


@pytest.fixture(autouse=True)
def _scripted(daemon: FakeDaemon) -> None:
    draining = samples.node(state=n.NODE_STATE_DRAINING, state_reason="new cards")
    daemon.answers.update(
        CordonDevice=d.CordonDeviceResponse(device=cordoned()),
        UncordonDevice=d.UncordonDeviceResponse(device=samples.card()),
        DrainNode=n.DrainNodeResponse(node=draining),
        ResumeNode=n.ResumeNodeResponse(node=samples.node()),
    )


def test_cordon(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    ended = gpuctl("cordon", "gpu0", "--reason", "fan is loud")
    assert ended.code == 0
    assert "CORDONED" in ended.out
    (request,) = daemon.requests["CordonDevice"]
    assert (request.name, request.reason) == ("gpu0", "fan is loud")
    assert request.request_id
    assert "@" in request.owner


def test_uncordon(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    ended = gpuctl("uncordon", "devices/SIM-0000", "-o", "json")
    assert json.loads(ended.out)["cordoned"] is False
    assert daemon.requests["UncordonDevice"][0].name == "devices/SIM-0000"


def test_a_cordoned_device_is_told_wherever_devices_are(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    daemon.answers["ListDevices"] = d.ListDevicesResponse(devices=[cordoned(), samples.host()])
    assert "CORDONED" in gpuctl("devices").out
    assert "cordoned: fan is loud" in gpuctl("devices -o wide").out
    assert "gpu0: cordoned: fan is loud" in gpuctl("status").out


def test_drain_shows_what_still_runs(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    ended = gpuctl("drain", "--reason", "new cards")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert lines[1].split() == ["rig", "DRAINING", "new", "cards"]
    assert any(line.startswith("tiny-7f3k") for line in lines)
    assert any(line.startswith("r-4m2k") for line in lines)
    (request,) = daemon.requests["DrainNode"]
    assert not request.stop_instances
    assert not request.HasField("deadline")


def test_drain_prints_the_bare_node_for_programs(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    ended = gpuctl("drain --stop-instances --deadline 30s -o json")
    assert json.loads(ended.out)["state"] == "NODE_STATE_DRAINING"
    (request,) = daemon.requests["DrainNode"]
    assert request.stop_instances
    assert request.deadline.seconds == 30


def left(*instances: i.Instance) -> i.ListInstancesResponse:
    return i.ListInstancesResponse(instances=instances)


def test_drain_waits_until_nothing_is_left(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    stopped = samples.instance(i.INSTANCE_STATE_STOPPED)
    answers = iter([left(samples.instance()), left(stopped)])
    standing = samples.reservation(standing=True)
    by_then = samples.node(state=n.NODE_STATE_DRAINING, state_reason="as it is now")
    daemon.answers.update(
        GetNode=n.GetNodeResponse(node=by_then),
        ListInstances=lambda _: next(answers),
        ListReservations=r.ListReservationsResponse(reservations=[standing, samples.queued()]),
        WatchEvents=[n.WatchEventsResponse(event=samples.event(10)), FakeDaemon.HANG],
    )
    ended = gpuctl("drain --wait 20s")
    assert ended.code == 0
    assert ended.out.splitlines()[1].split() == ["rig", "DRAINING", "as", "it", "is", "now"]
    assert "nothing is left" in ended.out
    assert len(daemon.requests["ListInstances"]) == 2
    # Nothing that happens after the first look is missed.
    assert daemon.requests["WatchEvents"][0].after_sequence == 9


def test_a_drain_that_waits_in_vain(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["WatchEvents"] = [FakeDaemon.HANG]
    ended = gpuctl("drain --wait 100ms")
    assert ended.code == 124
    assert "left are 1 instance and 1 reservation" in ended.err
    assert "stays drained" in ended.err
    assert "tiny-7f3k" in ended.out


def test_resume(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    ended = gpuctl("resume")
    assert "READY" in ended.out
    assert daemon.requests["ResumeNode"][0].owner
