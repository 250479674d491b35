"""Has processes born under the pids that are asked for: the other side of reuse.Nursery.

A program of its own on the standard library: what is born here is a copy of it that waits.
"""

from __future__ import annotations

import os
import signal
import sys


def bear(pid: int) -> str:
    with open("/proc/sys/kernel/ns_last_pid", "w") as last:
        last.write(str(pid - 1))
    born = os.fork()
    while born == 0:
        signal.pause()
    return "done" if born == pid else f"born as {born}, not {pid}"


def bury(pid: int) -> str:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return "gone"
    return "done"


def look(pid: int) -> str:
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return "alive" if found is None else "dead"


if __name__ == "__main__":
    for line in sys.stdin:
        command, _, text = line.strip().partition(" ")
        print({"bear": bear, "bury": bury, "look": look}[command](int(text)), flush=True)
