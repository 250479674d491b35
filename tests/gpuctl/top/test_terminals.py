"""`gpuctl top` in tmux, over the bytes of a terminal, and where there is none."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode

from gpud.v1 import history_pb2 as h
from gpud.v1 import telemetry_pb2 as t
from tests.fakes.daemon import FakeDaemon, Refusal
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl
from tests.gpuctl.test_terminal import PROGRAM, on_a_terminal
from tests.gpuctl.top.conftest import Rig
from tests.gpuctl.top.terminals import PATIENCE_SECONDS, Tmux, environment, on_a_pty
from tests.real_tmux import MISSING, find_tmux

TOP = shlex.join([*PROGRAM, "top"])
COLOR = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;\d+)*m")
Steps = tuple[threading.Event, threading.Event]
WIDE_COLOR = re.compile(rb"[34]8;[25];")


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    program = find_tmux()
    if program is None:
        pytest.fail(MISSING)
    made = Tmux(program=program, directory=tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def steps(daemon: FakeDaemon) -> tuple[threading.Event, threading.Event]:
    """Three snapshots, of which one reading differs; each event lets the next of them come."""
    second, third = threading.Event(), threading.Event()

    def snapshot(sequence: int, busy: float) -> t.WatchSnapshotsResponse:
        card = samples.card()
        card.sample.utilization_percent = busy
        shown = t.Snapshot(sequence=sequence, time=samples.moment(), devices=[card])
        return t.WatchSnapshotsResponse(snapshot=shown)

    daemon.answers.update(
        QueryHistory=h.QueryHistoryResponse(step=Duration(seconds=5)),
        WatchSnapshots=[
            snapshot(1, 37.4),
            lambda: second.wait(PATIENCE_SECONDS),
            snapshot(2, 71.2),
            lambda: third.wait(PATIENCE_SECONDS),
            snapshot(3, 55.0),
            FakeDaemon.HANG,
        ],
    )
    return second, third


def test_in_tmux(tmux: Tmux, rig: Rig) -> None:
    rig.script(gpu0={"utilization_percent": 90})
    tmux.start(f"{TOP}; echo ended $?; cat", environment(rig.gpud.address))
    seen = tmux.until(lambda screen: "90%" in screen)
    lines = seen.splitlines()
    assert len(lines) == 24
    assert max(map(len, lines)) <= 80
    assert lines[0].split()[1] == "gpud"
    assert [line.split()[0] for line in lines[5:9]] == ["gpu0", "gpu1", "gpu2", "host"]
    assert "RTX" not in seen  # no room for the model
    assert lines[-1].startswith("q quit  ? help")
    assert tmux.flag("alternate_on") == "1"
    tmux("resize-window", "-x", "140", "-y", "40")
    wide = tmux.until(lambda screen: "RTX 4090" in screen)
    assert len(wide.splitlines()) == 40
    tmux("send-keys", "?")
    tmux.until(lambda screen: "promised, not in use" in screen)
    tmux("send-keys", "Escape")
    tmux.until(lambda screen: "promised, not in use" not in screen)
    tmux("send-keys", "Enter")
    tmux.until(lambda screen: "10 minutes until now" in screen)
    tmux("send-keys", "q")
    left = tmux.until(lambda screen: "ended 0" in screen)
    assert "gpu0" not in left
    assert (tmux.flag("alternate_on"), tmux.flag("mouse_any_flag")) == ("0", "0")
    assert tmux.flag("cursor_flag") == "1"


@pytest.mark.parametrize("how", ["C-c", "TERM"])
def test_however_it_ends_the_terminal_is_as_it_was(how: str, tmux: Tmux, rig: Rig) -> None:
    pid_file = tmux.directory / "pid"
    # The shell becomes the program, so that its pid is the one that is signalled.
    run = f"sh -c 'echo $$ > {pid_file}; exec {TOP}'" if "'" not in TOP else ""
    run = run or f'sh -c "echo \\$\\$ > {pid_file}; exec {TOP}"'
    tmux.start(f"{run}; echo ended $?; stty -a; cat", environment(rig.gpud.address))
    tmux.until(lambda screen: "gpu2" in screen and "READY" in screen)
    if how == "TERM":
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
    else:
        tmux("send-keys", how)
    code = {"C-c": 0, "TERM": 128 + signal.SIGTERM}[how]
    left = tmux.until(lambda screen: "ended" in screen and "icanon" in screen)
    assert f"ended {code}" in left
    assert "gpu2" not in left
    assert re.search(r"(?<!-)\becho\b.*", left)
    assert " -icanon" not in left
    flags = ("alternate_on", "mouse_any_flag", "mouse_sgr_flag", "cursor_flag")
    assert [tmux.flag(name) for name in flags] == ["0", "0", "0", "1"]


def test_only_what_changed_is_drawn_anew(daemon: FakeDaemon, steps: Steps) -> None:
    with on_a_pty(daemon.address) as terminal:
        terminal.until(lambda written: b"37%" in written and b"tiny-7f3k" in written)
        steps[0].set()
        # By now all that begins is drawn.
        first = terminal.until(lambda written: b"71%" in written)
        steps[1].set()
        then = terminal.until(lambda written: b"55%" in written[len(first) :])[len(first) :]
        terminal.press(b"q")
        assert terminal.ended() == 0
    assert b"\x1b[2J" not in then
    assert b"tiny-7f3k" not in then
    # A line or two of 24.
    assert len(then) < len(first) / 4


@pytest.mark.parametrize(
    ("settings", "has_color", "has_more"),
    [
        ({}, True, False),
        ({"COLORTERM": "truecolor"}, True, False),
        ({"TERM": "xterm"}, True, False),
        ({"NO_COLOR": "1"}, False, False),
    ],
    ids=["256", "truecolor", "16", "none"],
)
def test_the_colours_are_the_terminal_s_own_sixteen(
    settings: dict[str, str],
    has_color: bool,
    has_more: bool,
    daemon: FakeDaemon,
    steps: Steps,
) -> None:
    with on_a_pty(daemon.address, **settings) as terminal:
        terminal.until(lambda written: b"37%" in written)
        terminal.press(b"\x03")
        assert terminal.ended() == 0
    assert bool(COLOR.search(terminal.written)) == has_color
    assert bool(WIDE_COLOR.search(terminal.written)) == has_more


def test_where_there_is_no_terminal_it_says_what_there_is_instead(gpuctl: Gpuctl) -> None:
    ended = gpuctl("top")
    assert ended.code == 2
    assert "top needs a terminal; `gpuctl watch` writes lines" in ended.err
    assert "gpuctl watch -o jsonl" in gpuctl("top -o json").err


def test_a_dumb_terminal_is_refused(daemon: FakeDaemon) -> None:
    shown = on_a_terminal(daemon, "top", ends_with=2, TERM="dumb")
    assert b"TERM is dumb or not set" in shown


def test_without_a_daemon_the_screen_is_not_taken(daemon: FakeDaemon) -> None:
    daemon.stop()
    shown = on_a_terminal(daemon, "top", ends_with=78)
    assert b"cannot reach gpud" in shown
    assert b"\x1b[?1049h" not in shown


def test_what_gpud_refuses_from_the_start_ends_it(daemon: FakeDaemon, steps: Steps) -> None:
    daemon.answers["WatchSnapshots"] = Refusal(
        code=StatusCode.PERMISSION_DENIED, message="not for you", reason="ROLE_MISSING"
    )
    with on_a_pty(daemon.address) as terminal:
        assert terminal.ended() == 71
    assert b"gpuctl: not for you" in terminal.written.rpartition(b"\x1b[?1049l")[2]


def test_without_textual_it_says_how_to_get_it(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import sys; sys.modules['textual'] = None; from gpuctl.main import main; main()"
    monkeypatch.setattr("tests.gpuctl.test_terminal.PROGRAM", [sys.executable, "-c", program])
    shown = on_a_terminal(daemon, "top", ends_with=1)
    assert b"pip install '.[top]'" in shown


def test_no_other_command_pays_for_it(daemon: FakeDaemon) -> None:
    code = (
        "import sys; from gpuctl.main import run;"
        "codes = [run(line.split()) for line in ('status', 'devices', 'watch --help')];"
        "drawn = [name for name in sys.modules if name.split('.')[0] in ('textual', 'rich')];"
        "print(codes, drawn)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(daemon.address),
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.stdout.splitlines()[-1] == "[0, 0, 0] []"
