"""The host: its RAM as device `host`, and the readings of the machine beside its devices."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import NamedTuple

from gpud.clock import Clock
from gpud.devices.driver import Asking, ComputeModeRefused, DeviceLost, ModeRefusal, unheard
from gpud.devices.processes import ProcessTable
from gpud.devices.snapshot import (
    DeviceInfo,
    DeviceKind,
    HostReadings,
    ProcessKind,
    ProcessUse,
    Readings,
)

ALIAS = "host"
# What others use of the RAM swings by some MiB all the time; two or three ticks calm it down.
FOREIGN_SMOOTHING_SECONDS = 3.0

_KIB = 1024
_MEMINFO = re.compile(rb"^(Mem(?:Total|Available)|Swap(?:Total|Free)):\s+(\d+) kB$", re.MULTILINE)
_PSI = re.compile(rb"^(some|full) avg10=([\d.]+) ", re.MULTILINE)
# Limits met (high and max; failcnt in v1), and what came of it.
_EVENT_COUNTERS = ("high", "max", "oom", "oom_kill")
# cgroup v1 says "no limit" with the largest number of whole pages that fits 63 bits.
_NO_LIMIT_BYTES = 1 << 62


class Memory(NamedTuple):
    """Bytes."""

    total: int
    available: int


class _CgroupNames(NamedTuple):
    """Two files of a memory cgroup, and a field of its memory.stat."""

    limit: str
    usage: str
    cold: str


class HostDriver:
    """The host's RAM; its `uuid` is `host_uuid`'s.

    `memory_used_bytes` = what claimed processes hold + everything else that is not available, the
    latter smoothed; `processes` lists the claimed ones alone. So used − Σ processes is what is
    foreign here.
    """

    def __init__(
        self, uuid: str, table: ProcessTable, clock: Clock, root: Path = Path("/")
    ) -> None:
        self._table = table
        self._clock = clock
        self._root = root
        self._cgroup = _Cgroup(root)
        self._foreign_bytes: float | None = None
        self._foreign_boottime = 0.0
        memory = self._memory()
        self._info = DeviceInfo(
            uuid=uuid,
            alias=ALIAS,
            index=None,
            kind=DeviceKind.HOST,
            model_name=_cpu_model(root),
            memory_total_bytes=memory.total if memory else None,
        )

    def devices(self, asking: Asking = unheard) -> tuple[DeviceInfo, ...]:
        """The one device."""
        return (self._info,)

    def readings(self, uuid: str) -> Readings:
        """Used memory; all else about the host is in HostReadings."""
        self._check(uuid)
        memory = self._memory()
        if memory is None:
            return Readings()
        ours = sum(use.used_bytes or 0 for use in self._claimed_uses())
        foreign = self._smooth(max(0, memory.total - memory.available - ours))
        return Readings(memory_used_bytes=ours + foreign)

    def processes(self, uuid: str) -> tuple[ProcessUse, ...] | None:
        """Claimed processes and their RssAnon + RssShmem."""
        self._check(uuid)
        return self._claimed_uses()

    def set_compute_mode(self, uuid: str, mode: str) -> None:
        """Refused: RAM has no such mode."""
        raise ComputeModeRefused(
            uuid=uuid, mode=mode, why=ModeRefusal.NOT_SUPPORTED, detail="it is the host's RAM"
        )

    def close(self) -> None:
        """Nothing is held."""

    def _check(self, uuid: str) -> None:
        if uuid != self._info.uuid:
            raise DeviceLost(uuid=uuid, reason="this is another host")

    def _claimed_uses(self) -> tuple[ProcessUse, ...]:
        return tuple(
            ProcessUse(
                pid=record.pid,
                start_time=record.start_time,
                process_name=record.name,
                used_bytes=used_bytes,
                kind=ProcessKind.COMPUTE,
                claim=record.claim,
                attached=record.attached,
            )
            for record in self._table.claimed()
            if (used_bytes := self._table.resident_bytes(record.pid)) is not None
        )

    def _memory(self) -> Memory | None:
        """The host's figures, bounded by this process' own cgroup."""
        figures = read_meminfo(self._root)
        total, available = figures.get("MemTotal"), figures.get("MemAvailable")
        if total is None or available is None:
            return None
        inside = self._cgroup.memory()
        if inside is None or inside.total >= total:
            return Memory(total, available)
        return Memory(inside.total, min(available, inside.available))

    def _smooth(self, foreign_bytes: int) -> int:
        """An exponential moving average over time, so that it is the same at every interval."""
        now = self._clock.now().boottime
        if self._foreign_bytes is None:
            self._foreign_bytes = float(foreign_bytes)
        else:
            weight = 1 - math.exp((self._foreign_boottime - now) / FOREIGN_SMOOTHING_SECONDS)
            self._foreign_bytes += weight * (foreign_bytes - self._foreign_bytes)
        self._foreign_boottime = now
        return int(self._foreign_bytes)


class HostProbe:
    """Reads what the host shows beside its devices."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._cgroup = _Cgroup(root)
        self._last_busy_idle = self._busy_idle()

    def read(self) -> HostReadings:
        """The host now; `cpu_percent` is over the time since the last call."""
        figures = read_meminfo(self._root)
        swap_total, swap_free = figures.get("SwapTotal"), figures.get("SwapFree")
        known = swap_total is not None and swap_free is not None
        stalls = _read_stalls(self._root)
        return HostReadings(
            cpu_percent=self._cpu_percent(),
            load_average=os.getloadavg()[0],
            memory_total_bytes=figures.get("MemTotal"),
            memory_available_bytes=figures.get("MemAvailable"),
            swap_total_bytes=swap_total,
            swap_used_bytes=(swap_total or 0) - (swap_free or 0) if known else None,
            memory_some_percent=stalls.get("some"),
            memory_full_percent=stalls.get("full"),
            memory_cgroup_events=self._cgroup.events(),
        )

    def _cpu_percent(self) -> float | None:
        last, now = self._last_busy_idle, self._busy_idle()
        self._last_busy_idle = now
        if last is None or now is None:
            return None
        busy, idle = now[0] - last[0], now[1] - last[1]
        return round(100.0 * busy / (busy + idle), 1) if busy >= 0 and busy + idle > 0 else None

    def _busy_idle(self) -> tuple[int, int] | None:
        """Clock ticks since boot, all CPUs together: proc(5), first line of /proc/stat."""
        try:
            with (self._root / "proc/stat").open("rb", buffering=512) as stat:
                fields = [int(text) for text in stat.readline().split()[1:9]]
        except (OSError, ValueError):
            return None
        if len(fields) < 8:
            return None
        idle = fields[3] + fields[4]  # idle and iowait
        return sum(fields) - idle, idle


