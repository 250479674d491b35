"""Who runs on this host, as far as devices ask: one incremental scan of /proc for all drivers."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from gpud.devices.attached import AttachmentTable, cgroup_paths

# A process execs soon after its fork and changes its environment with it; later ones are rare.
YOUNG_SECONDS = 10.0
REREAD_SECONDS = 60.0
# Deeper trees exist only where something forks away from its parents on purpose.
MAX_ANCESTORS = 64
CLAIM_PREFIX = "reservations/"
# The kernel's limit for arguments and environment together, at the usual stack limit.
MAX_ENVIRONMENT_BYTES = 2 * 1024 * 1024
KTHREADD_PID = 2

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_KIB = 1024
_RESIDENT = re.compile(rb"^(VmLck|Rss(?:Anon|Shmem|File)):\s+(\d+) kB$", re.MULTILINE)


class Stat(NamedTuple):
    """What /proc/PID/stat says; `start_time` in clock ticks after boot, `state` one letter."""

    parent_pid: int
    start_time: int
    name: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRecord:
    """What is known of a process.

    `start_time` is in clock ticks after boot (/proc/PID/stat field 22). `claim` is the reservation
    that it, or its nearest ancestor with one, was `attached` to by pid; else its cgroup's; else
    the one that its own environment, or that of the nearest ancestor with one, names in
    GPUD_RESERVATION.
    """

    pid: int
    parent_pid: int
    start_time: int
    name: str
    claim: str | None
    visible_devices: tuple[str, ...]
    attached: bool = False


@dataclass(slots=True)
class _Entry:
    """A record, with what tells whether it still holds: the inode of its /proc directory.

    The record's claim is that of the environment; `attachment` goes before it.
    """

    inode: int
    record: ProcessRecord
    due_boottime: float  # when it is to be read again
    environment_at: bytes  # as _environment_at
    attachment: str | None = None

    def shown(self) -> ProcessRecord:
        """The record with the claim that counts."""
        if self.attachment is None:
            return self.record
        return replace(self.record, claim=self.attachment, attached=True)


class ProcessTable:
    """The processes of this host, refreshed by `scan`.

    The inode of /proc/PID is made anew for each process, so (pid, inode) from one directory
    listing says without another call which processes are still the same.
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = str(proc)
        self._entries: dict[int, _Entry] = {}
        # Found when they are first asked for after the entries changed.
        self._claimed: tuple[ProcessRecord, ...] | None = None
        self._table = AttachmentTable()
        self._attached_pids: dict[int, tuple[int, str]] = {}
        self._had_attachments = False  # at the last scan

    def attach(self, table: AttachmentTable) -> None:
        """Replace what is attached to what; it shows from the next scan on."""
        self._attached_pids = {pid: (start, id_) for pid, start, id_ in table.processes}
        self._table = table

    def scan(self, boottime: float) -> None:
        """Bring the table up to date; `boottime` is now, in seconds."""
        seen: dict[int, _Entry] = {}
        fresh: list[int] = []
        known = self._entries
        with os.scandir(self._proc) as listing:
            for item in listing:
                name = item.name
                if not name.isdecimal():
                    continue
                pid, inode = int(name), item.inode()
                entry = known.get(pid)
                if entry is None or entry.inode != inode or boottime >= entry.due_boottime:
                    entry = self._read(pid, inode, entry, boottime)
                    fresh.append(pid)
                if entry is not None:
                    seen[pid] = entry
        self._entries = seen
        for pid in fresh:
            self._inherit_claim(pid)
        has_attachments = bool(self._table.reservations)
        if has_attachments or self._had_attachments:  # once more, to let go of what was attached
            self._place_attachments(self._now())
        self._had_attachments = has_attachments
        self._claimed = None

    def find(self, pid: int) -> ProcessRecord | None:
        """The process of that id as of the last scan; one that came later is looked up now."""
        entry = self._entries.get(pid)
        if entry is None:
            # Inode 0 is no directory's: the next scan reads it again and places it properly.
            entry = self._read(pid, 0, None, 0.0)
            if entry is None:
                return None
            self._entries[pid] = entry
            self._inherit_claim(pid)
            self._place_attachments((entry,))
            self._claimed = None
        return self._entries[pid].shown()

    def claimed(self) -> tuple[ProcessRecord, ...]:
        """Every process with a claim."""
        if self._claimed is None:
            shown = (entry.shown() for entry in self._now())
            self._claimed = tuple(record for record in shown if record.claim is not None)
        return self._claimed

    def attached_to(self, uuid: str) -> tuple[ProcessRecord, ...]:
        """Every process whose environment names this device in CUDA_VISIBLE_DEVICES."""
        return tuple(e.shown() for e in self._now() if uuid in e.record.visible_devices)

    def resident_bytes(self, pid: int) -> int | None:
        """Memory that only this process' exit gives back: RssAnon + RssShmem + locked file pages.

        Other file pages are left out: the kernel takes them back when it needs to. None: the
        process is gone (or a zombie, which holds nothing), or hidden from us.
        """
        try:
            status = self._read_file(pid, "status")
        except OSError:
            return None
        kib = {name: int(figure) for name, figure in _RESIDENT.findall(status)}
        if b"RssAnon" not in kib:
            return None
        # What is locked may be anonymous memory too, so that file pages may be counted that are
        # not: never more than are locked at all.
        locked_file = min(kib.get(b"RssFile", 0), kib.get(b"VmLck", 0))
        return (kib[b"RssAnon"] + kib.get(b"RssShmem", 0) + locked_file) * _KIB

    def _now(self) -> tuple[_Entry, ...]:
        # A copy: a late call of another thread's may add one by `find` meanwhile.
        return tuple(self._entries.values())

    def _read(
        self, pid: int, inode: int, earlier: _Entry | None, boottime: float
    ) -> _Entry | None:
        try:
            stat = self._read_file(pid, "stat")
            parent_pid, start_time, name, _ = _parse_stat(stat)
        except (OSError, ValueError):
            return None
        if earlier is not None and earlier.record.start_time != start_time:
            earlier = None
        is_kernel_thread = KTHREADD_PID in (pid, parent_pid)
        at = _environment_at(stat)
        claim: str | None = None
        visible_devices: tuple[str, ...] = ()
        if earlier is not None and at and at == earlier.environment_at:
            visible_devices = earlier.record.visible_devices
        elif not is_kernel_thread:
            claim, visible_devices = self._read_environment(pid)
        # It descends from a claimed process for good, whatever its exec or its parent's end did to
        # what can be read now.
        claim = claim or (earlier.record.claim if earlier is not None else None)
        record = ProcessRecord(
            pid=pid,
            parent_pid=parent_pid,
            start_time=start_time,
            name=name,
            claim=claim,
            visible_devices=visible_devices,
        )
        due = float("inf") if is_kernel_thread else _due(start_time, boottime)
        return _Entry(inode, record, due, at, earlier.attachment if earlier is not None else None)

    def _read_environment(self, pid: int) -> tuple[str | None, tuple[str, ...]]:
        try:
            environment = b"\0" + self._read_file(pid, "environ")
        except OSError:
            return None, ()
        visible = _variable(environment, b"CUDA_VISIBLE_DEVICES") or ""
        names = tuple(name for part in visible.split(",") if (name := part.strip()))
        claim = _variable(environment, b"GPUD_RESERVATION") or ""
        # People copy the full resource name as well as the id.
        return claim.removeprefix(CLAIM_PREFIX) or None, names

    def _inherit_claim(self, pid: int) -> None:
        entry = self._entries.get(pid)
        if entry is None or entry.record.claim is not None:
            return
        ancestor = entry
        for _ in range(MAX_ANCESTORS):
            parent = self._entries.get(ancestor.record.parent_pid)
            if parent is None:
                return
            if parent.record.claim is not None:
                entry.record = replace(entry.record, claim=parent.record.claim)
                return
            ancestor = parent

    def _place_attachments(self, entries: tuple[_Entry, ...]) -> None:
        """Say which of these are attached to what; as claims do, it outlives the ancestor."""
        live = self._table.reservations
        for entry in entries:
            found = self._attached_by_pid(entry) or self._attached_by_cgroup(entry)
            if found is not None or entry.attachment not in live:
                entry.attachment = found

    def _attached_by_pid(self, entry: _Entry) -> str | None:
        """What it or its nearest attached ancestor is attached to."""
        at: _Entry | None = entry
        for _ in range(MAX_ANCESTORS if self._attached_pids else 0):
            if at is None:
                return None
            start_time, id_ = self._attached_pids.get(at.record.pid, (None, ""))
            if start_time == at.record.start_time:
                return id_
            parent = self._entries.get(at.record.parent_pid)
            # A younger one is no parent: it has the pid of the one that was.
            is_older = parent is not None and parent.record.start_time <= at.record.start_time
            at = parent if is_older else None
        return None

    def _attached_by_cgroup(self, entry: _Entry) -> str | None:
        if not self._table.cgroups or KTHREADD_PID in (entry.record.pid, entry.record.parent_pid):
            return None
        try:
            text = self._read_file(entry.record.pid, "cgroup")
        except OSError:
            return None
        return self._table.of_cgroups(cgroup_paths(text.decode(errors="replace")))

    def _read_file(self, pid: int, name: str) -> bytes:
        descriptor = os.open(f"{self._proc}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts = [os.read(descriptor, 16384)]
            size = len(parts[0])
            # proc hands out environ a page at a time at most; stat and status come in one piece.
            while name == "environ" and parts[-1] and size < MAX_ENVIRONMENT_BYTES:
                parts.append(os.read(descriptor, 65536))
                size += len(parts[-1])
            return b"".join(parts)
        finally:
            os.close(descriptor)


def _due(start_time: int, boottime: float) -> float:
    """When what was read at `boottime` is to be read again: at each scan while it is young."""
    is_young = boottime - start_time / _TICKS_PER_SECOND < YOUNG_SECONDS
    return boottime if is_young else boottime + REREAD_SECONDS


def read_stat(pid: int, proc: str = "/proc") -> Stat:
    """What the kernel says of a process now. Raises OSError when there is none."""
    return _parse_stat(Path(proc, str(pid), "stat").read_bytes())


def _parse_stat(stat: bytes) -> Stat:
    """The name may hold spaces and parentheses: proc(5)."""
    name_end = stat.rindex(b")")
    fields = stat[name_end + 2 :].split()
    name = stat[stat.index(b"(") + 1 : name_end].decode(errors="replace")
    # Field 3 (the state) is fields[0], so field 4 is [1] and field 22 is [19].
    if len(fields) < 20:
        raise ValueError("a stat line that was cut off")
    return Stat(int(fields[1]), int(fields[19]), name, fields[0].decode())


def _environment_at(stat: bytes) -> bytes:
    """Where in memory its environment lies (proc(5), fields 50 and 51); empty where untold.

    Each exec moves it, for the kernel places stacks at random (where that is turned off by
    personality(2), the name of the program or what else has another length does), and what lies
    there is as the exec made it. To ask for that takes half as long as to read the environment.
    """
    fields = stat[stat.rindex(b")") + 2 :].split()
    return b" ".join(fields[47:49]) if len(fields) > 48 and fields[47] != b"0" else b""


def _variable(environment: bytes, name: bytes) -> str | None:
    start = environment.find(b"\0" + name + b"=")
    if start < 0:
        return None
    start += len(name) + 2
    end = environment.find(b"\0", start)
    value = environment[start : end if end >= 0 else None]
    return value.decode(errors="replace")
