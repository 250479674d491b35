"""Pure: what concurrent clients were told, and the order in which the daemon says it happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A reservation as an answer showed it. `expire_ns` is its lease's end on the wall clock."""

    name: str
    state: str
    generation: int
    grants: tuple[tuple[str, int], ...]  # device, bytes
    expire_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A refusal with its facts."""

    code: str
    reason: str
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """Bytes on each of `count` devices, any or of those named."""

    bytes: int
    count: int
    devices: tuple[str, ...]
    answer: Seen | Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Renew:
    """`generation` is what the caller claimed."""

    name: str
    generation: int | None
    answer: Seen | Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """As Renew."""

    name: str
    generation: int | None
    answer: Seen | Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Get:
    """One reservation."""

    name: str
    answer: Seen | Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class List:
    """All that are granted, on one page."""

    answer: tuple[Seen, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """Bytes granted on each device."""

    answer: Mapping[str, int]


Call: TypeAlias = Reserve | Renew | Release | Get | List | Devices


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A call between two readings of one clock, in nanoseconds."""

    begin_ns: int
    end_ns: int
    call: Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of the journal that books or frees bytes. `ending` is empty for a grant."""

    name: str
    ending: str
    wall_ns: int
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All of a run: calls in any order, the journal in the order of commits.

    `capacities` is each device's memory without its reserve, `aliases` its other name.
    """

    capacities: Mapping[str, int]
    aliases: Mapping[str, str]
    operations: tuple[Operation, ...]
    journal: tuple[Entry, ...]
