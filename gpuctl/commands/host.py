"""Pure: the host beside its devices, in a line or two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from gpuctl.messages import known
from gpuctl.tables import clean
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
    parts = [*host_parts(host), waits_text(host)]
    lines = [f"host: {'  '.join(filter(None, parts))}"]
    if host.disks:
        told = (
            f"{name} {compact_size(each.free_bytes)} free of {compact_size(each.total_bytes)}"
            for name, each in disks_by_name(host.disks).items()
        )
        lines.append(f"disk: {'  '.join(told)}")
    return lines


def host_parts(host: HostReadings) -> list[str]:
    """How busy its CPUs are, and how full RAM and swap."""
    parts = [f"cpu {_percent(known(host, 'cpu_percent'))}"]
    load = known(host, "load_average")
    if load is not None:
        parts.append(f"load {load:.2f}")
    parts.append(f"ram {_used(host, 'memory')}")
    if known(host, "swap_total_bytes"):
        parts.append(f"swap {_used(host, 'swap')}")
    return parts


def waits_text(host: HostReadings) -> str:
    """What tasks wait for; empty while it is nothing worth telling."""
    waits = [
        f"{what} {value:.0f}%"
        for field, what in _STALLS
        if (value := known(host, field)) is not None and value >= _WORTH_TELLING_PERCENT
    ]
    return f"waiting for {', '.join(waits)}" if waits else ""


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}%"


def _used(host: HostReadings, what: str) -> str:
    total = known(host, f"{what}_total_bytes")
    if what == "swap":
        return used_of(known(host, "swap_used_bytes"), total)
    available = known(host, "memory_available_bytes")
    used = None if total is None or available is None else total - available
    return used_of(used, total)


def disks_by_name(disks: Iterable[Disk]) -> Mapping[str, Disk]:
    """Each disk once, by what lies on it (`state,models`); what lies on several by its paths."""
    folders: dict[str, dict[str, Disk]] = {}  # by disk: of each kind the first
    for each in disks:
        folders.setdefault(each.disk or each.path, {}).setdefault(each.what, each)
    kinds = Counter(what for on_it in folders.values() for what in on_it)
    return {
        ",".join(
            clean(what if kinds[what] == 1 else each.path) for what, each in on_it.items()
        ): next(iter(on_it.values()))
        for on_it in folders.values()
    }
