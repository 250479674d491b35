"""Which process is meant by a device's list: held by a pidfd, proved by a later list, then ended.

A list names a pid, and by the time it is read the pid may be another process's; start times do not
tell the two apart when both fall into one clock tick. So the process is opened first. When a list
that was read wholly after that shows the pid in the same offence, and the opened process still
lives, then it had that pid all the while: it is the one that was listed.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gpud.clock import Clock
from gpud.devices.processes import KTHREADD_PID, read_stat
from gpud.devices.snapshot import DeviceKind, ProcessKind, ProcessUse, Sample, Snapshot

INIT_PID = 1
# As instances name the secret in the environment of each process of theirs.
INSTANCE_TOKEN = b"GPUD_INSTANCE_TOKEN="
# The kernel's number of the first PID namespace: PROC_PID_INIT_INO.
FIRST_NAMESPACE = 0xEFFFFFFC


class Unproved(Exception):
    """It is not, or cannot be shown to be, a process that may be ended; the text says why."""


class Gone(Exception):
    """It has ended by itself."""


@dataclass(slots=True)
class Held:
    """One process, by its pidfd: whatever becomes of the pid, this stays that process."""

    pid: int
    start_time: int
    pidfd: int
    opened_boottime: float
    signalled_boottime: float | None = None

    def is_proved_by(self, sample: Sample, snapshot: Snapshot) -> bool:
        """Whether this list, and the look at /proc before it, were read wholly after the opening.

        A list that came late, out of an earlier tick, proves nothing.
        """
        listed = sample.listed_boottime
        return listed is not None and self.opened_boottime < snapshot.boottime <= listed

    def has_ended(self) -> bool:
        """Whether the process has exited: only then is its pidfd readable."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def send(self, number: signal.Signals) -> bool:
        """Signal exactly this process; False when it has ended. Raises Unproved."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return False
        except OSError as error:
            raise Unproved(f"it cannot be sent {number.name}: {error.strerror}") from error
        return True

    def close(self) -> None:
        """Let go of it."""
        with suppress(OSError):
            os.close(self.pidfd)


def hold(process: ProcessUse, kind: DeviceKind, clock: Clock, proc: str = "/proc") -> Held:
    """Open a listed process that may be ended. Raises Unproved, Gone."""
    start_time = process.start_time
    if start_time is None:
        raise Unproved("its /proc is not visible here")
    if kind in {DeviceKind.GPU, DeviceKind.MIG} and not sees_all_pids(proc):
        # The driver tells pids of the host, and here they are other processes'.
        raise Unproved("gpud runs in a PID namespace of its own")
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError as error:
        raise Gone from error
    except OSError as error:
        raise Unproved(f"it cannot be opened: {error.strerror}") from error
    try:
        _check(process, proc)
    except BaseException as error:
        os.close(pidfd)
        if isinstance(error, FileNotFoundError | ProcessLookupError):
            raise Gone from error
        if isinstance(error, OSError):
            raise Unproved(f"its /proc cannot be read: {error.strerror}") from error
        if isinstance(error, ValueError):
            raise Unproved(f"its /proc makes no sense: {error}") from error
        raise
    # Read after the opening: a list from before this moment proves nothing.
    opened = clock.now().boottime
    return Held(pid=process.pid, start_time=start_time, pidfd=pidfd, opened_boottime=opened)


def sees_all_pids(proc: str = "/proc") -> bool:
    """Whether pids here are those that a driver tells: only so in the first PID namespace."""
    try:
        return Path(proc, "self/ns/pid").stat().st_ino == FIRST_NAMESPACE
    except OSError:
        return False


def _check(process: ProcessUse, proc: str) -> None:
    """Raise Unproved for what gpud never ends. Raises OSError when it cannot be read."""
    pid = process.pid
    parent_pid, start_time, _, _ = read_stat(pid, proc)
    reasons = {
        "its pid is another process's by now": start_time != process.start_time,
        "it is the first process of this host": pid <= INIT_PID,
        "it is gpud itself": pid == os.getpid(),
        "it is a child of gpud": parent_pid == os.getpid(),
        "it is a kernel thread": KTHREADD_PID in (pid, parent_pid),
        "it draws on the device, as a display server does": process.kind is ProcessKind.GRAPHICS,
    }
    for reason, holds in reasons.items():
        if holds:
            raise Unproved(reason)
    environment = Path(proc, str(pid), "environ").read_bytes()
    if not environment:
        # For a moment after its exec a process shows none; what it is cannot be told by that.
        raise Unproved("it shows no environment that would tell whose it is")
    if b"\0" + INSTANCE_TOKEN in b"\0" + environment:
        raise Unproved("it is an instance's; `gpuctl unload` stops those")
