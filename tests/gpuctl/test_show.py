from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from gpud.v1.devices_pb2 import GetDeviceResponse
from gpud.v1.instances_pb2 import GetInstanceResponse
from gpud.v1.models_pb2 import GetModelResponse
from gpud.v1.reservations_pb2 import GetReservationResponse
from tests.fakes.daemon import FakeDaemon, Refusal
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl

Golden = Callable[[str, str], None]

KNOWN = {
    "GetDevice": ({"gpu0", "devices/SIM-0000"}, GetDeviceResponse(device=samples.card())),
    "GetReservation": (
        {"reservations/r-4m2k"},
        GetReservationResponse(reservation=samples.reservation()),
    ),
    "GetModel": ({"models/tiny", "models/gpu0"}, GetModelResponse(model=samples.model())),
    "GetInstance": (
        {"instances/tiny-7f3k"},
        GetInstanceResponse(instance=samples.instance()),
    ),
}


@pytest.fixture(autouse=True)
def _scripted(daemon: FakeDaemon) -> None:
    def finder(names: set[str], answer: Any) -> Callable[[Any], Any]:
        missing = Refusal(
            code=grpc.StatusCode.NOT_FOUND, message="cannot find it", reason="X_NOT_FOUND"
        )
        return lambda request: answer if request.name in names else missing

    for method, (names, answer) in KNOWN.items():
        daemon.answers[method] = finder(names, answer)


@pytest.mark.parametrize(
    ("name", "golden_name"),
    [
        ("devices/SIM-0000", "show_device"),
        ("r-4m2k", "show_reservation"),
        ("tiny", "show_model"),
        ("tiny-7f3k", "show_instance"),
    ],
)
def test_show(name: str, golden_name: str, gpuctl: Gpuctl, golden: Golden) -> None:
    ended = gpuctl("show", name)
    assert ended.code == 0
    golden(golden_name, ended.out)


def test_show_prints_the_bare_noun(gpuctl: Gpuctl) -> None:
    assert json.loads(gpuctl("show", "r-4m2k", "-o", "json").out)["name"] == "reservations/r-4m2k"


def test_a_name_of_two_things_asks_which(gpuctl: Gpuctl) -> None:
    ended = gpuctl("show", "gpu0")
    assert ended.code == 2
    assert "write devices/gpu0 or models/gpu0" in ended.err


def test_a_name_of_nothing(gpuctl: Gpuctl) -> None:
    ended = gpuctl("show", "nothing")
    assert ended.code == 69
    assert "'nothing'" in ended.err


def test_a_refusal_is_not_taken_for_nothing(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["GetModel"] = Refusal(
        code=grpc.StatusCode.PERMISSION_DENIED, message="cannot read it", reason="ROLE_MISSING"
    )
    assert gpuctl("show", "r-4m2k").code == 71
