"""Pure: what is known of each device by now, kept from frames and cut into snapshots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from gpud.devices.bands import Bands, Standing
from gpud.devices.driver import NEEDS_RESET, NO_LONGER_LISTED, driver_name
from gpud.devices.sampling.frames import Answer, Inventory
from gpud.devices.snapshot import (
    DeviceInfo,
    DeviceKind,
    Health,
    HostReadings,
    Pressure,
    ProcessUse,
    Readings,
    Sample,
    Snapshot,
    Thermal,
    Trouble,
    Verdict,
)
from gpud.devices.verdict.tally import Tally
from gpud.devices.verdict.verdict import CLEAN, SILENT_SECONDS, is_quiet, judge

REFUSES_MEMORY = "the driver refuses its memory figures"
DRIVER_STILL_OPENING = "its driver does not finish opening"
NOT_READ_AGAIN = "listed again, not read yet"
# A MIG slice that vanished is shown for so long, and after the end of the last promise on it.
TOMBSTONE_SECONDS = 600.0
# A device that was asked so often and never gave a process list is one that gives none.
LISTS_AWAITED = 3
# Far more than a host has devices; beyond it, MIG slices made anew again and again lose theirs.
MAX_NUMBERS = 256


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """A process list, when it was read and with how many bytes used; or that none ever is."""

    processes: tuple[ProcessUse, ...] | None = None
    boottime: float | None = None
    wall: float | None = None
    used_bytes: int | None = None
    is_never: bool = False


class Board:
    """The newest sample of every device, and where it stands in its bands.

    A device that does not answer keeps its last sample, whose time shows how old it is; one that
    vanishes from its driver stays as LOST, a tombstone, until it is forgotten. A frame changes
    nothing but the device that it is about.
    """

    def __init__(self, bands: Bands) -> None:
        self.bands = bands
        self._infos: dict[str, DeviceInfo] = {}
        self._ordered: tuple[DeviceInfo, ...] | None = None
        self._samples: dict[str, Sample] = {}
        self._standings: dict[str, Standing] = {}
        # Samples that only moved on, by UUID: the same readings move them on again.
        self._resting: dict[str, tuple[Sample, Bands]] = {}
        # Since when a device has vanished, and when it was last needed there (boottime seconds).
        self._vanished: dict[str, float] = {}
        self._needed: dict[str, float] = {}
        # Those that nobody waits for, until they answer or are back in their driver's list.
        self._dismissed: set[str] = set()
        # How often a device that has given no process list yet did not tell it.
        self._refusals: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self.tally = Tally()
        # Marked as UNRESPONSIVE, and not judged for being so for long yet.
        self._silent: set[str] = set()
        self._troubles: tuple[Trouble, ...] = ()
        # Drivers still being opened; None: no inventory has come yet.
        self._awaited: frozenset[str] | None = None
        # The card that keeps them: it has a time of its own, and they no trouble meanwhile.
        self._opening_asks = ""
        self._is_complete = False
        self._sequence = 0

    @property
    def known(self) -> tuple[DeviceInfo, ...]:
        """Every device, in alias order, `host` last."""
        if self._ordered is None:
            self._ordered = tuple(sorted(self._infos.values(), key=_alias_order))
        return self._ordered

    @property
    def numbers(self) -> dict[str, int]:
        """The numbers that devices have, and that forgotten ones had, by UUID."""
        return dict(self._numbers)

    @property
    def xids(self) -> dict[str, dict[int, int]]:
        """Errors by number since the daemon started, by UUID."""
        return self.tally.all_counts()

    def find(self, uuid: str) -> DeviceInfo | None:
        """The device of that UUID."""
        return self._infos.get(uuid)

    def has_vanished(self, uuid: str) -> bool:
        """Whether its driver has ceased to list it."""
        return uuid in self._vanished

    def health(self, uuid: str) -> Health | None:
        """As of its newest sample; None: not sampled yet."""
        sample = self._samples.get(uuid)
        return sample.health if sample else None

    def take_inventory(self, inventory: Inventory, at: Instant) -> None:
        """Learn of new devices, and mark as LOST what an open driver has ceased to list."""
        self._awaited = frozenset(inventory.opening)
        self._opening_asks = inventory.opening_asks
        self._troubles = inventory.troubles
        listed = {info.uuid for info in inventory.devices}
        self._ordered = None
        for info in inventory.devices:
            if (
                self._infos.get(info.uuid) != info
            ):  # else the very same, as who compares them hopes
                self._infos[info.uuid] = info
            self._number(info)
            self._needed.pop(info.uuid, None)
            if self._vanished.pop(info.uuid, None) is not None:
                self._dismissed.discard(info.uuid)
                # Still LOST, until it has answered.
                self._mark(info, Health.LOST, NOT_READ_AGAIN, at)
        for info in self._infos.values():
            driver = driver_name(info.kind)
            if info.uuid in listed or driver in inventory.opening:
                continue
            self._vanished.setdefault(info.uuid, at.boottime)
            self._mark(info, Health.LOST, inventory.unavailable.get(driver, NO_LONGER_LISTED), at)

    def forget(self, is_promised: Callable[[str], bool], at: Instant) -> None:
        """Drop the tombstones that carry no promise, and are dismissed or of slices unmade.

        A card is missed until somebody says that it is not: what is broken does not mend by time.
        """
        for uuid, since in tuple(self._vanished.items()):
            is_dismissed = uuid in self._dismissed
            if is_promised(uuid) or not (is_dismissed or self._is_unmade(uuid)):
                self._needed[uuid] = at.boottime
                continue
            gone_seconds = at.boottime - max(since, self._needed.get(uuid, since))
            if is_dismissed or gone_seconds >= TOMBSTONE_SECONDS:
                self._drop(uuid)

    def stop_awaiting(self, at: Instant, *, is_wanted: bool = False) -> None:
        """The drivers still being opened have had their time: go on without them.

        `is_wanted`: the configuration insists on them.
        """
        self._troubles += tuple(
            Trouble(driver=name, reason="it does not finish opening", is_wanted=is_wanted)
            for name in sorted(self._awaited or ())
            if not self._opening_asks
        )
        for info in self._infos.values():
            is_awaited = driver_name(info.kind) in (self._awaited or ())
            if is_awaited and self.health(info.uuid) is not Health.UNRESPONSIVE:
                self.mark_unresponsive(info.uuid, DRIVER_STILL_OPENING, at)
        self._awaited = frozenset()

    def take_answer(self, answer: Answer) -> None:
        """What one device showed; a list that was not read, or not told, stays as it was."""
        info = self._infos.get(answer.uuid)
        if info is None or self.has_vanished(answer.uuid):
            return
        if answer.lost_reason:
            self._mark(info, Health.LOST, answer.lost_reason, answer)
            return
        self._dismissed.discard(answer.uuid)
        before = self._samples.get(answer.uuid)
        if before is not None and (self._rests(before, answer) or self._goes_on(before, answer)):
            moved = self._samples[answer.uuid] = _moved_on(before, answer)
            self._resting[answer.uuid] = moved, self.bands
            return
        health, reason = _judge(info, answer.readings)
        last = self._list_of(answer)
        pressure, thermal = self._judge_bands(info, answer.readings, answer.boottime)
        self._samples[answer.uuid] = Sample(
            info=info,
            boottime=answer.boottime,
            wall=answer.wall,
            readings=answer.readings,
            health=health,
            health_reason=reason,
            processes=last.processes,
            listed_boottime=last.boottime,
            listed_wall=last.wall,
            memory_used_at_list_bytes=last.used_bytes,
            never_lists=last.is_never,
            pressure=pressure,
            thermal=thermal,
            pressure_events=self._standings[answer.uuid].pressure_events,
            verdict=self._verdict(info, health, answer.readings, answer.boottime),
            xids=self._xids_of(info),
            xids_before=self.tally.restored(info.uuid),
        )

    def take_xids(self, uuid: str, numbers: tuple[int, ...], at: Instant) -> None:
        """Errors that a driver reported of a device, which need not answer for that."""
        self.tally.take(uuid, numbers, at.boottime)
        self._dismissed.discard(uuid)
        self._judge_again(uuid, at)

    def settle(self, uuid: str, at: Instant) -> None:
        """Somebody dealt with a device: the errors so far speak against it no more."""
        self.tally.settle(uuid)
        self._judge_again(uuid, at)

    def dismiss(self, uuid: str, at: Instant) -> None:
        """Nobody waits for it, where it is LOST, nor for the slices that went with it."""
        if self.health(uuid) is Health.LOST:
            own = (each for each in self._infos.values() if uuid in (each.uuid, each.parent_uuid))
            self._dismissed |= {each.uuid for each in own}
            self.settle(uuid, at)

    def mark_unresponsive(self, uuid: str, reason: str, at: Instant) -> None:
        """It missed its deadline; one that is not there has none."""
        info = self._infos.get(uuid)
        if info is not None and not self.has_vanished(uuid):
            self._mark(info, Health.UNRESPONSIVE, reason, at)
            self._silent.add(uuid)

    def snapshot(self, at: Instant, host: HostReadings) -> Snapshot:
        """The next snapshot."""
        if self._silent:
            self._judge_silent(at)
        self._sequence += 1
        self._is_complete = self._is_complete or self._has_all()
        return Snapshot(
            sequence=self._sequence,
            boottime=at.boottime,
            wall=at.wall,
            samples=tuple(
                self._as_its_card(self._samples[info.uuid])
                for info in self.known
                if info.uuid in self._samples
            ),
            host=host,
            complete=self._is_complete,
            troubles=self._troubles,
        )

    def _is_unmade(self, uuid: str) -> bool:
        """Whether it is a MIG slice without which its card goes on."""
        card = self._samples.get(self._infos[uuid].parent_uuid or "")
        return card is not None and card.health in (Health.HEALTHY, Health.UNKNOWN)

    def _drop(self, uuid: str) -> None:
        del self._infos[uuid], self._vanished[uuid]
        self._ordered = None
        self._dismissed.discard(uuid)
        self.tally.forget(uuid)
        for kept in (self._samples, self._standings, self._resting, self._needed, self._refusals):
            kept.pop(uuid, None)

    def _rests(self, before: Sample, answer: Answer) -> bool:
        """Whether not even readings differ from a sample that went on: nothing is to be judged."""
        sample, bands = self._resting.get(answer.uuid, (None, None))
        return (
            sample is before
            and before.readings is answer.readings
            and bands is self.bands
            and before.info is self._infos[answer.uuid]
            and not answer.listed
        )

    def _goes_on(self, before: Sample, answer: Answer) -> bool:
        """Whether only readings and times differ from the last sample, as at most ticks."""
        info, readings = before.info, answer.readings
        if (
            before.health is not Health.HEALTHY
            or answer.listed
            or readings.memory_used_bytes is None
            or before.verdict is not CLEAN
            or info is not self._infos[answer.uuid]
            or self.tally.still_open(answer.uuid)
            or not is_quiet(readings)
        ):
            return False
        standing = self._standings.get(answer.uuid)
        if standing is None or standing.after(self.bands, info, readings, answer.boottime) is not (
            standing
        ):
            return False
        return standing.told(self.bands) == (before.pressure, before.thermal)

    def _has_all(self) -> bool:
        """Whether each device has answered or missed its deadline, and no driver is awaited."""
        return self._awaited == frozenset() and self._samples.keys() >= self._infos.keys()

    def _mark(self, info: DeviceInfo, health: Health, reason: str, at: Instant) -> None:
        last = self._samples.get(info.uuid)
        if last is None:
            last = Sample(
                info=info,
                boottime=at.boottime,
                wall=at.wall,
                readings=Readings(),
                was_read=False,
            )
        pressure, thermal = self._judge_bands(info, Readings(), at.boottime)
        readings = last.readings
        if health is Health.LOST:  # all that is known of it now is why
            action = "reset" if reason == NEEDS_RESET else None
            readings = readings.changed(recovery_action=action)
        self._samples[info.uuid] = replace(
            last,
            readings=readings,
            health=health,
            health_reason=reason,
            pressure=pressure,
            thermal=thermal,
            vanished_boottime=self._vanished.get(info.uuid),
            verdict=self._verdict(info, health, readings, at.boottime),
            xids=self._xids_of(info),
            xids_before=self.tally.restored(info.uuid),
        )

    def _list_of(self, answer: Answer) -> _Listed:
        """The newest process list. One that was refused once says nothing of who is there."""
        uuid, last = answer.uuid, self._samples.get(answer.uuid)
        if answer.processes is not None:
            self._refusals.pop(uuid, None)
            return _Listed(
                processes=answer.processes,
                boottime=answer.boottime,
                wall=answer.wall,
                used_bytes=answer.readings.memory_used_bytes,
            )
        if answer.listed and not answer.refused:
            return _Listed(is_never=True)
        if last is not None and last.processes is not None:
            return _Listed(
                processes=last.processes,
                boottime=last.listed_boottime,
                wall=last.listed_wall,
                used_bytes=last.memory_used_at_list_bytes,
            )
        if answer.refused:
            self._refusals[uuid] = self._refusals.get(uuid, 0) + 1
        is_never = last is not None and last.never_lists
        return _Listed(is_never=is_never or self._refusals.get(uuid, 0) >= LISTS_AWAITED)

    def _judge_bands(
        self, info: DeviceInfo, readings: Readings, boottime: float
    ) -> tuple[Pressure | None, Thermal | None]:
        before = self._standings.get(info.uuid, Standing())
        standing = before.after(self.bands, info, readings, boottime)
        self._standings[info.uuid] = standing
        return standing.told(self.bands)

    def _verdict(
        self, info: DeviceInfo, health: Health, readings: Readings, boottime: float
    ) -> Verdict:
        known, silent_seconds = None if info.uuid in self._vanished else health, 0.0
        if known is Health.UNRESPONSIVE and (last := self._samples.get(info.uuid)) is not None:
            silent_seconds = boottime - last.boottime
        return judge(known, readings, self.tally.still_open(info.uuid), boottime, silent_seconds)

    def _xids_of(self, info: DeviceInfo) -> Mapping[int, int] | None:
        return self.tally.counts(info.uuid) if info.tells_xids else None

    def _judge_again(self, uuid: str, at: Instant) -> None:
        """With the errors as they are counted now; its readings stay those of its last sample."""
        last = self._samples.get(uuid)
        if last is not None:
            self._samples[uuid] = replace(
                last,
                verdict=self._verdict(last.info, last.health, last.readings, at.boottime),
                xids=self._xids_of(last.info),
            )

    def _judge_silent(self, at: Instant) -> None:
        """Nothing comes of a device that does not answer: it is judged again once that is long."""
        for uuid in tuple(self._silent):
            last = self._samples.get(uuid)
            if last is None or last.health is not Health.UNRESPONSIVE:
                self._silent.discard(uuid)
            elif at.boottime - last.boottime >= SILENT_SECONDS:
                self._silent.discard(uuid)
                self._judge_again(uuid, at)

    def _as_its_card(self, sample: Sample) -> Sample:
        """A MIG slice has no sensor of its own, and what its card meets it meets."""
        card = self._samples.get(sample.info.parent_uuid or "")
        if card is None or (card.thermal is sample.thermal and card.verdict == sample.verdict):
            return sample
        return replace(sample, thermal=card.thermal, verdict=card.verdict)

    def _number(self, info: DeviceInfo) -> None:
        if info.index is None or info.uuid in self._numbers:
            return
        self._numbers[info.uuid] = info.index
        if len(self._numbers) > MAX_NUMBERS:
            oldest = next((uuid for uuid in self._numbers if uuid not in self._infos), None)
            self._numbers.pop(oldest or "", None)


def _moved_on(before: Sample, answer: Answer) -> Sample:
    """The same with other readings, at another time."""
    return Sample(
        info=before.info,
        boottime=answer.boottime,
        wall=answer.wall,
        readings=answer.readings,
        processes=before.processes,
        listed_boottime=before.listed_boottime,
        listed_wall=before.listed_wall,
        memory_used_at_list_bytes=before.memory_used_at_list_bytes,
        never_lists=before.never_lists,
        pressure=before.pressure,
        thermal=before.thermal,
        pressure_events=before.pressure_events,
        verdict=before.verdict,
        xids=before.xids,
    )


def _judge(info: DeviceInfo, readings: Readings) -> tuple[Health, str]:
    if info.memory_total_bytes is None or readings.memory_used_bytes is None:
        return Health.UNKNOWN, REFUSES_MEMORY
    return Health.HEALTHY, ""


def _alias_order(info: DeviceInfo) -> tuple[bool, int]:
    return info.kind is DeviceKind.HOST, info.index if info.index is not None else 0
