"""Samples and snapshots as data."""

from __future__ import annotations

from dataclasses import replace

from gpud.devices.snapshot import (
    DeviceInfo,
    DeviceKind,
    Health,
    ProcessKind,
    ProcessUse,
    Readings,
    Sample,
    Snapshot,
)

GIB = 1024**3


def process(pid: int, size: int | None, claim: str | None = None) -> ProcessUse:
    return ProcessUse(
        pid=pid,
        start_time=pid * 10,
        process_name=f"p{pid}",
        used_bytes=size,
        kind=ProcessKind.COMPUTE,
        claim=claim,
    )


def sample(
    index: int = 0,
    *,
    total: int | None = 24 * GIB,
    used: int | None = 0,
    processes: tuple[ProcessUse, ...] | None = (),
    boottime: float = 1000.0,
    kind: DeviceKind = DeviceKind.GPU,
    health: Health = Health.HEALTHY,
    driver_reserved: int | None = None,
    never_lists: bool = False,
) -> Sample:
    alias = "host" if kind is DeviceKind.HOST else f"gpu{index}"
    return Sample(
        info=DeviceInfo(
            uuid=f"U-{alias}",
            alias=alias,
            index=index,
            kind=kind,
            model_name="card",
            memory_total_bytes=total,
        ),
        boottime=boottime,
        wall=1.7e9,
        readings=Readings(memory_used_bytes=used, memory_driver_reserved_bytes=driver_reserved),
        health=health,
        processes=processes,
        listed_boottime=boottime if processes is not None else None,
        memory_used_at_list_bytes=used if processes is not None else None,
        never_lists=never_lists,
    )


def later(old: Sample, boottime: float, used: int) -> Sample:
    """A cheap tick: used memory read anew, the process list as it was."""
    return replace(old, boottime=boottime, readings=old.readings.changed(memory_used_bytes=used))


def snapshot(*samples: Sample, sequence: int = 1, boottime: float = 1000.0) -> Snapshot:
    return Snapshot(sequence=sequence, boottime=boottime, wall=1.7e9, samples=samples)
