"""Alerts handed to real programs, those that fail, hang and fork among them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from gpud.clock import SystemClock
from gpud.engines.command.program import Looks
from gpud.telemetry.alerts.alert import AlertState
from gpud.telemetry.alerts.notices import Notice, body
from gpud.telemetry.alerts.sinks.command import Command
from gpud.telemetry.alerts.sinks.sink import SinkFailed
from tests.telemetry.alerts.scenes import WALL, alert

BODY = body(Notice(sink="script", alert=alert(), told=AlertState.FIRING, wall=WALL), "host1")
PATIENCE_SECONDS = 60.0


def nobody_looks(_path: str) -> None:
    """The folders of tests may be written by others."""


def command(tmp_path: Path, text: str, *words: str, seconds: float = 30.0) -> Command:
    """A shell script."""
    path = tmp_path / "script"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    looks = Looks(nobody_looks)
    return Command(
        name="script",
        argv=(str(path), *words),
        timeout_seconds=seconds,
        looks=looks,
        clock=SystemClock(),
    )


async def failed(sink: Command) -> SinkFailed:
    with pytest.raises(SinkFailed) as caught:
        await sink.send(BODY)
    return caught.value


async def test_it_gets_json_its_words_and_little_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_GPUD", "x")
    text = 'cat > in; env > env; echo "$@" > words'
    text = f"pwd > {tmp_path}/pwd; cd {tmp_path}; {text}"
    await command(tmp_path, text, "--short", "$(id)").send(BODY)
    assert json.loads((tmp_path / "in").read_text()) == BODY
    assert (tmp_path / "words").read_text() == "--short $(id)\n"
    told = (tmp_path / "env").read_text()
    assert "GPUD_ALERT_RULE=hungry" in told
    assert "GPUD_ALERT_SEVERITY=warning" in told
    assert "SECRET_OF_GPUD" not in told
    assert (tmp_path / "pwd").read_text() == "/\n"


async def test_it_need_not_read_what_it_is_told(tmp_path: Path) -> None:
    await command(tmp_path, "exec 0<&-; exit 0").send(BODY)


async def test_another_code_than_0_is_a_failure(tmp_path: Path) -> None:
    refused = await failed(command(tmp_path, "printf 'no \\033[31mway' >&2; exit 3"))
    assert refused.problem == "it ended with code 3: no  [31mway"
    assert not refused.is_final
    killed = await failed(command(tmp_path, "kill -9 $$"))
    assert killed.problem == "it ended with signal 9"


async def test_endless_complaints_are_cut(tmp_path: Path) -> None:
    refused = await failed(command(tmp_path, "yes complaint | head -c 300000 >&2; exit 1"))
    assert len(refused.problem) < 300


async def gone(pid: int) -> None:
    """Until it has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, ended.set)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)


async def test_one_that_hangs_is_killed(tmp_path: Path) -> None:
    refused = await failed(command(tmp_path, "trap '' TERM; sleep 1000", seconds=0.5))
    assert refused.problem == "it did not end within 0.5 s, and was killed"


async def test_what_it_leaves_running_is_ended(tmp_path: Path) -> None:
    text = f"setsid sleep 1000 2>/dev/null & echo $! > {tmp_path}/child; exit 0"
    await command(tmp_path, text).send(BODY)
    await gone(int((tmp_path / "child").read_text()))


async def test_its_own_end_counts_whoever_holds_its_pipes(tmp_path: Path) -> None:
    """And what it said is still read where it failed."""
    text = f"sleep 1000 & echo $! > {tmp_path}/child; exit 0"
    await command(tmp_path, text).send(BODY)
    await gone(int((tmp_path / "child").read_text()))
    refused = await failed(command(tmp_path, "sleep 1000 & echo no way >&2; exit 3"))
    assert refused.problem == "it ended with code 3: no way"


async def test_who_is_not_found_again_holds_nothing_up(tmp_path: Path) -> None:
    """It has left the group and its environment, and its end is not waited for."""
    text = (
        f"env -i setsid sleep 1000 & echo $! > {tmp_path}/child\n"
        "until read name < /proc/$!/comm && [ $name = sleep ]; do :; done; exit 0"
    )
    await command(tmp_path, text).send(BODY)
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


async def test_who_leaves_takes_all_of_it_along(tmp_path: Path) -> None:
    """The daemon ends, or has another configuration, or it took too long."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    opened = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    text = f"trap '' TERM; setsid sleep 1000 & echo $$ $! > {pipe}; sleep 1000"
    sink = command(tmp_path, text)
    sending = asyncio.ensure_future(sink.send(BODY))
    loop, came = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(opened, came.set)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await came.wait()
    finally:
        loop.remove_reader(opened)
    pids = [int(word) for word in os.read(opened, 100).split()]
    os.close(opened)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert len(pids) == 2
    for pid in pids:
        await gone(pid)


async def test_a_program_that_others_may_change_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    path.chmod(0o777)
    sink = Command(
        name="s", argv=(str(path),), timeout_seconds=30.0, looks=Looks(), clock=SystemClock()
    )
    refused = await failed(sink)
    assert "may be written by anybody" in refused.problem
    assert not (tmp_path / "ran").exists()


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    sink = Command(
        name="s", argv=("/nothing",), timeout_seconds=30.0, looks=Looks(), clock=SystemClock()
    )
    assert "no such file" in (await failed(sink)).problem
    empty = tmp_path / "empty"
    empty.write_text("")
    empty.chmod(0o755)
    sink = Command(
        name="s",
        argv=(str(empty),),
        timeout_seconds=9,
        looks=Looks(nobody_looks),
        clock=SystemClock(),
    )
    assert "exec format" in (await failed(sink)).problem.lower()
