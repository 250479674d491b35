"""Pure: the host beside its devices, in a line or two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuctl.messages import known
from gpuctl.units import compact_size, used_of

if TYPE_CHECKING:
    from gpud.v1.telemetry_pb2 import Disk, HostReadings

_STALLS = (
    ("cpu_some_percent", "cpu"),
    ("memory_some_percent", "memory"),
    ("io_some_percent", "io"),
)
# Below, nobody notices (gpud counts memory pressure from there on).
_WORTH_TELLING_PERCENT = 10.0


def host_lines(host: HostReadings) -> list[str]:
    """CPUs, RAM and swap, what tasks wait for, and how full the disks of gpud's folders are."""
    parts = [f"cpu {_percent(known(host, 'cpu_percent'))}"]
    load = known(host, "load_average")
    if load is not None:
        parts.append(f"load {load:.2f}")
    parts.append(f"ram {_used(host, 'memory')}")
    if known(host, "swap_total_bytes"):
        parts.append(f"swap {_used(host, 'swap')}")
    waits = [
        f"{what} {value:.0f}%"
        for field, what in _STALLS
        if (value := known(host, field)) is not None and value >= _WORTH_TELLING_PERCENT
    ]
    if waits:
        parts.append(f"waiting for {', '.join(waits)}")
    lines = [f"host: {'  '.join(parts)}"]
    if host.disks:
        lines.append(f"disk: {'  '.join(_disk(disk) for disk in host.disks)}")
    return lines


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}%"


def _used(host: HostReadings, what: str) -> str:
    total = known(host, f"{what}_total_bytes")
    if what == "swap":
        return used_of(known(host, "swap_used_bytes"), total)
    available = known(host, "memory_available_bytes")
    used = None if total is None or available is None else total - available
    return used_of(used, total)


def _disk(disk: Disk) -> str:
    return f"{disk.what} {compact_size(disk.free_bytes)} free of {compact_size(disk.total_bytes)}"
