"""The processes that descend from one, each held by a handle that cannot come to mean another.

What has left its parent and is init's child now, as a daemon does, is not found.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
# A tree that grows while it is read is read again.
_MOST_ROUNDS = 5


class Tree:
    """A process of ours and all below it that were ever seen."""

    def __init__(self, pid: int) -> None:
        """Raises OSError where there is no handle to be had of it."""
        self._handles = {pid: os.pidfd_open(pid)}

    def send_root(self, number: signal.Signals) -> None:
        """To the process alone, unless it has ended."""
        _send(next(iter(self._handles.values())), number)

    def send(self, number: signal.Signals) -> None:
        """To all of them that live."""
        for _ in range(_MOST_ROUNDS):
            if not self._look():
                break
        for handle in self._handles.values():
            _send(handle, number)

    def wait(self, until: float) -> bool:
        """Whether all have ended by then, on the monotonic clock."""
        for handle in self._handles.values():
            if not _has_ended(handle, until - time.monotonic()):
                return False
        return True

    def _look(self) -> bool:
        """Take hold of what is new below; whether there was any."""
        children: defaultdict[int, list[int]] = defaultdict(list)
        for entry in _PROC.iterdir():
            if entry.name.isdecimal() and (parent := _parent(int(entry.name))) is not None:
                children[parent].append(int(entry.name))
        found, below = False, list(self._handles)
        while below:
            pid = below.pop()
            for child in children[pid]:
                if child not in self._handles and self._hold(child, pid):
                    found = True
                    below.append(child)
        return found

    def _hold(self, pid: int, parent: int) -> bool:
        with suppress(OSError):
            handle = os.pidfd_open(pid)
            # Still the one that was seen, and its parent lives, so that both pids mean ours.
            if _parent(pid) == parent and not _has_ended(self._handles[parent]):
                self._handles[pid] = handle
                return True
            os.close(handle)
        return False


def _parent(pid: int) -> int | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The name before it may hold blanks and parentheses of its own.
    return int(stat.rpartition(")")[2].split()[1])


def _has_ended(handle: int, within_seconds: float = 0.0) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(max(0.0, within_seconds) * 1000))


def _send(handle: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        signal.pidfd_send_signal(handle, number)


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks after boot (proc(5)); None: it has gone."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The name, in brackets, may hold anything; what follows it begins with field 3.
    return int(stat.rpartition(")")[2].split()[19])
