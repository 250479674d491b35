"""Pure: what each device is charged with, by the one formula.

    grantable = total − reserve − Σ max(granted, observed) − foreign − unattributed − leaked

Its parts are disjoint and come from one tick in which used memory and the process list were read
together. Between lists growth fills grants below their promise first; the rest is unattributed.
A card in MIG mode has nothing of its own to grant: its slices have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from gpud.devices.snapshot import DeviceKind, Health, Sample
from gpud.ledger.books import DeviceBook

# A sample older than this says nothing about now.
STALE_SECONDS = 10.0
_NO_ANSWER = (Health.LOST, Health.UNRESPONSIVE)


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """The terms of the formula for one device. None: the device does not tell."""

    uuid: str
    alias: str
    total_bytes: int | None
    reserve_bytes: int
    granted_bytes: int
    observed_bytes: Mapping[str, int]  # by reservation id; only those with processes there
    charged_bytes: int  # Σ max(granted, observed)
    foreign_bytes: int | None
    unattributed_bytes: int | None
    leaked_bytes: int
    grantable_bytes: int | None
    # Used beyond all listed processes, at the list; None without a list.
    residue_bytes: int | None
    # Grown since the list beyond what grants explain: asks for a new list.
    unexplained_growth_bytes: int

    @property
    def room_bytes(self) -> int:
        """What promises could have of the device at most: all that is nobody else's."""
        others = (self.foreign_bytes or 0) + (self.unattributed_bytes or 0) + self.leaked_bytes
        return max(0, (self.total_bytes or 0) - self.reserve_bytes - others)


