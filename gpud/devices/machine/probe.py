"""Reads what the host shows beside its devices."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from gpud.devices.machine.cgroup import MemoryCgroup
from gpud.devices.machine.kept import KeptFile, figure
from gpud.devices.snapshot import Disk, HostReadings, NodeMemory

# The kernel reckons its averages of stalls anew every 2 s (PSI), and nothing is decided by the
# others: at a sampling interval of a second they are read every other time.
EVERY_SECONDS = 2.0
# A little early is early enough: ticks are not quite regular.
_JITTER_SECONDS = 0.1
# Of these times, the memory of NUMA nodes is read once in so many.
NODES_EVERY = 5

_KIB = 1024
_MEMINFO = {
    name: b"\n%s:" % name.encode()
    for name in ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree")
}
_NODE_MEMINFO = re.compile(rb"^Node \d+ Mem(Total|Free):\s+(\d+) kB$", re.MULTILINE)
_NODE = re.compile(r"node(\d+)")
_STALLED = ("memory", "cpu", "io")


class MemInfo:
    """/proc/meminfo, kept open. Read by one thread at a time."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._file = KeptFile(root / "proc/meminfo")

    def read(self) -> dict[str, int]:
        """Bytes of MemTotal, MemAvailable, SwapTotal and SwapFree; empty if unreadable."""
        text = b"\n" + self._file.read()
        figures = {name: figure(text, line) for name, line in _MEMINFO.items()}
        return {name: kib * _KIB for name, kib in figures.items() if kib is not None}


class HostProbe:
    """The host's CPUs, RAM, swap, stalls and memory nodes."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._meminfo = MemInfo(root)
        self._stat = KeptFile(root / "proc/stat")
        self._stalls = {what: KeptFile(root / "proc/pressure" / what) for what in _STALLED}
        self._cgroup = MemoryCgroup(root)
        self._node_files = _node_files(root)
        self._nodes: tuple[NodeMemory, ...] = ()
        self._times = 0
        self._slow: dict[str, Any] = {}
        self._due = float("-inf")
        self._last_busy_idle = self._busy_idle()

    def read(self, boottime: float, disks: tuple[Disk, ...] = ()) -> HostReadings:
        """The host at `boottime` seconds, with these `disks`.

        RAM and swap are of now; the rest is up to 2 s old. `cpu_percent` is over the time between.
        """
        if boottime >= self._due:
            self._due = boottime + EVERY_SECONDS - _JITTER_SECONDS
            self._slow = self._read_slow()
        figures = self._meminfo.read()
        swap_total, swap_free = figures.get("SwapTotal"), figures.get("SwapFree")
        known = swap_total is not None and swap_free is not None
        return HostReadings(
            memory_total_bytes=figures.get("MemTotal"),
            memory_available_bytes=figures.get("MemAvailable"),
            swap_total_bytes=swap_total,
            swap_used_bytes=(swap_total or 0) - (swap_free or 0) if known else None,
            nodes=self._nodes,
            disks=disks,
            **self._slow,
        )

    def _read_slow(self) -> dict[str, Any]:
        if self._times % NODES_EVERY == 0:
            self._nodes = tuple(self._read_nodes())
        self._times += 1
        memory, cpu, io = (_stalls(self._stalls[what].read()) for what in _STALLED)
        return {
            "cpu_percent": self._cpu_percent(),
            "load_average": os.getloadavg()[0],
            "memory_some_percent": memory[0],
            "memory_full_percent": memory[1],
            "memory_cgroup_events": self._cgroup.events(),
            "cpu_some_percent": cpu[0],
            "io_some_percent": io[0],
            "io_full_percent": io[1],
        }

    def _read_nodes(self) -> list[NodeMemory]:
        nodes = []
        for number, file in self._node_files:
            found = {what: int(kib) * _KIB for what, kib in _NODE_MEMINFO.findall(file.read())}
            if b"Total" in found and b"Free" in found:
                nodes.append(
                    NodeMemory(node=number, total_bytes=found[b"Total"], free_bytes=found[b"Free"])
                )
        return nodes

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
            fields = [int(text) for text in self._stat.read().partition(b"\n")[0].split()[1:9]]
        except ValueError:
            return None
        if len(fields) < 8:
            return None
        idle = fields[3] + fields[4]  # idle and iowait
        return sum(fields) - idle, idle


def _stalls(text: bytes) -> tuple[float | None, float | None]:
    """PSI: percent of the last 10 s, of some and of all tasks; None where untold.

    Two lines such as `some avg10=0.00 avg60=…`; until Linux 5.13 the CPU's had but the first.
    """
    lines = text.splitlines()
    found = [line[11 : line.index(b" ", 11)] for line in lines if line[4:11] == b" avg10="]
    some, full = (float(found[at]) if len(found) > at else None for at in (0, 1))
    return some, full


def _node_files(root: Path) -> tuple[tuple[int, KeptFile], ...]:
    """The memory figures of each node, by its number; none where the kernel knows no nodes."""
    try:
        names = sorted(path.name for path in (root / "sys/devices/system/node").iterdir())
    except OSError:
        return ()
    found = [(int(match[1]), name) for name in names if (match := _NODE.fullmatch(name))]
    folder = root / "sys/devices/system/node"
    return tuple((number, KeptFile(folder / name / "meminfo")) for number, name in sorted(found))
