"""Where memory and CPUs lie: the host's NUMA nodes, and which are nearest to a card, by sysfs.

Lists of CPUs are written as the kernel does: `0-15,32-47`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SYSFS = Path("/sys")
# More CPUs than any host has: a list is refused rather than made from a slip such as 0-99999999.
MAX_CPUS = 1 << 16

_RANGE = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")
_NODE = re.compile(r"node(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearness:
    """What is nearest to a device: a memory node, a list of CPUs. None: unknown, or no choice."""

    memory_node: int | None = None
    cpus: str | None = None


def parse_cpus(text: str) -> frozenset[int]:
    """The CPUs of a list; an empty one has none. Raises ValueError for what is no list."""
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        found = _RANGE.fullmatch(part.strip())
        first = int(found[1]) if found else -1
        last = int(found[2] or found[1]) if found else -1
        if not 0 <= first <= last < MAX_CPUS:
            raise ValueError(f"{text!r} is no list of CPUs")
        cpus.update(range(first, last + 1))
    return frozenset(cpus)


def format_cpus(cpus: Iterable[int]) -> str:
    """A list of CPUs, as short as it can be; empty for none."""
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges)


def members(words: Iterable[int]) -> frozenset[int]:
    """What a bit mask in words of 64 bits, the lowest first, names."""
    return frozenset(
        index * 64 + bit
        for index, word in enumerate(words)
        for bit in range(64)
        if word >> bit & 1
    )


def nodes(root: Path = SYSFS) -> dict[int, frozenset[int]]:
    """The NUMA nodes that have CPUs, each with them; empty where the kernel tells none.

    Nodes without CPUs (memory of a card, memory on a bus) are nobody's nearest.
    """
    found = {}
    for folder in (root / "devices/system/node").glob("node*"):
        number = _NODE.fullmatch(folder.name)
        cpus = _cpus_in(folder / "cpulist")
        if number and cpus:
            found[int(number[1])] = cpus
    return found


def nearest(pci_bus_id: str | None, told: Nearness, root: Path = SYSFS) -> Nearness:
    """What is nearest to a card: what its driver told, else what sysfs says of its slot.

    On a host of one node every CPU is as near as any other: it has no list then.
    """
    folder = _slot(pci_bus_id, root) if pci_bus_id else None
    node, cpus = told.memory_node, told.cpus
    if folder is not None:
        node = _node_in(folder / "numa_node") if node is None else node
        cpus = cpus or format_cpus(_cpus_in(folder / "local_cpulist")) or None
    return Nearness(memory_node=node, cpus=cpus if len(nodes(root)) > 1 else None)


def _slot(pci_bus_id: str, root: Path) -> Path:
    """A card's folder; sysfs spells the bus id shorter than NVML does."""
    domain, _, rest = pci_bus_id.lower().partition(":")
    return root / "bus/pci/devices" / f"{domain[-4:]}:{rest}"


def _node_in(path: Path) -> int | None:
    try:
        node = int(path.read_text())
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None  # −1: the board does not say


def _cpus_in(path: Path) -> frozenset[int]:
    try:
        return parse_cpus(path.read_text())
    except (OSError, ValueError):
        return frozenset()
