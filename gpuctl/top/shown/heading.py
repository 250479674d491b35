"""Pure: the lines above the lists: the node, its host, and the worst of what is wrong."""

from __future__ import annotations

from gpuctl.commands.host import host_lines
from gpuctl.glance.trouble import troubles
from gpuctl.messages import seconds_of, word
from gpuctl.tables import clean
from gpuctl.top.shown.field import Cell, state_cell
from gpuctl.top.shown.told import Told
from gpuctl.units import span_text


def node_line(told: Told) -> Cell:
    """Who it is and how it stands."""
    node = told.node
    up = max(0.0, seconds_of(told.snapshot.time) - seconds_of(node.start_time))
    why = f" ({clean(node.state_reason)})" if node.state_reason else ""
    return (
        (clean(node.hostname), "strong"),
        (f"  gpud {clean(node.version)}  ", ""),
        *state_cell(word(node, "state")),
        (why, "warn"),
        (f"  up {span_text(up)}", ""),
    )


def host_line(told: Told) -> Cell:
    """CPUs, RAM and what tasks wait for; without it, how many devices there are."""
    lines = host_lines(told.snapshot.host) if told.snapshot.HasField("host") else []
    text = "  ".join(lines)
    return ((text, "warn" if "waiting for" in text else ""),)


def trouble_line(told: Told) -> Cell:
    """The worst of what is wrong, and how much more there is; empty for nothing."""
    found = [f"cannot list {problem}" for problem in told.problems]
    found += [f"{each}" for each in told.node.warnings]
    worst = troubles(told.devices, told.instances, told.alerts)
    tones = ["warn"] * len(found) + [each.tone for each in worst]
    found += [each.line for each in worst]
    if not found:
        return ()
    more = f"  (and {len(found) - 1} more)" if len(found) > 1 else ""
    order = ("bad", "red", "yellow", "warn", "")
    at = min(range(len(found)), key=lambda index: order.index(tones[index]))
    tone = {"red": "bad", "yellow": "warn"}.get(tones[at], tones[at])
    return ((clean(found[at]), tone), (more, "dim"))
