"""Whose a call's doing is: gpud knows, or is told as of old."""

from __future__ import annotations

import pytest

from gpuctl.session import person
from gpud.v1 import devices_pb2 as d
from gpud.v1 import instances_pb2 as i
from gpud.v1 import node_pb2 as n
from gpud.v1 import reservations_pb2 as r
from tests.fakes.daemon import FakeDaemon
from tests.gpuctl import samples
from tests.gpuctl.access.auth_socket import AuthSocket
from tests.gpuctl.conftest import Gpuctl

COMMANDS = [
    ("reserve --vram 1G", "Reserve"),
    ("explain --vram 1G", "Explain"),
    ("load tiny", "LoadModel"),
    ("unload instances/tiny-1", "UnloadModel"),
    ("cordon gpu0", "CordonDevice"),
    ("uncordon gpu0", "UncordonDevice"),
    ("drain", "DrainNode"),
    ("resume", "ResumeNode"),
]
DECLARING = ["reserve --vram 1G", "explain --vram 1G", "load tiny"]


@pytest.fixture(autouse=True)
def _scripted(daemon: FakeDaemon) -> None:
    stopped = i.UnloadModelResponse(phase=i.UNLOAD_PHASE_STOPPED)
    daemon.answers.update(
        Reserve=r.ReserveResponse(reservation=samples.reservation()),
        Explain=r.ExplainResponse(fits=True),
        LoadModel=samples.load_steps(),
        UnloadModel=[stopped],
        CordonDevice=d.CordonDeviceResponse(device=samples.card()),
        UncordonDevice=d.UncordonDeviceResponse(device=samples.card()),
        DrainNode=n.DrainNodeResponse(node=samples.node()),
        ResumeNode=n.ResumeNodeResponse(node=samples.node()),
    )


@pytest.mark.parametrize(("command", "method"), COMMANDS)
def test_gpud_knows_by_the_token(
    command: str, method: str, gpuctl: Gpuctl, daemon: FakeDaemon, auth: AuthSocket
) -> None:
    assert gpuctl(command).code == 0
    assert daemon.requests[method][0].owner == ""


@pytest.mark.parametrize(("command", "method"), COMMANDS)
def test_an_older_gpud_is_told(
    command: str, method: str, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    assert gpuctl(command).code == 0
    assert daemon.requests[method][0].owner == person()


def test_over_plain_tcp_it_is_told(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    with FakeDaemon(None) as plain:
        plain.answers.update(daemon.answers)
        assert gpuctl(f"--address {plain.address} cordon gpu0").code == 0
        assert plain.requests["CordonDevice"][0].owner == person()


@pytest.mark.parametrize("command", DECLARING)
def test_an_owner_that_was_declared_is_passed_on(
    command: str, gpuctl: Gpuctl, daemon: FakeDaemon, auth: AuthSocket
) -> None:
    method = dict(COMMANDS)[command]
    assert gpuctl(f"{command} --owner bob").code == 0
    assert daemon.requests[method][0].owner == "bob"
