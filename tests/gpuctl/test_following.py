"""What is followed goes on over the ends of connections: nothing twice, nothing left out."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator

import grpc
import pytest

from gpuctl import following
from gpuctl.following import beyond
from gpud.v1.instances_pb2 import GetInstanceResponse, TailOutputResponse
from gpud.v1.node_pb2 import WatchEventsResponse
from gpud.v1.telemetry_pb2 import WatchSnapshotsResponse
from tests.fakes.daemon import FakeDaemon, Refusal
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl
from tests.gpuctl.leases.processes import gpuctl_process, line_with, signalled

# As the end of a connection reads to a client: gpud itself has said nothing.
CUT = Refusal(code=grpc.StatusCode.UNAVAILABLE, message="Socket closed")
STALE = Refusal(code=grpc.StatusCode.UNAVAILABLE, message="cannot now", reason="STALE")
WITHDRAWN = Refusal(
    code=grpc.StatusCode.PERMISSION_DENIED, message="withdrawn", reason="ACCESS_WITHDRAWN"
)


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_LONGEST_PAUSE_SECONDS", 0.0)


def event(sequence: int) -> WatchEventsResponse:
    return WatchEventsResponse(event=samples.event(sequence))


def snapshot(sequence: int) -> WatchSnapshotsResponse:
    return WatchSnapshotsResponse(snapshot=samples.snapshot(sequence))


def turns(*scripts: object) -> Callable[[object], object]:
    """One script a call, the last of them from then on."""
    left: Iterator[object] = iter(scripts)
    return lambda _: next(left, scripts[-1])


def test_events_go_on_behind_the_last_one(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["WatchEvents"] = turns(
        [event(10), event(11), CUT], CUT, [event(12), CUT], [event(13), WITHDRAWN]
    )
    ended = gpuctl("events -f -o jsonl --type reservation")
    assert ended.code == 71
    assert [json.loads(line)["sequence"] for line in ended.out.splitlines()] == [*range(8, 14)]
    asked = daemon.requests["WatchEvents"]
    assert [request.after_sequence for request in asked] == [9, 11, 11, 12]
    assert {request.type for request in asked} == {"reservation"}


def test_events_since_a_moment_go_on_behind_the_last_one(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    daemon.answers["ListEvents"] = type(daemon.answers["ListEvents"])()
    daemon.answers["WatchEvents"] = turns([CUT], [event(3), CUT], [WITHDRAWN])
    gpuctl("events -f --since 10m")
    first, second, third = daemon.requests["WatchEvents"]
    assert first == second
    assert first.HasField("since")
    assert (third.HasField("since"), third.after_sequence) == (False, 3)


def test_a_watch_begins_again(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["WatchSnapshots"] = turns(
        [snapshot(1), snapshot(2), CUT], [snapshot(3), STALE], [snapshot(4), FakeDaemon.HANG]
    )
    ended = gpuctl("watch --count 4")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("TIME") == 1
    assert len(daemon.requests["WatchSnapshots"]) == 3


def test_logs_go_on_behind_the_last_line(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["GetInstance"] = GetInstanceResponse(instance=samples.instance())
    daemon.answers["TailOutput"] = turns(
        [TailOutputResponse(lines=["b", "tick"]), TailOutputResponse(lines=["tick"]), CUT],
        [TailOutputResponse(lines=["a", "b", "tick", "tick", "tick", "c"]), CUT],
        [TailOutputResponse(lines=["tick", "c"]), TailOutputResponse(lines=["tick", "c"])],
    )
    assert gpuctl("logs tiny-7f3k -f --lines 2").out.split() == [
        "b", "tick", "tick", "tick", "c", "tick", "c",
    ]  # fmt: skip
    assert [request.lines for request in daemon.requests["TailOutput"]] == [2, 10_000, 10_000]


@pytest.mark.parametrize(
    ("seen", "told", "rest"),
    [
        ("", "ab", "ab"),
        ("ab", "ab", ""),
        ("ab", "abc", "c"),
        ("ab", "", ""),
        ("ab", "xyz", "xyz"),  # turned over meanwhile
        ("abcd", "cdef", "ef"),
        ("abab", "ababab", ""),  # cannot be told apart: the last place where it fits
        ("xaa", "xaaa", "a"),
    ],
)
def test_where_lines_go_on(seen: str, told: str, rest: str) -> None:
    assert "".join(beyond(list(seen), list(told))) == rest


@pytest.mark.parametrize("command", ["events -f", "watch", "logs -f tiny-7f3k"])
def test_a_daemon_that_stays_away_is_told_in_the_end(
    command: str, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    daemon.answers.update(
        GetInstance=GetInstanceResponse(instance=samples.instance()),
        WatchEvents=turns([event(10), CUT], CUT),
        WatchSnapshots=turns([snapshot(1), CUT], CUT),
        TailOutput=turns([TailOutputResponse(lines=["a"]), CUT], CUT),
    )
    ended = gpuctl(command)
    assert ended.code == 78
    assert "broke off" in ended.err
    (asked,) = [
        len(daemon.requests[name])
        for name in ("WatchEvents", "WatchSnapshots", "TailOutput")
        if name in daemon.requests
    ]
    assert asked == 1 + following._MOST_FAILURES


@pytest.mark.parametrize("end", [CUT, STALE])
def test_a_stream_that_breaks_after_each_message_is_given_up_in_the_end(
    end: Refusal, gpuctl: Gpuctl, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused: list[float] = []
    monkeypatch.setattr(following, "_LONGEST_PAUSE_SECONDS", 2.0)
    monkeypatch.setattr(following.time, "sleep", paused.append)
    daemon.answers["WatchSnapshots"] = [snapshot(1), end]
    ended = gpuctl("watch -o jsonl")
    assert ended.code == 78
    assert len(ended.out.splitlines()) == 1 + following._MOST_FAILURES
    assert paused == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]


def test_streams_that_last_are_taken_up_as_often_as_they_end(
    gpuctl: Gpuctl, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_LASTED_SECONDS", 0.0)
    count = 3 * following._MOST_FAILURES
    scripts = [[snapshot(number), CUT] for number in range(1, count + 1)]
    daemon.answers["WatchSnapshots"] = turns(*scripts)
    ended = gpuctl(f"watch -o jsonl --count {count}")
    assert (ended.code, len(ended.out.splitlines())) == (0, count)
    assert len(daemon.requests["WatchSnapshots"]) == count


@pytest.mark.parametrize("refusal", [STALE, WITHDRAWN])
def test_what_is_refused_from_the_start_is_told_at_once(
    refusal: Refusal, gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    daemon.answers["WatchSnapshots"] = refusal
    assert gpuctl("watch").code == 64 + refusal.code.value[0]
    assert len(daemon.requests["WatchSnapshots"]) == 1


def test_where_nobody_answers_at_first_nobody_is_waited_for(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    daemon.stop()
    ended = gpuctl("watch")
    assert ended.code == 78
    assert "cannot reach gpud" in ended.err


def test_a_watch_tells_that_gpud_was_away(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["WatchSnapshots"] = turns(
        [snapshot(1), CUT], CUT, CUT, [snapshot(2), CUT], [snapshot(3), FakeDaemon.HANG]
    )
    ended = gpuctl("watch --count 3 -o jsonl")
    assert (ended.code, len(ended.out.splitlines())) == (0, 3)
    away, back = ended.err.splitlines()
    assert away.startswith("gpuctl: the connection to gpud at ")
    assert away.endswith("; trying again")
    assert re.fullmatch(r"gpuctl: gpud is back after \S+; what it showed .* not seen", back)


def test_a_watch_goes_on_where_it_was_and_tells_what_it_missed(
    gpuctl: Gpuctl, daemon: FakeDaemon
) -> None:
    first, second = snapshot(4), snapshot(9)
    first.snapshot.epoch = second.snapshot.epoch = "e1"
    second.snapshot.missed_count = 4
    daemon.answers["WatchSnapshots"] = turns([first, CUT], [second, FakeDaemon.HANG])
    ended = gpuctl("watch --count 2 -o jsonl")
    assert ended.err == "gpuctl: 4 snapshots were missed\n"
    begun, again = daemon.requests["WatchSnapshots"]
    assert not begun.HasField("after_sequence")
    assert (again.after_sequence, again.epoch) == (4, "e1")


def test_a_watch_outlives_a_restart_and_ends_at_ctrl_c_while_gpud_is_away(
    daemon: FakeDaemon,
) -> None:
    daemon.answers["WatchSnapshots"] = turns(
        [snapshot(1), FakeDaemon.HANG], [snapshot(2), FakeDaemon.HANG]
    )
    with gpuctl_process(daemon, "watch", "-o", "jsonl") as process:
        line_with(process.stdout, '"sequence": 1')
        daemon.stop()
        daemon.start_again()
        line_with(process.stdout, '"sequence": 2')
        daemon.stop()
        out, err = signalled(process, signal.SIGINT)
    assert (process.returncode, out.strip()) == (130, "")
    # How far it came with telling that gpud is away is a matter of time.
    assert all(line.startswith("gpuctl: ") for line in err.splitlines() if line)
