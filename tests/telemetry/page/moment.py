"""A moment with cards that tell everything, for pages to be made of."""

from __future__ import annotations

import random
from typing import Any

from gpud.clock import Moment
from gpud.devices.snapshot import (
    DeviceInfo,
    DeviceKind,
    Disk,
    Health,
    HostReadings,
    NodeMemory,
    Pressure,
    Readings,
    Sample,
    Snapshot,
    Thermal,
)
from gpud.histogram import Histogram
from gpud.ledger.books import Books
from gpud.ledger.charge import STALE_SECONDS, Charge
from gpud.telemetry.counting import COMMIT_BOUNDS_SECONDS
from gpud.telemetry.page.devices import Promised
from gpud.telemetry.page.native import Sight
from gpud.telemetry.page.node import Node, Process

NOW = Moment(boot_id="b", boottime=1000.0, wall=1.7e9)
# What makes a device's readings those of another time.
SILENT: dict[str, dict[str, object]] = {
    "lost": {"health": Health.LOST},
    "unresponsive": {"health": Health.UNRESPONSIVE},
    "stale": {"boottime": NOW.boottime - STALE_SECONDS - 0.1},
}
_WORDS = {"compute_mode": "default", "recovery_action": "none", "throttle_reasons": ("power_cap",)}
_FLAGS = {"mig_enabled", "ecc_enabled", "remap_pending", "remap_failed"}
_FLOATS = ("percent", "watts", "joules", "per_second", "celsius")


def readings(luck: random.Random) -> Readings:
    """Everything that a card can tell."""
    told: dict[str, Any] = {}
    for name in Readings.__struct_fields__:
        if name in _WORDS:
            told[name] = _WORDS[name]
        elif name in _FLAGS:
            told[name] = luck.random() < 0.5
        elif name.endswith(_FLOATS):
            told[name] = round(luck.uniform(1, 99), 2)
        else:
            told[name] = luck.randint(1, 10**9)
    return Readings(**told)


def info(index: int) -> DeviceInfo:
    return DeviceInfo(
        uuid=f"GPU-{index:08d}-1111-2222-3333-444444444444",
        alias=f"gpu{index}",
        index=index,
        kind=DeviceKind.GPU,
        model_name="NVIDIA H200",
        memory_total_bytes=1 << 37,
        pci_bus_id=f"0000:{index:02x}:00.0",
        driver_version="570.1",
    )


def snapshot(infos: list[DeviceInfo], sequence: int, luck: random.Random) -> Snapshot:
    wall = NOW.wall + sequence
    return Snapshot(
        sequence=sequence,
        boottime=NOW.boottime,
        wall=wall,
        samples=tuple(
            Sample(
                info=each,
                boottime=NOW.boottime,
                wall=wall,
                readings=readings(luck),
                processes=(),
                pressure=Pressure.HIGH,
                thermal=Thermal.WARNING,
                xids={31: 2, 79: 1} if each.index == 0 else {},
            )
            for each in infos
        ),
        host=HostReadings(
            cpu_percent=50.0,
            load_average=1.5,
            memory_total_bytes=1 << 34,
            memory_available_bytes=1 << 33,
            swap_total_bytes=1 << 30,
            swap_used_bytes=0,
            memory_some_percent=12.5,
            memory_full_percent=1.0,
            memory_cgroup_events={"oom_kill": 2},
            memory_pressure_events=3,
            cpu_some_percent=2.0,
            io_some_percent=3.0,
            io_full_percent=4.0,
            nodes=(NodeMemory(node=0, total_bytes=1 << 34, free_bytes=1 << 32),),
            disks=(Disk(what="state", path="/s", total_bytes=100, free_bytes=40),),
        ),
    )


def charge(of: DeviceInfo, **terms: Any) -> Charge:
    told: dict[str, Any] = {
        "reserve_bytes": 1 << 29,
        "granted_bytes": 0,
        "observed_bytes": {},
        "charged_bytes": 0,
        "foreign_bytes": 0,
        "unattributed_bytes": 0,
        "leaked_bytes": 0,
        "grantable_bytes": 1 << 36,
        "residue_bytes": 0,
        "unexplained_growth_bytes": 0,
    }
    return Charge(uuid=of.uuid, alias=of.alias, total_bytes=of.memory_total_bytes, **told | terms)


def node(**told: Any) -> Node:
    said: dict[str, Any] = {
        "version": "0.1.0",
        "python": "3.11",
        "boot_id": "b",
        "state": "READY",
        "ticks": 7,
        "snapshot_wall": 1.7e9,
        "commits": 3,
        "writes": 5,
        "writable": True,
        "commit_seconds": Histogram(COMMIT_BOUNDS_SECONDS),
        "events": {"node.ready": 1},
        "alerts": {("memory", "warning", "firing"): 2},
        "troubles": (),
        "process": Process(
            cpu_seconds=1.25, resident_bytes=5, start_wall=1.6e9, open_files=3, max_files=None
        ),
    }
    return Node(**said | told)


def sight(seen: Snapshot | None, **told: Any) -> Sight:
    """The whole of it; without promises, instances and calls unless these are told."""
    samples = seen.samples if seen is not None else ()
    charges = {each.info.uuid: charge(each.info) for each in samples}
    said: dict[str, Any] = {
        "now": NOW,
        "promised": Promised(charges=charges, books=Books()),
        "instances": (),
        "readings": {},
        "service_label": "service",
        "calls": (),
        "node": node(),
        "access": "",
    }
    return Sight(snapshot=seen, **said | told)
