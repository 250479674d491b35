"""gpuctl as a process: on a terminal, in a pipe that closes, and under Ctrl-C."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from grpc import StatusCode

from gpud.v1.node_pb2 import WatchEventsResponse
from gpud.v1.telemetry_pb2 import WatchSnapshotsResponse
from tests.fakes.daemon import FakeDaemon, Refusal
from tests.gpuctl import samples

PROGRAM = [sys.executable, "-c", "from gpuctl.main import main; main()"]
WAIT_SECONDS = 60
SGR = re.compile(rb"\x1b\[[0-9;]*m")


def environment(daemon: FakeDaemon, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.getcwd(),
        "GPUCTL_ADDRESS": daemon.address,
        "TERM": "xterm-256color",
        "COLUMNS": "120",
        **more,
    }


def on_a_terminal(daemon: FakeDaemon, *arguments: str, ends_with: int = 0, **more: str) -> bytes:
    """Everything that a person would be sent, stdout and stderr together."""
    reader, terminal = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment(daemon, **more),
    )
    os.close(terminal)
    shown = b""
    try:
        while select.select([reader], [], [], WAIT_SECONDS)[0]:
            try:
                shown += os.read(reader, 65536)
            except OSError:  # the other end is closed: EIO
                break
        assert process.wait(WAIT_SECONDS) == ends_with
    finally:
        process.kill()
        process.wait()
        os.close(reader)
    return shown


@pytest.fixture(autouse=True)
def _scripted(daemon: FakeDaemon) -> None:
    daemon.answers["LoadModel"] = samples.load_steps()


def test_a_load_has_bars_on_a_terminal(daemon: FakeDaemon) -> None:
    shown = on_a_terminal(daemon, "load", "tiny")
    assert "━".encode() in shown
    assert SGR.search(shown)
    for phase in (b"DETECT", b"ALLOCATE", b"LOAD", b"READY"):
        assert phase in shown
    assert b"\x1b[31mweights" not in shown  # what the engine wrote
    assert b"http://127.0.0.1:41234" in shown


def test_each_phase_has_the_time_that_it_took(daemon: FakeDaemon) -> None:
    shown = SGR.sub(b"", on_a_terminal(daemon, "load", "tiny")).decode()
    full = "━" * 24
    rows = [line.strip() for line in shown[shown.rindex("DETECT") :].splitlines()]
    assert rows[:5] == [
        f"DETECT    {full}   10ms 2 devices answer",
        f"VERIFY    {full}   20ms tiny.gguf, 668 MiB",
        f"ALLOCATE  {full}   60ms 752 MiB on gpu0",
        f"LOAD      {full}   1.4s weights",
        f"READY     {' ' * 24}   1.5s http://127.0.0.1:41234",
    ]


def test_a_phase_keeps_to_one_line_however_much_it_tells(daemon: FakeDaemon) -> None:
    first, *more = samples.load_steps()
    first.detail = "llama_cpp 0.7.0, and more than fits"
    daemon.answers["LoadModel"] = [first, *more]
    shown = SGR.sub(b"", on_a_terminal(daemon, "load", "tiny", COLUMNS="60")).decode()
    rows = [line.strip() for line in shown[shown.rindex("DETECT") :].splitlines()]
    assert rows[0] == f"DETECT    {'━' * 24}   10ms llama_cpp 0.7.0, …"
    assert rows[1] == f"VERIFY    {'━' * 24}   20ms tiny.gguf, 668 MiB"


def test_a_phase_that_fails_has_no_full_bar(daemon: FakeDaemon) -> None:
    daemon.answers["LoadModel"] = [
        *samples.load_steps()[:3],
        Refusal(code=StatusCode.ABORTED, message="boom", reason="ENGINE_EXITED"),
    ]
    shown = SGR.sub(b"", on_a_terminal(daemon, "load", "tiny", ends_with=74)).decode()
    last = shown[shown.rindex("ALLOCATE") :].splitlines()[0]
    assert re.fullmatch(r"ALLOCATE {27} +[0-9.]+m?s 752 MiB on gpu0", last.strip())


@pytest.mark.parametrize("option", ["environment", "--no-color"])
def test_bars_without_color(option: str, daemon: FakeDaemon) -> None:
    if option == "environment":
        shown = on_a_terminal(daemon, "load", "tiny", NO_COLOR="1")
    else:
        shown = on_a_terminal(daemon, "load", "tiny", option)
    assert b"DETECT" in shown
    assert not SGR.search(shown)


def test_states_have_color_on_a_terminal(daemon: FakeDaemon) -> None:
    assert b"\x1b[32mREADY\x1b[0m" in on_a_terminal(daemon, "status")
    assert b"\x1b" not in on_a_terminal(daemon, "status", NO_COLOR="1")
    assert b"\x1b" not in on_a_terminal(daemon, "status", TERM="dumb")


def test_a_dumb_terminal_gets_plain_lines(daemon: FakeDaemon) -> None:
    shown = on_a_terminal(daemon, "load", "tiny", TERM="dumb")
    assert b"\x1b" not in shown
    assert b"10ms  DETECT" in shown


@contextmanager
def running(daemon: FakeDaemon, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(daemon),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_ctrl_c_leaves_the_load_and_says_how_to_go_on(daemon: FakeDaemon) -> None:
    daemon.answers["LoadModel"] = [*samples.load_steps()[:3], FakeDaemon.HANG]
    words = ("load", "tiny", "--device", "gpu 0", "--request-id=mine")
    with running(daemon, *words) as process:
        assert process.stderr is not None
        while "ALLOCATE" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 130
    assert "the load of instances/tiny-7f3k goes on" in err
    assert "follow it: gpuctl load tiny --device 'gpu 0' --request-id=mine\n" in err
    assert "gpuctl unload instances/tiny-7f3k" in err
    assert "Traceback" not in err
    assert daemon.ended["LoadModel"].wait(WAIT_SECONDS)
    assert "UnloadModel" not in daemon.requests


@pytest.mark.parametrize(
    ("words", "again"),
    [
        ("--timeout 9s load tiny --context-length 512", "{words} --request-id {id}"),
        ("load --parallel 2 -- tiny", "load --parallel 2 --request-id {id} -- tiny"),
    ],
)
def test_a_load_is_followed_by_its_own_words_and_its_id(
    words: str, again: str, daemon: FakeDaemon
) -> None:
    """With other words than its own, an id is refused."""
    daemon.answers["LoadModel"] = [samples.load_steps()[0], FakeDaemon.HANG]
    with running(daemon, *words.split()) as process:
        assert process.stderr is not None
        while "DETECT" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=WAIT_SECONDS)
    (request,) = daemon.requests["LoadModel"]
    hint = again.format(words=words, id=request.request_id)
    assert f"follow it: gpuctl {hint}\n" in err


def test_ctrl_c_ends_a_watch_quietly(daemon: FakeDaemon) -> None:
    daemon.answers["WatchEvents"] = [
        WatchEventsResponse(event=samples.event(10)), FakeDaemon.HANG
    ]  # fmt: skip
    with running(daemon, "events", "-f", "-o", "jsonl") as process:
        assert process.stdout is not None
        while '"sequence": 10,' not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 130
    assert err.strip() == ""


def test_a_reader_that_has_enough_is_no_error(daemon: FakeDaemon) -> None:
    daemon.answers["WatchSnapshots"] = [
        WatchSnapshotsResponse(snapshot=samples.snapshot(n)) for n in range(2000)
    ]
    with running(daemon, "watch", "-o", "jsonl") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("{")
        process.stdout.close()
        assert process.wait(WAIT_SECONDS) == 0
        assert process.stderr.read() == ""
    assert daemon.ended["WatchSnapshots"].wait(WAIT_SECONDS)


def test_a_disk_that_is_full_is_told(daemon: FakeDaemon) -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [*PROGRAM, "devices"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(daemon),
            timeout=WAIT_SECONDS,
            check=False,
        )
    assert ended.returncode == 1
    assert "No space left" in ended.stderr
    assert "Traceback" not in ended.stderr
