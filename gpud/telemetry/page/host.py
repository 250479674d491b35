"""Pure: the host beside its devices, on the native page."""

from __future__ import annotations

from operator import attrgetter

from gpud.devices.snapshot import HostReadings
from gpud.telemetry.page.table import Column, Family, Table, counter, gauge, labelled

_STALL = Family(
    name="gpud_host_pressure_stall_ratio",
    help="Share of the last 10 s in which some, or all, tasks waited for it (PSI).",
)
# (field, labels) in percent.
_STALLS = (
    ("memory_some_percent", 'resource="memory",tasks="some"'),
    ("memory_full_percent", 'resource="memory",tasks="full"'),
    ("cpu_some_percent", 'resource="cpu",tasks="some"'),
    ("io_some_percent", 'resource="io",tasks="some"'),
    ("io_full_percent", 'resource="io",tasks="full"'),
)
_PLAIN = (
    ("load_average", gauge("gpud_host_load_average", "Tasks that ran or waited, over a minute.")),
    ("memory_total_bytes", gauge("gpud_host_memory_total_bytes", "RAM.")),
    (
        "memory_available_bytes",
        gauge("gpud_host_memory_available_bytes", "RAM to be had without swapping."),
    ),
    ("swap_total_bytes", gauge("gpud_host_swap_total_bytes", "Swap.")),
    ("swap_used_bytes", gauge("gpud_host_swap_used_bytes", "Swap in use.")),
    (
        "memory_pressure_events",
        counter(
            "gpud_host_memory_pressure_events_total",
            "How often the host came under memory pressure since the daemon started.",
        ),
    ),
)
_percent = attrgetter("cpu_percent", *(name for name, _ in _STALLS))
_plain = attrgetter(*(name for name, _ in _PLAIN))


class Host:
    """The part of the page about the host."""

    def __init__(self) -> None:
        self._table = Table(
            [
                gauge("gpud_host_cpu_utilization_ratio", "Share of all CPUs in use."),
                *(Column(family=_STALL, labels=labels) for _, labels in _STALLS),
                *(column for _, column in _PLAIN),
            ]
        )
        self._nodes = Table(
            [
                gauge("gpud_host_numa_memory_total_bytes", "RAM of a NUMA node."),
                gauge("gpud_host_numa_memory_free_bytes", "Free RAM of a NUMA node."),
            ]
        )
        self._disks = Table(
            [
                gauge("gpud_host_disk_total_bytes", "The file system under a folder of gpud."),
                gauge("gpud_host_disk_free_bytes", "What gpud could still write there."),
            ]
        )
        self._cgroup = Table(
            [
                counter(
                    "gpud_host_cgroup_memory_events_total",
                    "Events of the memory cgroup that gpud runs in.",
                )
            ]
        )

    def render(self, host: HostReadings) -> str:
        """All of it."""
        shares = [None if each is None else each / 100 for each in _percent(host)]
        events = sorted((host.memory_cgroup_events or {}).items())
        return "".join(
            (
                self._table.render(("",), [(*shares, *_plain(host))]),
                self._nodes.render(
                    tuple(labelled(node=str(each.node)) for each in host.nodes),
                    [(each.total_bytes, each.free_bytes) for each in host.nodes],
                ),
                self._disks.render(
                    tuple(labelled(folder=each.what, path=each.path) for each in host.disks),
                    [(each.total_bytes, each.free_bytes) for each in host.disks],
                ),
                self._cgroup.render(
                    tuple(labelled(event=name) for name, _ in events),
                    [(count,) for _, count in events],
                ),
            )
        )
