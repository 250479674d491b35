"""What the processes of a tree have taken of the host."""

from __future__ import annotations

import os
from typing import Final

from gpud.instances.instance import ProcessIdentity
from gpud.instances.tree.shim import STAT_START_TIME, children_of, stat_fields

# utime, stime, cutime and cstime: fields 14 to 17 of /proc/PID/stat (proc_pid_stat(5)).
_CPU_FIELDS: Final = slice(11, 15)
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


def cpu_seconds(shim: ProcessIdentity) -> float | None:
    """CPU time of the tree below a shim, of those that have ended in it too.

    None: the shim is gone. Some 0.1 ms a process, of files that wait for no lock of its memory:
    read of one that hangs in the kernel too. Nothing is signalled, so pid and start time will do.
    """
    try:
        if int(stat_fields(shim.pid)[STAT_START_TIME]) != shim.start_time:
            return None
    except OSError:
        return None
    return _ticks(shim.pid) / _TICKS_PER_SECOND


def _ticks(root: int) -> int:
    below, ticks = [root], 0
    while below:
        pid = below.pop()
        try:
            ticks += sum(int(field) for field in stat_fields(pid)[_CPU_FIELDS])
        except OSError:
            continue  # its time is its parent's as soon as that has waited for it
        below += children_of(pid)
    return ticks
