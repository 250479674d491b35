"""The host's RAM as device `host`; what else the machine shows is in machine/probe.py."""

from __future__ import annotations

import math
import os
from pathlib import Path

from gpud.clock import Clock
from gpud.devices.driver import Asking, ComputeModeRefused, DeviceLost, ModeRefusal, unheard
from gpud.devices.machine.cgroup import Memory, MemoryCgroup
from gpud.devices.machine.probe import MemInfo
from gpud.devices.processes import ProcessTable
from gpud.devices.snapshot import DeviceInfo, DeviceKind, ProcessKind, ProcessUse, Readings

ALIAS = "host"
# What others use of the RAM swings by some MiB all the time; two or three ticks calm it down.
FOREIGN_SMOOTHING_SECONDS = 3.0


class HostDriver:
    """The host's RAM; its `uuid` is `host_uuid`'s.

    `memory_used_bytes` = what claimed processes hold + everything else that is not available, the
    latter smoothed; `processes` lists the claimed ones alone. So used − Σ processes is what is
    foreign here.
    """

    def __init__(
        self, uuid: str, table: ProcessTable, clock: Clock, root: Path = Path("/")
    ) -> None:
        self._table = table
        self._clock = clock
        self._meminfo = MemInfo(root)
        self._cgroup = MemoryCgroup(root)
        self._foreign_bytes: float | None = None
        self._foreign_boottime = 0.0
        memory = self._memory()
        self._info = DeviceInfo(
            uuid=uuid,
            alias=ALIAS,
            index=None,
            kind=DeviceKind.HOST,
            model_name=_cpu_model(root),
            memory_total_bytes=memory.total if memory else None,
        )

    def devices(self, asking: Asking = unheard) -> tuple[DeviceInfo, ...]:
        """The one device."""
        return (self._info,)

    def readings(self, uuid: str) -> Readings:
        """Used memory; all else about the host is in HostReadings."""
        self._check(uuid)
        memory = self._memory()
        if memory is None:
            return Readings()
        ours = sum(use.used_bytes or 0 for use in self._claimed_uses())
        foreign = self._smooth(max(0, memory.total - memory.available - ours))
        return Readings(memory_used_bytes=ours + foreign)

    def processes(self, uuid: str) -> tuple[ProcessUse, ...] | None:
        """Claimed processes and their RssAnon + RssShmem."""
        self._check(uuid)
        return self._claimed_uses()

    def alarms(self) -> tuple[tuple[str, int], ...]:
        """RAM has no Xids."""
        return ()

    def set_compute_mode(self, uuid: str, mode: str) -> None:
        """Refused: RAM has no such mode."""
        raise ComputeModeRefused(
            uuid=uuid, mode=mode, why=ModeRefusal.NOT_SUPPORTED, detail="it is the host's RAM"
        )

    def close(self) -> None:
        """Nothing is held."""

    def _check(self, uuid: str) -> None:
        if uuid != self._info.uuid:
            raise DeviceLost(uuid=uuid, reason="this is another host")

    def _claimed_uses(self) -> tuple[ProcessUse, ...]:
        return tuple(
            ProcessUse(
                pid=record.pid,
                start_time=record.start_time,
                process_name=record.name,
                used_bytes=used_bytes,
                kind=ProcessKind.COMPUTE,
                claim=record.claim,
                attached=record.attached,
            )
            for record in self._table.claimed()
            if (used_bytes := self._table.resident_bytes(record.pid)) is not None
        )

    def _memory(self) -> Memory | None:
        """The host's figures, bounded by this process' own cgroup."""
        figures = self._meminfo.read()
        total, available = figures.get("MemTotal"), figures.get("MemAvailable")
        if total is None or available is None:
            return None
        inside = self._cgroup.memory()
        if inside is None or inside.total >= total:
            return Memory(total, available)
        return Memory(inside.total, min(available, inside.available))

    def _smooth(self, foreign_bytes: int) -> int:
        """An exponential moving average over time, so that it is the same at every interval."""
        now = self._clock.now().boottime
        if self._foreign_bytes is None:
            self._foreign_bytes = float(foreign_bytes)
        else:
            weight = 1 - math.exp((self._foreign_boottime - now) / FOREIGN_SMOOTHING_SECONDS)
            self._foreign_bytes += weight * (foreign_bytes - self._foreign_bytes)
        self._foreign_boottime = now
        return int(self._foreign_bytes)


def host_uuid(root: Path = Path("/")) -> str:
    """`HOST-` and 12 hex digits that stay with the installation: of its machine id, else name."""
    # Asked by the daemon alone: OpenSSL behind this import is 2.5 MiB for the sampling process.
    import hashlib

    try:
        identity = (root / "etc/machine-id").read_bytes().strip()
    except OSError:
        identity = b""
    digest = hashlib.sha256(identity or os.uname().nodename.encode()).hexdigest()
    return f"HOST-{digest[:12]}"


def _cpu_model(root: Path) -> str:
    try:
        with (root / "proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return os.uname().machine
