"""Which instance a model's name means, to each command that takes one."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from gpud.v1 import instances_pb2 as pb
from gpud.v1.models_pb2 import GetModelResponse
from tests.fakes.daemon import FakeDaemon, Refusal
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl

NOT_FOUND = Refusal(
    code=grpc.StatusCode.NOT_FOUND, message="cannot find it", reason="INSTANCE_NOT_FOUND"
)
# The commands, and what each sends; it names the instance in one of two fields.
COMMANDS = {
    "logs": "TailOutput",
    "sleep": "SleepInstance",
    "wake": "WakeInstance",
    "reset": "ResetInstance",
}


@pytest.fixture(autouse=True)
def _scripted(daemon: FakeDaemon) -> None:
    daemon.answers.update(
        GetInstance=NOT_FOUND,
        GetModel=NOT_FOUND,
        TailOutput=[pb.TailOutputResponse(lines=["one"])],
        SleepInstance=pb.SleepInstanceResponse(instance=samples.instance()),
        WakeInstance=pb.WakeInstanceResponse(instance=samples.instance()),
        ResetInstance=pb.ResetInstanceResponse(instance=samples.instance()),
    )


def one(name: str, state: str, began: int, reason: str = "") -> pb.Instance:
    made = samples.instance(pb.InstanceState.Value(f"INSTANCE_STATE_{state}"))
    made.name = f"instances/{name}"
    made.failure.reason = reason
    made.create_time.CopyFrom(samples.moment(began))
    return made


def known(daemon: FakeDaemon, *instances: pb.Instance) -> None:
    daemon.answers["ListInstances"] = pb.ListInstancesResponse(instances=instances)


def asked(daemon: FakeDaemon, command: str) -> str:
    (request,) = daemon.requests.get(COMMANDS[command], [None])
    named: Any = request
    return str(named.instance if command == "logs" else named.name)


@pytest.mark.parametrize("name", ["tiny", "models/tiny"])
@pytest.mark.parametrize("command", ["logs", "sleep", "wake"])
@pytest.mark.parametrize("ended", ["STOPPED", "FAILED"])
def test_the_one_that_lives_comes_before_a_newer_that_ended(
    ended: str, command: str, name: str, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    known(daemon, one("newer", ended, 5), one("serves", "READY", 1), one("older", ended, 0))
    assert gpuctl(command, name).code == 0
    assert daemon.requests["ListInstances"][0].model == "models/tiny"
    assert asked(daemon, command) == "instances/serves"


@pytest.mark.parametrize("command", COMMANDS)
def test_several_that_live_are_for_the_caller_to_choose_among(
    command: str, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    known(daemon, one("a", "READY", 1), one("b", "LOADING", 2), one("c", "STOPPED", 3))
    ended = gpuctl(command, "tiny")
    assert ended.code == 67
    assert "several instances: instances/a, instances/b; name one" in ended.err
    assert COMMANDS[command] not in daemon.requests


@pytest.mark.parametrize("command", ["logs", "sleep", "wake"])
def test_of_those_that_ended_it_is_the_newest(
    command: str, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    known(daemon, one("newer", "FAILED", 5), one("older", "STOPPED", 1))
    assert gpuctl(command, "tiny").code == 0
    assert asked(daemon, command) == "instances/newer"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_model_that_is_not_loaded_says_how_to_load_it(
    command: str, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    known(daemon)
    daemon.answers["GetModel"] = GetModelResponse(model=samples.model())
    ended = gpuctl(command, "tiny")
    assert ended.code == 69
    assert "models/tiny: it is not loaded; `gpuctl load tiny` loads it" in ended.err


@pytest.mark.parametrize("command", COMMANDS)
def test_what_names_nothing_is_for_gpud_to_refuse(
    command: str, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    known(daemon)
    daemon.answers[COMMANDS[command]] = NOT_FOUND
    assert gpuctl(command, "nothing").code == 69
    assert asked(daemon, command) == "instances/nothing"


def test_an_instance_is_taken_by_its_name(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    assert gpuctl("reset instances/tiny-7f3k --request-id once").code == 0
    (request,) = daemon.requests["ResetInstance"]
    assert (request.name, request.request_id) == ("instances/tiny-7f3k", "once")
    assert "ListInstances" not in daemon.requests


def test_reset_means_the_one_that_can_be_reset(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    instances = [
        one("waits", "BACKOFF", 1),
        one("given-up", "FAILED", 2, "RESTART_LOOP"),
        one("failed", "FAILED", 3, "ENGINE_EXITED"),
        one("failed-later", "FAILED", 4, "ENGINE_EXITED"),
        one("serves", "READY", 5),
    ]
    for first in (0, 1, 2, 4):
        known(daemon, *instances[first:])
        assert gpuctl("reset tiny").code == 0
    names = [each.name.partition("/")[2] for each in daemon.requests["ResetInstance"]]
    assert names == ["waits", "given-up", "failed-later", "serves"]


def test_several_that_wait_to_be_started_again_are_not_guessed_among(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    known(daemon, one("a", "BACKOFF", 1), one("b", "BACKOFF", 2), one("serves", "READY", 3))
    ended = gpuctl("reset tiny")
    assert ended.code == 67
    assert "instances/a, instances/b; name one" in ended.err
