"""Attachments of processes and cgroups: checked as they come, told to the sampler."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from msgspec import structs

from gpud.access.refusals import NotOwner
from gpud.clock import Clock, Moment
from gpud.devices.attached import AttachmentTable, cgroup_paths, is_within
from gpud.devices.processes import KTHREADD_PID, read_stat
from gpud.devices.snapshot import Sample
from gpud.errors import OptionInvalid
from gpud.ledger.reservation import Attachment, Reservation
from gpud.promises.promises import Promises

PROC = Path("/proc")
# PATH_MAX of Linux.
MAX_CGROUP_CHARACTERS = 4096
INIT_PID = 1
# The sampling process takes an order between two ticks, and a tick takes far less.
SETTLING_SECONDS = 1.0


def attachment_of(
    pid: int | None,
    cgroup: str,
    now: Moment,
    start_time: int | None = None,
    proc: Path = PROC,
) -> Attachment:
    """What is to be attached: exactly one of the two. Raises OptionInvalid.

    `start_time` is when the caller saw the process start, in clock ticks after boot. Blocks for a
    few reads of /proc.
    """
    if (pid is None) is (not cgroup):
        field = "pid" if pid is None else "cgroup"
        raise OptionInvalid(field=field, problem="name a pid or a cgroup, one of the two")
    made = Attachment(wall=now.wall, boottime=now.boottime)
    if pid is None and start_time is not None:
        raise OptionInvalid(field="start_time", problem="it is a pid's; a cgroup has none")
    if pid is not None:
        found = look_up(pid, proc)
        if start_time is not None and start_time != found:
            raise OptionInvalid(
                field="start_time",
                problem=f"here pid {pid} started {found} clock ticks after boot, not "
                f"{start_time}: it is another process, or of another pid namespace; "
                "attach its cgroup",
            )
        return structs.replace(made, pid=pid, start_time=found)
    return structs.replace(made, cgroup=check_cgroup(cgroup, proc))


def look_up(pid: int, proc: Path = PROC) -> int:
    """When the process started, in clock ticks after boot. Raises OptionInvalid."""
    problem = "" if pid > 0 else "a process has a number above 0"
    if pid == INIT_PID:
        problem = "it is the ancestor of everything on this host; attach the process itself"
    elif pid == os.getpid():
        problem = "it is gpud itself"
    if problem:
        raise OptionInvalid(field="pid", problem=f"{pid}: {problem}")
    try:
        stat = read_stat(pid, str(proc))
        group = _thread_group(proc / str(pid) / "status")
    except (OSError, ValueError) as error:
        raise OptionInvalid(
            field="pid", problem=f"{pid}: there is no such process on this host"
        ) from error
    if KTHREADD_PID in (pid, stat.parent_pid):
        problem = f"{stat.name} is a kernel thread"
    elif group != pid:
        problem = f"it is a thread of process {group}; attach that"
    elif stat.state in "ZX":
        problem = f"{stat.name} has ended"
    if problem:
        raise OptionInvalid(field="pid", problem=f"{pid}: {problem}")
    return stat.start_time


def check_cgroup(path: str, proc: Path = PROC) -> str:
    """The path as the kernel writes it. Raises OptionInvalid."""
    bare = path.rstrip("/")
    problem = _malformed(path, bare)
    if not problem and _gpud_is_in(bare, proc):
        problem = "gpud itself runs in it; attach the one below it that holds the processes"
    if not problem and not any(each.is_dir() for each in _directories(bare, proc)):
        problem = "there is no such cgroup on this host; /proc/PID/cgroup shows a process's"
    if problem:
        raise OptionInvalid(field="cgroup", problem=f"{path[:256]!r}: {problem}")
    return bare


def check_whose(attachment: Attachment, uid: int | None, proc: Path = PROC) -> None:
    """Let a user attach what is the user's own. Raises NotOwner.

    Whoever attaches a process makes it answer for a promise, and `on_overuse` may end it.
    """
    try:
        if attachment.pid is not None:
            owners = {(proc / str(attachment.pid)).stat().st_uid}
        else:
            owners = {each.stat().st_uid for each in _directories(attachment.cgroup, proc)
                      if each.is_dir()}  # fmt: skip
    except OSError:
        owners = set()
    if uid is None or owners != {uid}:
        name = f"pid {attachment.pid}" if attachment.pid is not None else attachment.cgroup
        raise NotOwner(name=name)


def table_of(reservations: Iterable[Reservation]) -> AttachmentTable:
    """Every attachment of a booked promise; of two of one process the newer counts."""
    held = [
        (attachment, reservation.id)
        for reservation in reservations
        if reservation.booked
        for attachment in reservation.attachments
    ]
    # Anybody may set the wall clock: it tells apart only what is of earlier boots.
    held.sort(key=lambda each: (each[0].boottime, each[0].wall))
    processes: dict[tuple[int, int], str] = {}
    for attachment, id_ in held:
        if attachment.pid is not None and attachment.start_time is not None:
            processes[attachment.pid, attachment.start_time] = id_
    return AttachmentTable(
        processes=tuple((*process, id_) for process, id_ in processes.items()),
        cgroups=tuple({a.cgroup: id_ for a, id_ in held if a.cgroup}.items()),
    )


class AttachmentKeeper:
    """Tells the sampler whose processes are whose, as the durable promises have it."""

    def __init__(
        self, promises: Promises, attach: Callable[[AttachmentTable], None], clock: Clock
    ) -> None:
        # From when on whoever begins to read lists knows all attachments (boottime seconds).
        self.settled_boottime = float("-inf")
        self._promises = promises
        self._attach = attach
        self._clock = clock
        self._told = AttachmentTable()
        self._attached: dict[tuple[int, int | None], str] = {}

    def refresh(self) -> None:
        """Tell the sampler what changed. Costs a pass over the promises with attachments."""
        table = table_of(self._promises.durable.attached.values())
        if table == self._told:
            return
        self._told = table
        self._attached = {(pid, start_time): id_ for pid, start_time, id_ in table.processes}
        self.settled_boottime = self._clock.now().boottime + SETTLING_SECONDS
        self._attach(table)

    def applied(self, sample: Sample) -> Sample:
        """The sample with what is attached by pid known in it, should its list be older."""
        if not self._attached or not sample.processes:
            return sample
        known = (
            (process, self._attached.get((process.pid, process.start_time)))
            for process in sample.processes
        )
        processes = tuple(
            process if id_ is None else replace(process, claim=id_, attached=True)
            for process, id_ in known
        )
        return replace(sample, processes=processes)


def _malformed(path: str, bare: str) -> str:
    if len(path) > MAX_CGROUP_CHARACTERS:
        return f"{len(path)} characters, at most {MAX_CGROUP_CHARACTERS}"
    if not path.isprintable():
        return "it holds characters that cannot be printed"
    if not path.startswith("/"):
        return "not an absolute path as /proc/PID/cgroup shows it"
    if not bare:
        return "it is the root of all cgroups"
    if not {"", ".", ".."}.isdisjoint(bare.split("/")[1:]):
        return "it has empty or relative parts"
    return ""


def _gpud_is_in(path: str, proc: Path) -> bool:
    own = cgroup_paths((proc / "self/cgroup").read_text(errors="replace"))
    return any(is_within(each, path) for each in own)


def _directories(path: str, proc: Path) -> Iterable[Path]:
    """Where such a cgroup would be in each mounted hierarchy: proc(5), mountinfo."""
    for line in (proc / "self/mountinfo").read_text(errors="replace").splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split(" ", 1)[0] not in {"cgroup", "cgroup2"}:
            continue
        root, mount = fields.split()[3:5]
        if root == "/":
            yield Path(mount + path)
        elif is_within(path, root):
            yield Path(mount + path.removeprefix(root))


def _thread_group(status: Path) -> int:
    """The process that a thread belongs to: threads have folders in /proc too. Raises OSError."""
    for line in status.read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name == "Tgid":
            return int(value)
    raise ValueError("no Tgid")