class Reckoning(msgspec.Struct, frozen=True, kw_only=True):
    """A charge, and what it was made from: while that is the same, so is the charge.

    A promise changes one device's book, and every promise asks for the terms of all devices.
    """

    sample: Sample
    book: DeviceBook
    version: int
    baseline_bytes: int
    charge: Charge

    def holds(self, sample: Sample, book: DeviceBook, baseline_bytes: int) -> bool:
        """Whether the charge of these would be the same."""
        return (
            self.book is book
            and self.version == book.version
            and self.baseline_bytes == baseline_bytes
            and (self.sample is sample or _same_figures(self.sample, sample))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserves:
    """What is kept free per device, in bytes."""

    device_bytes: int
    host_bytes: int

    def of(self, sample: Sample) -> int:
        """The reserve of a device: what policy says, or what its driver takes, if that is more."""
        if sample.info.kind is DeviceKind.HOST:
            return self.host_bytes
        return max(self.device_bytes, sample.readings.memory_driver_reserved_bytes or 0)


def _same_figures(one: Sample, other: Sample) -> bool:
    """Whether nothing that a charge is made from differs: a card at rest shows the same for hours.

    Lists are compared whole, but for one that is still the same.
    """
    return (
        one.readings.memory_used_bytes == other.readings.memory_used_bytes
        and one.memory_used_at_list_bytes == other.memory_used_at_list_bytes
        and one.readings.memory_driver_reserved_bytes
        == other.readings.memory_driver_reserved_bytes
        and (one.processes is other.processes or one.processes == other.processes)
        and (one.info is other.info or one.info == other.info)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What the newest process list says, by whose the bytes are."""

    observed: dict[str, int]  # by the promise that the process names
    carried: dict[str, int]  # by the promise whose bytes those are
    unsized: frozenset[str]  # promises with processes whose bytes are not told
    foreign_bytes: int
    residue_bytes: int | None


def charge(sample: Sample, book: DeviceBook, reserves: Reserves, baseline_bytes: int) -> Charge:
    """The terms for one device.

    `baseline_bytes` is the residue of the card when it was last seen empty, at most its reserve,
    which absorbs it.
    """
    seen = _seen(sample, book)
    used = sample.readings.memory_used_bytes
    total = sample.info.memory_total_bytes
    reserve = reserves.of(sample)
    overuse = sum(max(0, size - book.holders.get(id_, 0)) for id_, size in seen.carried.items())
    charged = book.granted_bytes + overuse
    unattributed, growth = _unattributed(sample, book, seen, baseline_bytes)
    foreign: int | None = seen.foreign_bytes
    if sample.info.kind is DeviceKind.HOST and unattributed is not None:
        # The rest of the system has no process list of its own: it is foreign, whoever it is.
        foreign, unattributed = seen.foreign_bytes + unattributed, 0
    grantable = None
    if total is not None and used is not None and unattributed is not None:
        held = reserve + charged + (foreign or 0) + unattributed + book.leaked_bytes
        grantable = 0 if sample.is_sliced else max(0, total - held)
    return Charge(
        uuid=sample.info.uuid,
        alias=sample.info.alias,
        total_bytes=total,
        reserve_bytes=reserve,
        granted_bytes=book.granted_bytes,
        observed_bytes=seen.observed,
        charged_bytes=charged,
        foreign_bytes=foreign if used is not None else None,
        unattributed_bytes=unattributed,
        leaked_bytes=book.leaked_bytes,
        grantable_bytes=grantable,
        residue_bytes=seen.residue_bytes,
        unexplained_growth_bytes=growth,
    )


def _seen(sample: Sample, book: DeviceBook) -> _Seen:
    observed: dict[str, int] = {}
    carried: dict[str, int] = {}
    unsized: set[str] = set()
    foreign = 0
    for process in sample.processes or ():
        size, claim = process.used_bytes or 0, process.claim
        carrier = book.carrier(claim)
        if claim is not None and carrier in book.holders:
            observed[claim] = observed.get(claim, 0) + size
            carried[carrier] = carried.get(carrier, 0) + size
            if process.used_bytes is None:
                unsized.add(carrier)
        else:
            foreign += size
    residue = None
    if sample.processes is not None and sample.memory_used_at_list_bytes is not None:
        known = foreign + sum(observed.values())
        residue = max(0, sample.memory_used_at_list_bytes - known)
    return _Seen(
        observed=observed,
        carried=carried,
        unsized=frozenset(unsized),
        foreign_bytes=foreign,
        residue_bytes=residue,
    )


def _unattributed(
    sample: Sample, book: DeviceBook, seen: _Seen, baseline_bytes: int
) -> tuple[int | None, int]:
    """Bytes that no process explains, and how many of them grew since the list."""
    used = sample.readings.memory_used_bytes
    if used is None:
        return None, 0
    # Summed over the few that have processes: there may be thousands that have none.
    below_promise = book.granted_bytes - sum(
        min(size, book.holders.get(id_, 0)) for id_, size in seen.carried.items()
    )
    absorbed = baseline_bytes + book.leaked_bytes
    if seen.residue_bytes is None:
        # No list at all: what is used fills the grants first.
        return max(0, used - absorbed - below_promise), 0
    residue = max(0, seen.residue_bytes - absorbed)
    explained = min(residue, _promised_residue(book, seen))
    grown = used - (sample.memory_used_at_list_bytes or 0)
    # What fills a promise at the list is not there for growth to fill again.
    unexplained = max(0, grown - max(0, below_promise - explained))
    return residue - explained + unexplained, unexplained


def _promised_residue(book: DeviceBook, seen: _Seen) -> int:
    """Bytes of no process with a size that promises may have, at most.

    What is left of an ended promise is its own until the device lets go. One that goes on may fill
    its promise anew beside what its processes left. Processes that are listed without a size (MIG,
    containers) may have filled what is left of their own promises, and of nobody else's.
    """
    left: dict[str, int] = {}
    for id_, size in book.releasing.items():
        is_there = id_ in seen.carried or id_ in seen.observed
        if not is_there and book.within.get(id_) not in book.releasing:
            carrier = book.within.get(id_, id_)
            left[carrier] = left.get(carrier, 0) + size
    unfilled = sum(
        max(0, book.holders[id_] - seen.carried[id_] - left.get(id_, 0)) for id_ in seen.unsized
    )
    return sum(left.values()) + unfilled


def is_stale(sample: Sample, now_boottime: float) -> bool:
    """Whether the sample is too old to decide on."""
    return now_boottime - sample.boottime > STALE_SECONDS


def is_current(sample: Sample, now_boottime: float) -> bool:
    """Whether its readings are what the device shows now: it answers, and has done so lately."""
    return sample.health not in _NO_ANSWER and not is_stale(sample, now_boottime)
