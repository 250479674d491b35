"""sleep and wake, and reload."""

from __future__ import annotations

import json

import grpc

from gpud.v1 import instances_pb2 as i
from gpud.v1 import node_pb2 as n
from tests.fakes.daemon import FakeDaemon, Refusal
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl

CHANGES = (
    n.ConfigChange(key="models.tiny", kind=n.CONFIG_CHANGE_KIND_CHANGED),
    n.ConfigChange(key="node.state_dir", kind=n.CONFIG_CHANGE_KIND_CHANGED, needs_restart=True),
)


def asleep() -> i.Instance:
    made = samples.instance()
    made.sleeping = True
    made.sleep.CopyFrom(i.Sleep(level=2, actor="anna"))
    return made


def test_sleep_says_how_deep_and_how_long_requests_may_go_on(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    daemon.answers["SleepInstance"] = i.SleepInstanceResponse(instance=asleep())
    name = asleep().name
    ended = gpuctl("sleep", name, "--level", "2", "--grace", "1m", "-o", "json")
    assert ended.code == 0
    assert json.loads(ended.out)["sleep"]["level"] == 2
    (request,) = daemon.requests["SleepInstance"]
    assert (request.name, request.level, request.grace.seconds) == (name, 2, 60)
    assert request.request_id
    assert gpuctl("sleep", name, "--level", "3").code == 2
    assert gpuctl("sleep", name).code == 0
    assert not daemon.requests["SleepInstance"][-1].HasField("grace")


def test_wake(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["WakeInstance"] = i.WakeInstanceResponse(instance=samples.instance())
    name = samples.instance().name
    assert gpuctl("wake", name, "-o", "name").out == f"{name}\n"
    assert daemon.requests["WakeInstance"][0].name == name


def test_one_that_cannot_sleep_says_why(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["SleepInstance"] = Refusal(
        code=grpc.StatusCode.FAILED_PRECONDITION,
        message="cannot do this: load it with sleep_idle_seconds",
    )
    ended = gpuctl("sleep", asleep().name)
    assert ended.code == 73
    assert "sleep_idle_seconds" in ended.err


def test_reload_lists_what_changed_and_when_it_counts(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["ReloadConfig"] = n.ReloadConfigResponse(changes=CHANGES)
    ended = gpuctl("reload", "--validate-only")
    assert ended.code == 0
    table = [line.split(maxsplit=2) for line in ended.out.splitlines()]
    assert table == [
        ["KEY", "CHANGE", "COUNTS"],
        ["models.tiny", "CHANGED", "now"],
        ["node.state_dir", "CHANGED", "after a restart"],
    ]
    assert daemon.requests["ReloadConfig"][0].validate_only
    told = json.loads(gpuctl("reload", "-o", "json").out)["changes"]
    assert [each["key"] for each in told] == ["models.tiny", "node.state_dir"]
    assert not daemon.requests["ReloadConfig"][1].validate_only


def test_a_reload_that_changes_nothing_says_so(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["ReloadConfig"] = n.ReloadConfigResponse()
    ended = gpuctl("reload")
    assert (ended.code, ended.out, ended.err) == (0, "", "no changes\n")
