"""Processes with a sign of an instance, found in /proc, and ended through pidfds that are proved.

Each call blocks for one pass over /proc, some 50 µs a process: for a thread.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from gpud.instances.adoption.orphan import Trace
from gpud.instances.tree.identity import TOKEN_NAME
from gpud.instances.tree.shim import STAT_PARENT, STAT_START_TIME, stat_fields

INSTANCE_NAME = "GPUD_INSTANCE"
COMMAND_CHARS = 200
END_MILLISECONDS = 200
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_ZOMBIE = (b"Z", b"X")
_DELETED = " (deleted)"  # as the kernel marks a folder that has lost its name


def find(instances: Path, proc: Path = Path("/proc")) -> tuple[Trace, ...]:
    """All with a sign of an instance, and all below them. `instances` has their folders.

    Those whose environment is hidden from us (another user's, to one who is not root) show none.
    """
    seen: dict[int, Trace] = {}
    for entry in proc.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                seen[int(entry.name)] = _read(entry, str(instances.resolve()))
    marked = {pid: trace for pid, trace in seen.items() if _is_marked(trace)}
    for pid in seen:
        _inherit(pid, seen, marked)
    return tuple(marked.values())


def living(traces: Iterable[Trace]) -> int:
    """How many of them are still the processes that were seen."""
    return sum(map(_lives, traces))


def _lives(trace: Trace) -> bool:
    try:
        stat = stat_fields(trace.pid)
    except OSError:
        return False
    return stat[0] not in _ZOMBIE and int(stat[STAT_START_TIME]) == trace.start_time


def send(traces: Iterable[Trace], numbers: tuple[signal.Signals, ...]) -> list[int]:
    """Signals to each that is still the process that was seen; pids of those.

    Waits a moment for the first of them to end.
    """
    sent = []
    with ExitStack() as stack:
        # All are proved before the first is killed: a parent's death changes its children's.
        opened = [(trace.pid, _open(stack, trace)) for trace in traces]
        for pid, pidfd in opened:
            if pidfd is not None:
                with suppress(ProcessLookupError):
                    for number in numbers:
                        signal.pidfd_send_signal(pidfd, number)
                    sent.append(pid)
        _await_ends([pidfd for _, pidfd in opened if pidfd is not None])
    return sent


def _await_ends(pidfds: list[int]) -> None:
    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    if pidfds:
        poll.poll(END_MILLISECONDS)


def _read(entry: Path, instances: str) -> Trace:
    """One process. Raises OSError where it is gone."""
    stat = stat_fields(int(entry.name))
    if stat[0] in _ZOMBIE:
        raise ProcessLookupError
    environment = _environment(entry)
    return Trace(
        pid=int(entry.name),
        parent=int(stat[STAT_PARENT]),
        start_time=int(stat[STAT_START_TIME]),
        uid=entry.stat().st_uid,
        command=_command(entry),
        instance=environment.get(os.fsencode(INSTANCE_NAME), ""),
        token=environment.get(os.fsencode(TOKEN_NAME), ""),
        folder=_folder(entry, instances),
        resident_bytes=_resident(entry),
    )


def _environment(entry: Path) -> dict[bytes, str]:
    try:
        fields = (entry / "environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    wanted = (os.fsencode(INSTANCE_NAME), os.fsencode(TOKEN_NAME))
    pairs = (field.partition(b"=") for field in fields)
    return {name: value.decode(errors="replace") for name, _, value in pairs if name in wanted}


def _command(entry: Path) -> str:
    with suppress(OSError):
        words = (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        return b" ".join(words).decode(errors="replace")[:COMMAND_CHARS]
    return ""


def _folder(entry: Path, instances: str) -> str:
    """The first part of its working directory below `instances`; empty: it is elsewhere."""
    try:
        at = str((entry / "cwd").readlink())
    except OSError:
        return ""
    below = at.removeprefix(f"{instances}/")
    return "" if below == at else below.split("/")[0].removesuffix(_DELETED)


def _resident(entry: Path) -> int | None:
    """Resident bytes that are its alone or shared memory: what its end gives back."""
    try:
        fields = (entry / "statm").read_text().split()
        status = (entry / "status").read_text()
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("RssFile:"):
            return int(fields[1]) * _PAGE_BYTES - int(line.split()[1]) * 1024
    return int(fields[1]) * _PAGE_BYTES


def _is_marked(trace: Trace) -> bool:
    return bool(trace.instance or trace.token or trace.folder)


def _inherit(pid: int, seen: dict[int, Trace], marked: dict[int, Trace]) -> None:
    """What a process's own environment does not tell is its nearest ancestor's that is marked."""
    trace = seen[pid]
    if trace.token:
        return
    ancestor, passed = seen.get(trace.parent), {pid}
    while ancestor is not None and ancestor.pid not in passed:
        if ancestor.token:
            marked[pid] = replace(
                trace, token=ancestor.token, instance=trace.instance or ancestor.instance
            )
            return
        passed.add(ancestor.pid)
        ancestor = seen.get(ancestor.parent)


def _open(stack: ExitStack, trace: Trace) -> int | None:
    """A pidfd of exactly the process that was seen: its start, and its token or its parent."""
    try:
        pidfd = os.pidfd_open(trace.pid)
        stack.callback(os.close, pidfd)
        now = _read(Path(f"/proc/{trace.pid}"), "")
    except OSError:
        return None
    same = now.start_time == trace.start_time and now.uid == trace.uid
    return pidfd if same and (now.token == trace.token or now.parent == trace.parent) else None
