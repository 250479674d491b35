from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from gpuctl.leases.tree import Tree

# Three generations; the youngest is in a session of its own and tells its pid.
GRANDCHILD = "import os, signal; os.write(1, b'%d\\n' % os.getpid()); signal.pause()"
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {GRANDCHILD!r}])"


def generations(child: str) -> subprocess.Popen[str]:
    program = (
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {child!r}], start_new_session=True)\n"
    )
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


def has_ended(handle: int, seconds: float) -> bool:
    return bool(select.select([handle], [], [], seconds)[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_all_that_descend(number: signal.Signals) -> None:
    with generations(CHILD) as process:
        assert process.stdout is not None
        youngest = os.pidfd_open(int(process.stdout.readline()))
        try:
            tree = Tree(process.pid)
            assert not tree.wait(time.monotonic())
            tree.send(number)
            assert tree.wait(time.monotonic() + 60)
            assert has_ended(youngest, 60)
        finally:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(youngest, signal.SIGKILL)
            os.close(youngest)
            process.kill()


def test_a_signal_to_the_root_leaves_the_others() -> None:
    with generations(CHILD) as process:
        assert process.stdout is not None
        youngest = os.pidfd_open(int(process.stdout.readline()))
        try:
            Tree(process.pid).send_root(signal.SIGKILL)
            assert process.wait(60) == -signal.SIGKILL
            assert not has_ended(youngest, 0)
        finally:
            signal.pidfd_send_signal(youngest, signal.SIGKILL)
            os.close(youngest)


def test_what_has_ended_takes_signals_without_complaint() -> None:
    process = subprocess.Popen(["true"])
    tree = Tree(process.pid)
    assert tree.wait(time.monotonic() + 60)
    process.wait(60)
    tree.send(signal.SIGTERM)
    tree.send_root(signal.SIGTERM)
