"""Pure: the lines above the lists: the node, its host, and the worst of what is wrong."""

from __future__ import annotations

from collections.abc import Iterable

from gpuctl.commands.host import disks_by_name, host_parts, waits_text
from gpuctl.glance.trouble import troubles, untold
from gpuctl.messages import seconds_of, word
from gpuctl.tables import clean
from gpuctl.top.shown.field import Cell, shortened, state_cell
from gpuctl.top.shown.told import Told
from gpuctl.units import compact_size, span_text
from gpud.v1.telemetry_pb2 import Disk


def node_line(told: Told, *, is_away: bool = False) -> Cell:
    """Who it is and how it stands; of one that is away nobody knows how."""
    node = told.node
    up = max(0.0, seconds_of(told.snapshot.time) - seconds_of(node.start_time))
    who = ((clean(node.hostname), "strong"), (f"  gpud {clean(node.version)}  ", ""))
    if is_away:
        return (*who, ("AWAY", "bad"))
    why = f"  {clean(node.state_reason)}" if node.state_reason else ""
    return (*who, *state_cell(word(node, "state")), (f"  up {span_text(up)}", ""), (why, "warn"))


def host_line(told: Told, width: int) -> Cell:
    """CPUs, RAM, disks, as many of them as have room whole, and what tasks wait for."""
    if not told.snapshot.HasField("host"):
        return (("", ""),)
    host = told.snapshot.host
    waits = f"  {waits}" if (waits := waits_text(host)) else ""
    parts = [*host_parts(host), *_disks(host.disks)]
    while len(parts) > 1 and len("  ".join(parts) + waits) > width:
        parts.pop()
    return (("  ".join(parts), ""), (waits, "warn"))


def _disks(disks: Iterable[Disk]) -> list[str]:
    """What is free on each; one that has all the folders needs no name."""
    told = disks_by_name(disks)
    return [
        f"{name if len(told) > 1 else 'disk'} {compact_size(each.free_bytes)} free"
        for name, each in told.items()
    ]


def trouble_line(told: Told, width: int) -> Cell:
    """The worst of what is wrong, and how much more there is; empty for nothing."""
    found = [f"cannot list {problem}" for problem in told.problems]
    found += [f"{each}" for each in untold(told.node, told.alerts)]
    worst = troubles(told.devices, told.instances, told.alerts)
    tones = ["warn"] * len(found) + [each.tone for each in worst]
    found += [each.line for each in worst]
    if not found:
        return ()
    more = f"  (and {len(found) - 1} more)" if len(found) > 1 else ""
    order = ("bad", "red", "yellow", "warn", "")
    at = min(range(len(found)), key=lambda index: order.index(tones[index]))
    tone = {"red": "bad", "yellow": "warn"}.get(tones[at], tones[at])
    return ((shortened(clean(found[at]), width - len(more)), tone), (more, "dim"))
