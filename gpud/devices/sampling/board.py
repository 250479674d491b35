"""Pure: what is known of each device by now, kept from frames and cut into snapshots."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from gpud.devices.driver import driver_name
from gpud.devices.sampling.frames import Answer, Inventory
from gpud.devices.snapshot import (
    DeviceInfo,
    DeviceKind,
    Health,
    HostReadings,
    ProcessUse,
    Readings,
    Sample,
    Snapshot,
)

REFUSES_MEMORY = "the driver refuses its memory figures"
DRIVER_STILL_OPENING = "its driver does not finish opening"
NO_LONGER_LISTED = "the driver no longer lists it"


class Instant(Protocol):
    """Anything with both clocks' seconds, as in clock.Moment."""

    @property
    def boottime(self) -> float:
        """Seconds since boot, suspend included."""
        ...

    @property
    def wall(self) -> float:
        """Seconds since the epoch."""
        ...


class Board:
    """The newest sample of every device that was ever seen in this life of the daemon.

    A device that does not answer keeps its last sample, whose time shows how old it is; one that
    vanishes stays as LOST. A frame changes nothing but the device that it is about.
    """

    def __init__(self) -> None:
        self._infos: dict[str, DeviceInfo] = {}
        self._samples: dict[str, Sample] = {}
        # Drivers still being opened; None: no inventory has come yet.
        self._awaited: frozenset[str] | None = None
        self._is_complete = False
        self._sequence = 0

    @property
    def known(self) -> tuple[DeviceInfo, ...]:
        """Every device, in alias order, `host` last."""
        return tuple(sorted(self._infos.values(), key=_alias_order))

    def find(self, uuid: str) -> DeviceInfo | None:
        """The device of that UUID."""
        return self._infos.get(uuid)

    def health(self, uuid: str) -> Health | None:
        """As of its newest sample; None: not sampled yet."""
        sample = self._samples.get(uuid)
        return sample.health if sample else None

    def reason(self, uuid: str) -> str:
        """Why it is not HEALTHY; empty when it is."""
        sample = self._samples.get(uuid)
        return sample.health_reason if sample else ""

    def take_inventory(self, inventory: Inventory, at: Instant) -> None:
        """Learn of new devices, and mark as LOST what an open driver has ceased to list."""
        self._awaited = frozenset(inventory.opening)
        listed = {info.uuid for info in inventory.devices}
        self._infos.update((info.uuid, info) for info in inventory.devices)
        for info in self._infos.values():
            driver = driver_name(info.kind)
            if info.uuid in listed or driver in inventory.opening:
                continue
            self._mark(info, Health.LOST, inventory.unavailable.get(driver, NO_LONGER_LISTED), at)

    def stop_awaiting(self, at: Instant) -> None:
        """The drivers still being opened have had their time: go on without them."""
        for info in self._infos.values():
            is_awaited = driver_name(info.kind) in (self._awaited or ())
            if is_awaited and self.health(info.uuid) is not Health.UNRESPONSIVE:
                self._mark(info, Health.UNRESPONSIVE, DRIVER_STILL_OPENING, at)
        self._awaited = frozenset()

    def take_answer(self, answer: Answer) -> None:
        """What one device showed; a list that was not read this time stays as it was."""
        info = self._infos.get(answer.uuid)
        if info is None:
            return
        if answer.lost_reason:
            self._mark(info, Health.LOST, answer.lost_reason, answer)
            return
        health, reason = _judge(info, answer.readings)
        processes, boottime, wall, used_bytes = _list_of(answer, self._samples.get(answer.uuid))
        self._samples[answer.uuid] = Sample(
            info=info,
            boottime=answer.boottime,
            wall=answer.wall,
            readings=answer.readings,
            health=health,
            health_reason=reason,
            processes=processes,
            listed_boottime=boottime,
            listed_wall=wall,
            memory_used_at_list_bytes=used_bytes,
        )

    def mark_unresponsive(self, uuid: str, reason: str, at: Instant) -> None:
        """It missed its deadline."""
        info = self._infos.get(uuid)
        if info is not None:
            self._mark(info, Health.UNRESPONSIVE, reason, at)

    def snapshot(self, at: Instant, host: HostReadings) -> Snapshot:
        """The next snapshot."""
        self._sequence += 1
        self._is_complete = self._is_complete or self._has_all()
        return Snapshot(
            sequence=self._sequence,
            boottime=at.boottime,
            wall=at.wall,
            samples=tuple(
                self._samples[info.uuid] for info in self.known if info.uuid in self._samples
            ),
            host=host,
            complete=self._is_complete,
        )

    def _has_all(self) -> bool:
        """Whether each device has answered or missed its deadline, and no driver is awaited."""
        return self._awaited == frozenset() and self._samples.keys() >= self._infos.keys()

    def _mark(self, info: DeviceInfo, health: Health, reason: str, at: Instant) -> None:
        last = self._samples.get(info.uuid)
        if last is None:
            last = Sample(info=info, boottime=at.boottime, wall=at.wall, readings=Readings())
        self._samples[info.uuid] = replace(last, health=health, health_reason=reason)


def _judge(info: DeviceInfo, readings: Readings) -> tuple[Health, str]:
    if info.memory_total_bytes is None or readings.memory_used_bytes is None:
        return Health.UNKNOWN, REFUSES_MEMORY
    return Health.HEALTHY, ""


def _list_of(
    answer: Answer, last: Sample | None
) -> tuple[tuple[ProcessUse, ...] | None, float | None, float | None, int | None]:
    """Processes, when (boottime, wall) and with how many bytes used they were listed."""
    if answer.processes is not None:
        used_bytes = answer.readings.memory_used_bytes
        return answer.processes, answer.boottime, answer.wall, used_bytes
    if answer.listed or last is None:
        return None, None, None, None
    return (
        last.processes,
        last.listed_boottime,
        last.listed_wall,
        last.memory_used_at_list_bytes,
    )


def _alias_order(info: DeviceInfo) -> tuple[bool, int]:
    return info.kind is DeviceKind.HOST, info.index if info.index is not None else 0
