"""Who runs on this host, as far as devices ask: one incremental scan of /proc for all drivers."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

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
_RESIDENT = re.compile(rb"^Rss(?:Anon|Shmem):\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRecord:
    """What is known of a process.

    `start_time` is in clock ticks after boot (/proc/PID/stat field 22). `claim` is the reservation
    that its own environment, or that of the nearest ancestor with one, names in GPUD_RESERVATION.
    """

    pid: int
    parent_pid: int
    start_time: int
    name: str
    claim: str | None
    visible_devices: tuple[str, ...]


@dataclass(slots=True)
class _Entry:
    """A record, with what tells whether it still holds: the inode of its /proc directory."""

    inode: int
    record: ProcessRecord
    read_boottime: float


class ProcessTable:
    """The processes of this host, refreshed by `scan`.

    The inode of /proc/PID is made anew for each process, so (pid, inode) from one directory
    listing says without another call which processes are still the same.
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = str(proc)
        self._entries: dict[int, _Entry] = {}

    def scan(self, boottime: float) -> None:
        """Bring the table up to date; `boottime` is now, in seconds."""
        seen: dict[int, _Entry] = {}
        fresh: list[int] = []
        with os.scandir(self._proc) as listing:
            for item in listing:
                if not item.name.isdecimal():
                    continue
                pid, inode = int(item.name), item.inode()
                entry = self._entries.get(pid)
                if entry is None or entry.inode != inode or _is_due(entry, boottime):
                    entry = self._read(pid, inode, entry, boottime)
                    fresh.append(pid)
                if entry is not None:
                    seen[pid] = entry
        self._entries = seen
        for pid in fresh:
            self._inherit_claim(pid)

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
        return self._entries[pid].record

    def claimed(self) -> tuple[ProcessRecord, ...]:
        """Every process with a claim."""
        return tuple(e.record for e in self._now() if e.record.claim is not None)

    def attached_to(self, uuid: str) -> tuple[ProcessRecord, ...]:
        """Every process whose environment names this device in CUDA_VISIBLE_DEVICES."""
        return tuple(e.record for e in self._now() if uuid in e.record.visible_devices)

    def resident_bytes(self, pid: int) -> int | None:
        """Memory that only this process' exit gives back: RssAnon + RssShmem.

        File pages are left out: the kernel takes them back when it needs to. None: the process is
        gone (or a zombie, which holds nothing), or hidden from us.
        """
        try:
            status = self._read_file(pid, "status")
        except OSError:
            return None
        figures = _RESIDENT.findall(status)
        return sum(int(kib) for kib in figures) * _KIB if figures else None

    def _now(self) -> tuple[_Entry, ...]:
        # A copy: a late call of another thread's may add one by `find` meanwhile.
        return tuple(self._entries.values())

    def _read(
        self, pid: int, inode: int, earlier: _Entry | None, boottime: float
    ) -> _Entry | None:
        try:
            parent_pid, start_time, name = _parse_stat(self._read_file(pid, "stat"))
        except (OSError, ValueError):
            return None
        is_kernel_thread = KTHREADD_PID in (pid, parent_pid)
        claim, visible_devices = (None, ()) if is_kernel_thread else self._read_environment(pid)
        if claim is None and earlier is not None and earlier.record.start_time == start_time:
            # It descends from a claimed process for good, whatever its exec or its parent's end
            # did to what can be read now.
            claim = earlier.record.claim
        record = ProcessRecord(
            pid=pid,
            parent_pid=parent_pid,
            start_time=start_time,
            name=name,
            claim=claim,
            visible_devices=visible_devices,
        )
        return _Entry(inode, record, float("inf") if is_kernel_thread else boottime)

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


def _is_due(entry: _Entry, boottime: float) -> bool:
    age = boottime - entry.record.start_time / _TICKS_PER_SECOND
    return age < YOUNG_SECONDS or boottime - entry.read_boottime >= REREAD_SECONDS


def _parse_stat(stat: bytes) -> tuple[int, int, str]:
    """Parent, start time in ticks, name (which may hold spaces and parentheses): proc(5)."""
    name_end = stat.rindex(b")")
    fields = stat[name_end + 2 :].split()
    name = stat[stat.index(b"(") + 1 : name_end].decode(errors="replace")
    # Field 3 (the state) is fields[0], so field 4 is [1] and field 22 is [19].
    if len(fields) < 20:
        raise ValueError("a stat line that was cut off")
    return int(fields[1]), int(fields[19]), name


def _variable(environment: bytes, name: bytes) -> str | None:
    start = environment.find(b"\0" + name + b"=")
    if start < 0:
        return None
    start += len(name) + 2
    end = environment.find(b"\0", start)
    value = environment[start : end if end >= 0 else None]
    return value.decode(errors="replace")
