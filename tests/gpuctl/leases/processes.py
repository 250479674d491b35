"""gpuctl as a process of its own, for what signals and terminals do to it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from tests.fakes.daemon import FakeDaemon
from tests.gpuctl.test_terminal import PROGRAM, WAIT_SECONDS, environment


@contextmanager
def gpuctl_process(
    daemon: FakeDaemon, *arguments: str, **more: str
) -> Iterator[subprocess.Popen[str]]:
    """In a session of its own: no terminal is its own but the one that a test gives it."""
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(daemon, **more),
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def line_with(stream: IO[str] | None, text: str) -> str:
    """The first line that holds a text; fails at the end of the stream."""
    assert stream is not None
    seen = []
    for line in stream:
        seen.append(line)
        if text in line:
            return line
    raise AssertionError(f"no {text!r} in {seen}")


def signalled(process: subprocess.Popen[str], number: signal.Signals) -> tuple[str, str]:
    """What it wrote until it ended by the signal, or in spite of it."""
    process.send_signal(number)
    return process.communicate(timeout=WAIT_SECONDS)
