"""Pure: the daemon itself, on the native page: its state, its store, its process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpud.devices.driver import NVML
from gpud.devices.snapshot import Trouble
from gpud.histogram import Histogram
from gpud.telemetry.page.table import (
    Column,
    Family,
    Number,
    Table,
    counter,
    gauge,
    histogram,
    labelled,
    spans,
)

STATES = ("READY", "RECONCILING", "DRAINING", "DEGRADED")
_STATE = Family(name="gpud_node_state", help="1 for the node's state, 0 for the others.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The daemon's process. Standard names of Prometheus' clients, so stock panels find them."""

    cpu_seconds: float
    resident_bytes: int | None
    start_wall: float
    open_files: int | None
    max_files: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The daemon at one moment. `commit_seconds` is None while nothing measures it."""

    version: str
    python: str
    boot_id: str
    state: str
    ticks: int  # snapshots since the start
    snapshot_wall: float | None
    commits: int
    writes: int
    writable: bool
    commit_seconds: Histogram
    events: Mapping[str, int]  # by type, since the start
    alerts: Mapping[tuple[str, str, str], int]  # by rule, severity and state
    troubles: Sequence[Trouble]  # with drivers
    process: Process


class NodePart:
    """The part of the page about the daemon."""

    def __init__(self, commit_bounds: tuple[float, ...]) -> None:
        self._build = Table([gauge("gpud_build_info", "Which gpud it is, and on which Python.")])
        self._table = Table(
            [
                *(Column(family=_STATE, labels=f'state="{name.lower()}"') for name in STATES),
                counter("gpud_sampler_ticks_total", "Snapshots of all devices."),
                gauge("gpud_snapshot_timestamp_seconds", "When the newest snapshot was taken."),
                counter("gpud_store_commits_total", "Transactions that became durable."),
                counter("gpud_store_writes_total", "Decisions that became durable by them."),
                gauge("gpud_store_writable", "Whether decisions can be made durable.", form="%d"),
                counter("process_cpu_seconds_total", "CPU time of the daemon."),
                gauge("process_resident_memory_bytes", "RAM of the daemon."),
                gauge("process_start_time_seconds", "When the daemon started."),
                gauge("process_open_fds", "Files that the daemon has open."),
                gauge("process_max_fds", "Files that it may have open."),
            ]
        )
        self._commits = Table(
            histogram(
                "gpud_store_commit_duration_seconds",
                "How long transactions took to become durable.",
                commit_bounds,
            )
        )
        self._drivers = Table(
            [
                gauge(
                    "gpud_driver_problem",
                    "0 for a driver that works or is not here; 1 for one that is here and cannot "
                    "be used, or a card of it cannot; 2 for one that the configuration wants.",
                )
            ]
        )
        self._events = Table(
            [counter("gpud_events_total", "Events of the journal since the start, by type.")]
        )
        self._alerts = Table(
            [
                gauge(
                    "gpud_alerts",
                    "Alerts by rule, severity and state; those that are pending do not hold for "
                    "long enough yet, those that are resolved hold no more.",
                )
            ]
        )

    def render(self, node: Node) -> str:
        """All of it."""
        build = labelled(version=node.version, python=node.python)
        events, alerts = sorted(node.events.items()), sorted(node.alerts.items())
        return "".join(
            (
                self._build.render((build,), [(1,)]),
                self._table.render(("",), [_row(node)]),
                self._commits.render(("",), [spans(node.commit_seconds)]),
                self._drivers.render((labelled(driver=NVML),), [(_problem(node.troubles),)]),
                self._events.render(
                    tuple(labelled(type=name) for name, _ in events),
                    [(count,) for _, count in events],
                ),
                self._alerts.render(
                    tuple(_alert(*key) for key, _ in alerts), [(count,) for _, count in alerts]
                ),
            )
        )


def _row(node: Node) -> tuple[Number, ...]:
    process, wall = node.process, node.snapshot_wall
    return (
        *(int(node.state == name) for name in STATES),
        node.ticks,
        None if wall is None else round(wall, 3),
        node.commits,
        node.writes,
        node.writable,
        round(process.cpu_seconds, 2),
        process.resident_bytes,
        round(process.start_wall, 3),
        process.open_files,
        process.max_files,
    )


def _problem(troubles: Sequence[Trouble]) -> int:
    return max((1 + each.is_wanted for each in troubles), default=0)


def _alert(rule: str, severity: str, state: str) -> str:
    return labelled(rule=rule, severity=severity, state=state)
