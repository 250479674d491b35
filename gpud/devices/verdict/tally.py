"""Pure: the Xids of each device, and those that still count, also over a restart of gpud."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """How often a number came since somebody last said that it is dealt with, and when last.

    `total` counts on over that: no two errors of a device have the same.
    """

    count: int
    boottime: float
    total: int


class Tally:
    """Counts by device UUID; it outlives the sampling processes that report them.

    Where several errors come at once, NVML tells the number of the last for each of them
    (nvml.h, nvmlEventSetWait): the count is right, the numbers may not be.
    """

    def __init__(self) -> None:
        self._counts: dict[str, dict[int, int]] = {}
        self._open: dict[str, dict[int, Open]] = {}
        self._restored: dict[str, dict[int, int]] = {}

    def take(self, uuid: str, numbers: Iterable[int], boottime: float) -> None:
        """Errors that were reported at `boottime` seconds."""
        counts = self._counts.setdefault(uuid, {})
        still = self._open.setdefault(uuid, {})
        for number in numbers:
            counts[number] = counts.get(number, 0) + 1
            before = still[number].count if number in still else 0
            still[number] = Open(count=before + 1, boottime=boottime, total=counts[number])

    def restore(self, uuid: str, kept: Mapping[int, Open]) -> None:
        """Errors that an earlier life of gpud told, in this boot, and nobody has dealt with."""
        counts = self._counts.setdefault(uuid, {})
        still = self._open.setdefault(uuid, {})
        for number, each in kept.items():
            if number not in still:
                still[number] = each
                counts[number] = max(each.total, counts.get(number, 0))
                self._restored.setdefault(uuid, {})[number] = each.total

    def restored(self, uuid: str) -> Mapping[int, int] | None:
        """How often each of these came, where there are any."""
        return self._restored.get(uuid)

    def settle(self, uuid: str) -> None:
        """What came so far is dealt with: it stays counted, and speaks against it no more."""
        self._open.pop(uuid, None)

    def forget(self, uuid: str) -> None:
        """Nothing is known of it: what comes once it is back is all that came."""
        for kept in (self._counts, self._open, self._restored):
            kept.pop(uuid, None)

    def counts(self, uuid: str) -> Mapping[int, int]:
        """By number; a copy, for a snapshot to keep."""
        known = self._counts.get(uuid)
        return dict(known) if known else _NONE

    def still_open(self, uuid: str) -> Mapping[int, Open]:
        """What is not dealt with, by number."""
        return self._open.get(uuid, _NOTHING)

    def all_counts(self) -> dict[str, dict[int, int]]:
        """By device and number."""
        return {uuid: dict(counts) for uuid, counts in self._counts.items()}


_NONE: Mapping[int, int] = MappingProxyType({})
_NOTHING: Mapping[int, Open] = MappingProxyType({})