class _Cgroup:
    """The memory cgroup of this process, v1 or v2; one that cannot be read limits nothing."""

    def __init__(self, root: Path) -> None:
        self._levels, self._names = _find_cgroup(root)

    def memory(self) -> Memory | None:
        """What the tightest limit from here to the top leaves; None: no limit.

        Cold file pages do not count as held: the kernel drops them for who needs the memory, and
        the usual "working set" (kubelet, cAdvisor) leaves them out too.
        """
        tightest: tuple[int, Path] | None = None
        for level in self._levels:
            limit = _read_int(level / self._names.limit)
            if limit is not None and limit < (tightest[0] if tightest else _NO_LIMIT_BYTES):
                tightest = limit, level
        if tightest is None:
            return None
        limit, level = tightest
        used = _read_int(level / self._names.usage) or 0
        held = max(0, used - _fields(level / "memory.stat").get(self._names.cold, 0))
        return Memory(limit, max(0, limit - held))

    def events(self) -> dict[str, int] | None:
        """How often this cgroup came up against its limit; None where it does not tell."""
        if not self._levels:
            return None
        own = self._levels[0]
        told = _fields(own / "memory.events") or _fields(own / "memory.oom_control")
        counted = {name: told[name] for name in _EVENT_COUNTERS if name in told}
        failures = _read_int(own / "memory.failcnt")
        if failures is not None:
            counted["failcnt"] = failures
        return counted or None


def read_meminfo(root: Path = Path("/")) -> dict[str, int]:
    """Bytes of MemTotal, MemAvailable, SwapTotal and SwapFree; empty if unreadable."""
    try:
        lines = (root / "proc/meminfo").read_bytes()
    except OSError:
        return {}
    return {name.decode(): int(kib) * _KIB for name, kib in _MEMINFO.findall(lines)}


def _read_stalls(root: Path) -> dict[str, float]:
    """PSI of memory: percent of the last 10 s, of some and of all tasks; empty where untold."""
    try:
        text = (root / "proc/pressure/memory").read_bytes()
    except OSError:  # no such file, or PSI is off and reading it says so
        return {}
    return {who.decode(): float(percent) for who, percent in _PSI.findall(text)}


def host_uuid(root: Path = Path("/")) -> str:
    """`HOST-` and 12 hex digits that stay with the installation: of its machine id, else name."""
    # Asked by the daemon alone: OpenSSL behind this import is 2.5 MiB for the sampling process.
    import hashlib

    try:
        identity = (root / "etc/machine-id").read_bytes().strip()
    except OSError:
        identity = b""
    digest = hashlib.sha256(identity or os.uname().nodename.encode()).hexdigest()
    return f"HOST-{digest[:12]}"


def _cpu_model(root: Path) -> str:
    try:
        with (root / "proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return os.uname().machine


def _find_cgroup(root: Path) -> tuple[tuple[Path, ...], _CgroupNames]:
    """The directories from the memory cgroup of this process to the top, and their names."""
    v1 = _CgroupNames("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    v2 = _CgroupNames("memory.max", "memory.current", "inactive_file")
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return (), v2
    memberships = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    for _, controllers, path in memberships:
        if "memory" in controllers.split(","):
            return _levels(root / "sys/fs/cgroup/memory", path), v1
    for hierarchy, _, path in memberships:
        if hierarchy == "0":
            return _levels(root / "sys/fs/cgroup", path), v2
    return (), v2


def _levels(mount: Path, path: str) -> tuple[Path, ...]:
    own = mount / path.lstrip("/")
    # In a container the path may be the host's while the mount already is our own cgroup.
    if ".." in Path(path).parts or not own.is_dir():
        return (mount,)
    return (own, *(level for level in own.parents if level.is_relative_to(mount)))


def _read_int(path: Path) -> int | None:
    try:
        return int(path.read_bytes())
    except (OSError, ValueError):
        return None  # not there, hidden, or "max"


def _fields(path: Path) -> dict[str, int]:
    """The lines `name value` of a cgroup's file; empty where it is not there."""
    try:
        pairs = [line.partition(" ") for line in path.read_text().splitlines()]
        return {name: int(value) for name, _, value in pairs}
    except (OSError, ValueError):
        return {}
