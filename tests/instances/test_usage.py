"""CPU time of a tree, as the kernel counts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gpud.instances.instance import ProcessIdentity
from gpud.instances.tree.shim import STAT_START_TIME, stat_fields
from gpud.instances.tree.usage import cpu_seconds

# Its child computes for 0.2 s, tells so, then waits; it takes next to nothing itself.
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-Sc', sys.argv[1]])"
CHILD = """\
import time
while time.process_time() < 0.2: pass
print("done", flush=True)
input()
"""


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-Sc", PARENT, CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as made:
        assert made.stdout is not None
        assert made.stdout.readline() == b"done\n"
        yield made


def identity(pid: int) -> ProcessIdentity:
    start = int(stat_fields(pid)[STAT_START_TIME])
    return ProcessIdentity(pid=pid, start_time=start, boot_id="", inode=None, token="")


def test_the_time_of_all_below_counts_also_after_their_end(
    parent: subprocess.Popen[bytes],
) -> None:
    shim = identity(parent.pid)
    taken = cpu_seconds(shim)
    assert taken is not None
    assert taken >= 0.2 - 2 / os.sysconf("SC_CLK_TCK")  # the kernel counts whole ticks
    assert cpu_seconds(replace(shim, start_time=shim.start_time - 1)) is None
    assert parent.stdin is not None
    parent.stdin.close()
    # Not waited for: its child's time is its own by now, and it is still there to be asked.
    os.waitid(os.P_PID, parent.pid, os.WEXITED | os.WNOWAIT)
    after = cpu_seconds(shim)
    assert after is not None
    assert after >= taken
    parent.wait()
    assert cpu_seconds(shim) is None


def test_one_that_is_stopped_takes_none(parent: subprocess.Popen[bytes]) -> None:
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    while stat_fields(int(children.read_text()))[0] != b"S":
        pass  # it has said that it is done, and goes to its rest
    parent.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, parent.pid, os.WSTOPPED | os.WNOWAIT)
    shim = identity(parent.pid)
    before = cpu_seconds(shim)
    sum(range(3_000_000))
    assert cpu_seconds(shim) == before
    parent.send_signal(signal.SIGCONT)
