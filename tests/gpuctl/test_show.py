from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from gpud.v1.devices_pb2 import GetDeviceResponse
from gpud.v1.instances_pb2 import GetInstanceResponse
from gpud.v1.models_pb2 import Command, GetModelResponse, ListModelsResponse, Model
from gpud.v1.node_pb2 import ENGINE_COMMAND
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
    "GetModel": ({"models/tiny"}, GetModelResponse(model=samples.model())),
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


def test_a_command_is_shown_with_what_runs_and_how_it_is_asked(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    model = samples.model()
    model.engine = ENGINE_COMMAND
    model.options_ignored = "gpu_layers: no effect on host alone"
    model.command.CopyFrom(
        Command(
            argv=["/opt/whisper/server", "--port", "${PORT}", "a b"],
            environment=["WHISPER_THREADS"],
            health="/health",
            device_bytes=2**30,
        )
    )
    daemon.answers["GetModel"] = GetModelResponse(model=model)
    lines = gpuctl("show", "models/tiny").out.splitlines()
    begin = lines.index("command:")
    assert lines[begin + 1 : begin + 5] == [
        "  argv:        /opt/whisper/server --port '${PORT}' 'a b'",
        "  environment: WHISPER_THREADS",
        "  health:      /health",
        "  device:      1 GiB",
    ]
    assert lines[-1].split(maxsplit=2)[2] == "gpu_layers: no effect on host alone"


def test_an_instance_is_shown_with_the_options_that_have_no_effect(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    instance = samples.instance()
    instance.options_ignored = "gpu_layers: no effect on host alone"
    daemon.answers["GetInstance"] = GetInstanceResponse(instance=instance)
    shown = gpuctl("show", "instances/tiny-7f3k").out
    assert re.search("^options ignored: +gpu_layers: no effect on host alone$", shown, re.M)


def test_how_far_off_an_estimate_was_is_a_percentage(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    instance = samples.instance()
    for error, told in ((0.000498989, "+0.0%"), (3.02112, "+302.1%"), (-0.25, "-25.0%")):
        instance.footprint.past_error = error
        daemon.answers["GetInstance"] = GetInstanceResponse(instance=instance)
        shown = gpuctl("show", "instances/tiny-7f3k").out
        assert re.search(rf"^ *past error: +{re.escape(told)}$", shown, re.M)


def test_what_an_instance_holds_too_much_is_shown_where_it_does(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    instance = samples.instance()
    assert "overuse" not in gpuctl("show", "instances/tiny-7f3k").out
    instance.overuse_bytes = 97 * samples.MIB
    daemon.answers["GetInstance"] = GetInstanceResponse(instance=instance)
    shown = gpuctl("show", "instances/tiny-7f3k").out
    assert re.search("^overuse: +97 MiB$", shown, re.M)


def test_show_prints_the_bare_noun(gpuctl: Gpuctl) -> None:
    assert json.loads(gpuctl("show", "r-4m2k", "-o", "json").out)["name"] == "reservations/r-4m2k"


@pytest.mark.parametrize("name", ["gpu0", "SIM-0000", "r-4m2k", "tiny", "instances/tiny-7f3k"])
def test_what_is_there_is_shown_without_a_refusal(
    name: str, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    assert gpuctl("show", name).code == 0
    asked = [method for method, requests in daemon.requests.items() for _ in requests]
    assert len([method for method in asked if method.startswith("Get")]) == 1
    assert len(asked) == len(set(asked))


def test_a_device_s_alias_comes_before_other_names(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["ListModels"] = ListModelsResponse(models=[Model(name="models/gpu0")])
    assert gpuctl("show gpu0 -o name").out == "devices/SIM-0000\n"
    assert set(daemon.requests) == {"ListDevices", "GetDevice"}


def test_a_name_of_two_things_asks_which(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["ListModels"] = ListModelsResponse(models=[Model(name="models/tiny-7f3k")])
    ended = gpuctl("show", "tiny-7f3k")
    assert ended.code == 2
    assert "write models/tiny-7f3k or instances/tiny-7f3k" in ended.err


def test_a_name_of_nothing(gpuctl: Gpuctl) -> None:
    ended = gpuctl("show", "nothing")
    assert ended.code == 69
    assert "'nothing'" in ended.err


def test_a_refusal_is_not_taken_for_nothing(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["ListModels"] = Refusal(
        code=grpc.StatusCode.PERMISSION_DENIED, message="cannot read it", reason="ROLE_MISSING"
    )
    assert gpuctl("show", "r-4m2k").code == 71
