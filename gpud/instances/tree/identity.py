"""Which process is meant: identities read, proved and acted on through pidfds alone.

A pid may be another process's by the time it is used, and pid, start time and boot id together
are not unique either (two reuses within one clock tick share them). So a process is opened
first, then proved to be the one meant by all that is known of it, then signalled through what
was opened; nothing here signals a bare pid.
"""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, suppress
from pathlib import Path

from gpud.instances.instance import ProcessIdentity
from gpud.instances.tree.shim import STAT_PARENT, STAT_START_TIME, stat_fields

TOKEN_NAME = "GPUD_INSTANCE_TOKEN"  # noqa: S105 -- the variable's name


def identify(pid: int, pidfd: int, boot_id: str, token: str) -> ProcessIdentity:
    """The identity of a child of ours that was not reaped. Raises OSError."""
    return ProcessIdentity(
        pid=pid,
        start_time=int(stat_fields(pid)[STAT_START_TIME]),
        boot_id=boot_id,
        inode=pidfd_inode(pidfd),
        token=token,
    )


def open_proved(identity: ProcessIdentity) -> int | None:
    """A pidfd of exactly that process; None: it is gone, or the pid is another's by now.

    Raises OSError where the kernel does not let it be told.
    """
    try:
        pidfd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    is_it = False
    try:
        is_it = proves(identity, pidfd)
    finally:
        if not is_it:
            os.close(pidfd)
    return pidfd if is_it else None


def proves(identity: ProcessIdentity, pidfd: int) -> bool:
    """Whether the opened process is the one meant: start time, inode where known, and token.

    Raises OSError where the kernel does not let it be told.
    """
    try:
        start_time = int(stat_fields(identity.pid)[STAT_START_TIME])
        same_inode = identity.inode is None or identity.inode == pidfd_inode(pidfd)
        is_same = start_time == identity.start_time and same_inode
        return is_same and _shows(identity.pid, identity.token)
    except (FileNotFoundError, ProcessLookupError):
        return False


def pidfd_inode(pidfd: int) -> int | None:
    """The number that no other process has within this boot; None before Linux 6.9.

    There every pidfd shares the one inode of all anonymous files, an eventfd's among them.
    """
    anonymous = os.eventfd(0)
    try:
        shared = os.fstat(anonymous).st_dev == os.fstat(pidfd).st_dev
    finally:
        os.close(anonymous)
    return None if shared else os.fstat(pidfd).st_ino


def holds(pid: int, token: str, name: str = TOKEN_NAME) -> bool:
    """Whether the token stands in the process's environment; False when it cannot be read."""
    try:
        return _shows(pid, token, name)
    except OSError:
        return False


def _shows(pid: int, token: str, name: str = TOKEN_NAME) -> bool:
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    return os.fsencode(f"{name}={token}") in environment.split(b"\0")


def kill_holders(token: str, name: str = TOKEN_NAME) -> int:
    """SIGKILL each process that holds the token and all below it; how many there were.

    `name` is the variable that it stands in.

    Blocks for one pass over /proc (some 20 µs a process). Those that forked meanwhile are met by
    the next pass, so none are left only when a pass found none twice in a row.
    """
    parents = _parents()
    tree = [pid for pid in parents if holds(pid, token, name)]
    for ancestor in tree:  # which grows while it is walked
        tree += [pid for pid in parents if parents[pid] == ancestor and pid not in tree]
    with ExitStack() as stack:
        # All are proved before the first is killed: a parent's death changes its children's.
        for pidfd in [_open_member(stack, pid, parents[pid], (token, name)) for pid in tree]:
            if pidfd is not None:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    return len(tree)


def _parents() -> dict[int, int]:
    """Each process's parent."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                pid = int(entry.name)
                parents[pid] = int(stat_fields(pid)[STAT_PARENT])
    return parents


def _open_member(stack: ExitStack, pid: int, parent: int, mark: tuple[str, str]) -> int | None:
    """A pidfd of the process, if it holds the token or is still that parent's child."""
    try:
        pidfd = os.pidfd_open(pid)
        stack.callback(os.close, pidfd)
        member = holds(pid, *mark) or int(stat_fields(pid)[STAT_PARENT]) == parent
    except OSError:
        return None
    return pidfd if member else None
