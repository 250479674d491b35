"""A driver without devices behind it: tests say what it finds, shows, refuses and loses."""

from __future__ import annotations

import threading

from gpud.devices.driver import (
    Asking,
    ComputeModeRefused,
    DeviceLost,
    DriverUnavailable,
    ListRefused,
    ModeRefusal,
    unheard,
)
from gpud.devices.snapshot import DeviceInfo, DeviceKind, ProcessKind, ProcessUse, Readings

GIB = 1024**3


class FakeDriver:
    def __init__(self, *uuids: str, kind: DeviceKind = DeviceKind.GPU) -> None:
        self.infos = {
            uuid: DeviceInfo(
                uuid=uuid,
                alias=f"gpu{number}",
                index=number,
                kind=kind,
                model_name="fake",
                memory_total_bytes=8 * GIB,
            )
            for number, uuid in enumerate(uuids)
        }
        self.shown = dict.fromkeys(uuids, Readings(memory_used_bytes=GIB))
        self.listed: dict[str, tuple[ProcessUse, ...] | None] = dict.fromkeys(uuids, ())
        self.lost: set[str] = set()
        self.silent: set[str] = set()  # does not tell its processes for now
        self.unavailable = ""
        self.is_closed = False
        self.refusal: ModeRefusal | None = None
        self.reported: list[tuple[str, int]] = []
        self._hanging: frozenset[str] = frozenset()
        self._go = threading.Event()

    def devices(self, asking: Asking = unheard) -> tuple[DeviceInfo, ...]:
        if self.unavailable:
            raise DriverUnavailable(driver="fake", reason=self.unavailable)
        for uuid in self.infos:
            asking(uuid)
        return tuple(self.infos.values())

    def readings(self, uuid: str) -> Readings:
        self._check(uuid)
        return self.shown[uuid]

    def processes(self, uuid: str) -> tuple[ProcessUse, ...] | None:
        self._check(uuid)
        if uuid in self.silent:
            raise ListRefused(uuid=uuid, reason="the test says so")
        return self.listed[uuid]

    def alarms(self) -> tuple[tuple[str, int], ...]:
        found, self.reported = tuple(self.reported), []
        return found

    def set_compute_mode(self, uuid: str, mode: str) -> None:
        if uuid not in self.infos or uuid in self.lost:
            raise ComputeModeRefused(uuid=uuid, mode=mode, why=ModeRefusal.LOST)
        self._check(uuid)
        if self.refusal is not None:
            raise ComputeModeRefused(uuid=uuid, mode=mode, why=self.refusal)
        self.shown[uuid] = self.shown[uuid].changed(compute_mode=mode)

    def close(self) -> None:
        self.is_closed = True

    def use(self, uuid: str, pid: int, claim: str | None = None) -> None:
        """A process holds one GiB there."""
        use = ProcessUse(
            pid=pid,
            start_time=pid,
            process_name=f"p{pid}",
            used_bytes=GIB,
            kind=ProcessKind.COMPUTE,
            claim=claim,
        )
        self.listed[uuid] = (*(self.listed[uuid] or ()), use)

    def hang(self, *uuids: str) -> threading.Event:
        """Calls to these do not come back before the event."""
        self._go = threading.Event()
        self._hanging = frozenset(uuids)
        return self._go

    def _check(self, uuid: str) -> None:
        if uuid in self._hanging:
            self._go.wait(60)
        if uuid in self.lost or uuid not in self.infos:
            raise DeviceLost(uuid=uuid, reason="the test says so")
