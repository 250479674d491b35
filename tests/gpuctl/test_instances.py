from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from gpud.v1 import instances_pb2
from gpud.v1.instances_pb2 import (
    GetInstanceResponse,
    ListInstancesResponse,
    LoadModelResponse,
    TailOutputResponse,
)
from gpud.v1.node_pb2 import ENGINE_VLLM
from tests.fakes.daemon import FakeDaemon, Refusal
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl

Golden = Callable[[str, str], None]
NOT_FOUND = Refusal(
    code=grpc.StatusCode.NOT_FOUND, message="cannot find instance", reason="INSTANCE_NOT_FOUND"
)


@pytest.fixture(autouse=True)
def _scripted(daemon: FakeDaemon) -> None:
    daemon.answers.update(
        LoadModel=samples.load_steps(),
        UnloadModel=samples.unload_steps(),
        GetInstance=NOT_FOUND,
        TailOutput=[
            TailOutputResponse(lines=["one\ttwo", "\x1b[31mred\x1b[0m \x07"]),
            TailOutputResponse(lines=["three"]),
        ],
    )


def test_an_instance_that_waits_tells_its_place(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    waiting = samples.instance(instances_pb2.INSTANCE_STATE_QUEUED)
    waiting.queue_position = 3
    waiting.wait_reason = "gpu0 lacks 2 GiB"
    daemon.answers["ListInstances"] = ListInstancesResponse(instances=[waiting])
    assert "QUEUED 3" in gpuctl("instances").out
    assert "gpu0 lacks 2 GiB" in gpuctl("instances -o wide").out
    assert "QUEUED 3" in gpuctl("status").out


def full(code: grpc.StatusCode = grpc.StatusCode.RESOURCE_EXHAUSTED, **more: Any) -> Refusal:
    return Refusal(
        code=code,
        message="cannot promise 752 MiB: gpu0: 12 MiB grantable of 6 GiB",
        **{"reason": "VRAM_INSUFFICIENT", **more},
    )


def waiting_step(*, by_place: bool) -> LoadModelResponse:
    step = samples.load_steps()[2]
    step.ClearField("detail")
    if by_place:
        step.instance.queue_position = 2
    else:
        step.detail = "waits, 1 before it: gpu0 lacks 2 GiB"
    return step


@pytest.mark.parametrize("by_place", [True, False])
def test_a_load_that_waited_in_vain_ends_with_124(
    by_place: bool, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    daemon.answers["LoadModel"] = [waiting_step(by_place=by_place), full()]
    ended = gpuctl("load tiny --wait 1s")
    assert ended.code == 124
    last = ended.err.splitlines()[-1]
    assert last.startswith("gpuctl: waited 1s in vain: cannot promise 752 MiB: gpu0: 12 MiB")


def test_a_load_that_never_waited_is_refused(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["LoadModel"] = [samples.load_steps()[1], full()]
    ended = gpuctl("load tiny --wait 1s")
    assert ended.code == 72
    assert "in vain" not in ended.err


def test_a_load_that_another_ends_while_it_waits_did_not_run_out(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    stopped = full(grpc.StatusCode.ABORTED, reason="LOAD_CANCELLED")
    daemon.answers["LoadModel"] = [waiting_step(by_place=False), stopped]
    assert gpuctl("load tiny --wait 1s").code == 74


def test_load_tells_each_phase_on_stderr_and_the_instance_on_stdout(
    gpuctl: Gpuctl, golden: Golden
) -> None:
    ended = gpuctl("load", "tiny")
    assert ended.code == 0
    golden("load_phases", ended.err)
    golden("load", ended.out)


def test_a_phase_is_told_with_a_detail_that_comes_later(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    first, told, *more = samples.load_steps()
    told.phase = first.phase
    first.ClearField("detail")
    bare = samples.load_steps()[2]
    bare.ClearField("detail")
    daemon.answers["LoadModel"] = [first, told, bare, *more[1:]]
    assert gpuctl("load", "tiny").err.splitlines()[:3] == [
        "  10ms  DETECT     tiny.gguf, 668 MiB",
        "  40ms  ALLOCATE",
        " 100ms  LOAD       weights",
    ]


def test_a_long_phase_tells_what_else_it_does(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    """A line each time that it does something else, but not more often than is worth reading."""

    def does(detail: str, seconds: int) -> Any:
        step = samples.load_steps()[3]
        step.detail = detail
        step.elapsed.FromSeconds(seconds)
        return step

    starts = [("its program starts", 1), ("imports", 3), ("reads", 9), ("starts workers", 10)]
    loads = [("loads 0 of 3", 11), ("loads 1 of 3", 12), ("loads 2 of 3", 19)]
    steps = [does(*each) for each in (*starts, *loads)]
    daemon.answers["LoadModel"] = [*steps, samples.load_steps()[-1]]
    assert gpuctl("load", "tiny").err.splitlines() == [
        "    1s  LOAD       its program starts",
        "    9s  LOAD       reads",
        "   10s  LOAD       starts workers",
        "   11s  LOAD       loads 0 of 3",
        "   19s  LOAD       loads 2 of 3",
        "  1.5s  READY      http://127.0.0.1:41234",
    ]


def test_load_prints_the_final_instance(gpuctl: Gpuctl) -> None:
    plain = json.loads(gpuctl("load", "tiny", "-o", "json").out)
    assert plain["name"] == "instances/tiny-7f3k"
    assert plain["state"] == "INSTANCE_STATE_READY"
    assert plain["endpoint"] == "http://127.0.0.1:41234"
    assert plain["load_duration"] == "1.5s"


def test_load_as_lines_is_a_message_each(gpuctl: Gpuctl) -> None:
    lines = gpuctl("load", "tiny", "-o", "jsonl").out.splitlines()
    assert [json.loads(line)["phase"] for line in lines][::5] == [
        "LOAD_PHASE_DETECT", "LOAD_PHASE_READY"
    ]  # fmt: skip
    assert json.loads(lines[3])["fraction"] == 0.25


def test_load_asks_for_what_was_said(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    said = "--device host --context-length 512 --request-id mine --owner me --label service=voice"
    gpuctl(f"load tiny {said}")
    (request,) = daemon.requests["LoadModel"]
    assert request == instances_pb2.LoadModelRequest(
        request_id="mine",
        model="models/tiny",
        devices=["host"],
        options={"context_length": 512},
        owner="me",
        labels={"service": "voice"},
    )


def test_a_dry_run_shows_the_footprint(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["LoadModel"] = samples.load_steps()[:3]
    ended = gpuctl("load", "tiny", "--dry-run")
    assert ended.code == 0
    assert "total 752 MiB on gpu0" in ended.out
    assert daemon.requests["LoadModel"][0].validate_only


def test_detached_it_leaves_once_the_load_has_a_name(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["LoadModel"] = [
        LoadModelResponse(phase=instances_pb2.LOAD_PHASE_DETECT),
        samples.load_steps()[1],
        FakeDaemon.HANG,
    ]
    ended = gpuctl("load", "tiny", "--detach", "-o", "name")
    assert (ended.code, ended.out) == (0, "instances/tiny-7f3k\n")
    assert daemon.ended["LoadModel"].wait(10)


def test_a_dry_run_tells_what_would_have_no_effect(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    step = samples.load_steps()[2]
    step.instance.options_ignored = "gpu_layers: no effect on host alone"
    daemon.answers["LoadModel"] = [step]
    said = gpuctl("load", "tiny", "--gpu-layers", "7", "--dry-run").out.splitlines()
    assert said[-1] == "without effect: gpu_layers: no effect on host alone"


def test_a_load_that_fails_tells_its_phase_and_why(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["LoadModel"] = [
        *samples.load_steps()[:4],
        Refusal(
            code=grpc.StatusCode.ABORTED,
            message="cannot bring up instances/tiny-7f3k: the engine exited with 1 in phase LOAD",
            reason="ENGINE_EXITED",
        ),
    ]
    ended = gpuctl("load", "tiny")
    assert ended.code == 74
    assert "LOAD" in ended.err.splitlines()[-2]
    assert "exited with 1" in ended.err.splitlines()[-1]
    assert ended.out == ""


@pytest.mark.parametrize("steps", [[], samples.load_steps()[:3]])
def test_a_stream_that_ends_too_soon_is_no_success(
    steps: list[LoadModelResponse], gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    daemon.answers["LoadModel"] = steps
    ended = gpuctl("load", "tiny")
    assert ended.code == 1
    assert "ended" in ended.err


def test_unload_tells_what_came_back(gpuctl: Gpuctl, golden: Golden) -> None:
    ended = gpuctl("unload", "tiny")
    assert ended.code == 0
    golden("unload", ended.out)
    plain = json.loads(gpuctl("unload", "tiny", "-o", "json").out)
    assert plain["freed_bytes"] == 700 * samples.MIB
    assert plain["phase"] == "UNLOAD_PHASE_STOPPED"


def test_a_bare_name_that_is_no_instance_is_a_model(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    gpuctl("unload", "tiny", "--grace", "5s", "--force")
    (request,) = daemon.requests["UnloadModel"]
    assert (request.model, request.instance) == ("models/tiny", "")
    assert request.grace.seconds == 5
    assert request.force
    assert "@" in request.owner  # for the journal


@pytest.mark.parametrize("name", ["tiny-7f3k", "instances/tiny-7f3k"])
def test_an_instance_is_unloaded_by_its_name(
    name: str, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    daemon.answers["GetInstance"] = GetInstanceResponse(instance=samples.instance())
    gpuctl("unload", name)
    (request,) = daemon.requests["UnloadModel"]
    assert (request.model, request.instance) == ("", "instances/tiny-7f3k")
    assert not request.HasField("grace")


def test_an_unload_that_does_not_stop_is_no_success(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["UnloadModel"] = samples.unload_steps()[:1]
    assert gpuctl("unload", "tiny").code == 1


def test_instances_leave_out_what_was_stopped(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    stopped = samples.instance(instances_pb2.INSTANCE_STATE_STOPPED)
    stopped.name = "instances/old"
    failed = samples.instance(instances_pb2.INSTANCE_STATE_FAILED)
    daemon.answers["ListInstances"] = ListInstancesResponse(instances=[stopped, failed])
    assert gpuctl("instances", "-o", "name").out.split() == ["instances/tiny-7f3k"]
    assert len(gpuctl("ps", "--all", "-o", "name").out.split()) == 2


def test_instances(gpuctl: Gpuctl, golden: Golden) -> None:
    golden("instances", gpuctl("ps").out)
    golden("instances_wide", gpuctl("instances", "-o", "wide").out)


@pytest.mark.parametrize(
    ("state", "changes", "memory"),
    [
        (instances_pb2.INSTANCE_STATE_READY, {}, "700/752M"),
        (instances_pb2.INSTANCE_STATE_LOADING, {}, "-/752M"),  # promised, not yet measured
        (instances_pb2.INSTANCE_STATE_VERIFYING, {"reservation": ""}, "-"),  # not yet promised
        (instances_pb2.INSTANCE_STATE_FAILED, {}, "-"),
        (instances_pb2.INSTANCE_STATE_STOPPED, {"measured_bytes": 700 * samples.MIB}, "-"),
    ],
)
def test_memory_is_what_is_held_now(
    state: int, changes: dict[str, Any], memory: str, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    instance = samples.instance(state)
    for field, value in changes.items():
        setattr(instance, field, value)
    daemon.answers["ListInstances"] = ListInstancesResponse(instances=[instance])
    assert cells(gpuctl("ps --all").out)["MEMORY"] == memory


def cells(out: str) -> dict[str, str]:
    """Of a table with one row, by the headers that they are aligned to."""
    header, row = out.splitlines()
    ends = [match.span() for match in re.finditer(r"\S+(?: \S+)*", header)]
    found = [match.span() for match in re.finditer(r"\S+(?: \S+)*", row)]
    return {
        header[begin:end]: row[start:stop]
        for begin, end in ends
        for start, stop in found
        if start == begin or stop == end
    }


def test_logs_are_the_lines_without_their_control_characters(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    daemon.answers["GetInstance"] = GetInstanceResponse(instance=samples.instance())
    assert gpuctl("logs tiny-7f3k --lines 3 -f").out == "one\ttwo\nred \nthree\n"
    (request,) = daemon.requests["TailOutput"]
    assert (request.instance, request.lines, request.follow) == ("instances/tiny-7f3k", 3, True)


@pytest.mark.parametrize(
    ("since", "seconds"), [("5m", samples.NOW - 300), ("2026-11-20T21:00:00Z", 1795208400)]
)
def test_logs_since_a_span_or_a_moment(
    since: str, seconds: int, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    daemon.answers["GetInstance"] = GetInstanceResponse(instance=samples.instance())
    assert gpuctl("logs", "tiny-7f3k", "--since", since).code == 0
    (request,) = daemon.requests["TailOutput"]
    assert (request.since.seconds, request.lines) == (seconds, 0)
    assert gpuctl("logs", "tiny-7f3k", "--since", "yesterday").code == 2


def test_logs_as_lines_keep_what_was_written(gpuctl: Gpuctl) -> None:
    first, _ = gpuctl("logs", "tiny-7f3k", "-o", "jsonl").out.splitlines()
    assert json.loads(first)["lines"][1] == "\x1b[31mred\x1b[0m \x07"
    assert "\x1b" not in first


# Health.


def unwell(verdict: str, reason: str) -> instances_pb2.Instance:
    made = samples.instance()
    made.restarts = 2
    made.health.verdict = instances_pb2.HealthVerdict.Value(f"HEALTH_VERDICT_{verdict}")
    made.health.reason = reason
    return made


def test_one_that_serves_as_it_should_says_no_more_than_that(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    idle = unwell("IDLE", "")
    daemon.answers["ListInstances"] = ListInstancesResponse(instances=[idle])
    assert "IDLE" not in gpuctl("instances").out
    told = cells(gpuctl("instances -o wide").out)
    assert (told["HEALTH"], told["RESTARTS"]) == ("IDLE", "2")


@pytest.mark.parametrize("verdict", ["DEGRADED", "STUCK"])
def test_one_that_does_not_shows_it_beside_its_state(
    verdict: str, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    made = unwell(verdict, "it runs on the CPU")
    daemon.answers["ListInstances"] = ListInstancesResponse(instances=[made])
    assert f"READY {verdict}" in gpuctl("instances").out
    shown = gpuctl("status").out
    assert f"READY {verdict}" in shown
    assert "tiny-7f3k: it runs on the CPU" in shown


def test_one_that_was_sent_to_sleep_does_not_look_as_if_it_served(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    asleep, idle = samples.instance(), unwell("SLEEPING", "")
    asleep.name, asleep.engine = "instances/asleep", ENGINE_VLLM
    asleep.sleeping = idle.sleeping = True
    asleep.sleep.level = 1
    daemon.answers["ListInstances"] = ListInstancesResponse(instances=[asleep, idle])
    daemon.answers["SleepInstance"] = instances_pb2.SleepInstanceResponse(instance=asleep)
    for command in ("instances", "status"):
        told = gpuctl(command).out.splitlines()
        (sent,) = (line for line in told if line.startswith("asleep "))
        assert " READY ASLEEP " in sent
        # A llama-server that went to sleep by itself serves whoever asks.
        assert not any("ASLEEP" in line for line in told if line.startswith("tiny-7f3k "))
    assert "READY ASLEEP" in gpuctl("sleep instances/asleep").out


def test_one_that_holds_more_than_it_was_promised_is_marked(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    greedy = samples.instance()
    greedy.overuse_bytes = 97 * samples.MIB
    daemon.answers["ListInstances"] = ListInstancesResponse(instances=[greedy])
    assert "READY OVERUSE" in gpuctl("instances").out
    why = "it holds 97 MiB more than it was promised"
    assert gpuctl("instances -o wide").out.splitlines()[1].endswith(why)
    shown = gpuctl("status").out
    assert "READY OVERUSE" in shown
    assert f"WARNING tiny-7f3k: {why}" in shown.splitlines()
    greedy.health.verdict = instances_pb2.HEALTH_VERDICT_DEGRADED
    greedy.health.reason = "it runs on the CPU"
    daemon.answers["ListInstances"] = ListInstancesResponse(instances=[greedy])
    shown = gpuctl("status").out
    assert "READY DEGRADED OVERUSE" in shown
    assert f"WARNING tiny-7f3k: {why}; it runs on the CPU" in shown.splitlines()


def test_one_that_waits_to_be_started_again_says_why(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    made = samples.instance(instances_pb2.INSTANCE_STATE_BACKOFF)
    made.health.reason = "its engine was killed by signal 9"
    made.retry_time.CopyFrom(samples.moment(4))
    daemon.answers["ListInstances"] = ListInstancesResponse(instances=[made])
    daemon.answers["GetInstance"] = GetInstanceResponse(instance=made)
    assert "tiny-7f3k: its engine was killed by signal 9" in gpuctl("status").out
    assert "retry time:" in gpuctl("show instances/tiny-7f3k").out


def test_how_long_it_is_to_stay_travels(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    for words in ("", "--idle-ttl 5m --no-pinned", "--pinned"):
        assert gpuctl(f"load tiny {words}").code == 0
    unsaid, brief, pinned = daemon.requests["LoadModel"]
    assert not unsaid.HasField("idle_ttl")
    assert not unsaid.HasField("pinned")
    assert (brief.idle_ttl.seconds, brief.HasField("pinned"), brief.pinned) == (300, True, False)
    assert pinned.pinned


def test_a_reset_that_is_refused_says_why(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["ResetInstance"] = Refusal(
        code=grpc.StatusCode.FAILED_PRECONDITION,
        message="cannot do this to instances/tiny-7f3k: it is READY",
        reason="WRONG_STATE",
    )
    ended = gpuctl("reset instances/tiny-7f3k")
    assert ended.code == 73
    assert "it is READY" in ended.err
