"""Pure: what each process on a device is to the promises there, and who takes more than promised.

The host's RAM is everybody's: nobody trespasses there, and a process of a GPU's promise is merely
foreign to it. A card in MIG mode lists the processes of its slices: those are what is held.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from gpud.devices.snapshot import DeviceKind, ProcessUse, Sample
from gpud.ledger.books import Books
from gpud.ledger.reservation import Reservation
from gpud.units import MIB

# As much as the ledger lets pass unexplained: drivers round up to pages of 2 MiB, and a context
# grows by some tens of MiB when a library loads another kernel.
OVERUSE_SLACK_BYTES = 64 * MIB


class Relation(enum.Enum):
    """What a process on a device is to gpud."""

    OWNER = "owner"  # inside a promise here, by its environment or its ancestors
    ATTACHED = "attached"  # inside a promise here, by pid or cgroup
    FOREIGN = "foreign"  # holds no promise here, and takes nobody's device
    TRESPASSER = "trespasser"  # on what is another's alone, or what its promise leaves out


@dataclass(frozen=True, slots=True, kw_only=True)
class Related:
    """One process on one device.

    `reservation` is the live promise that it belongs to, here or elsewhere. `against`: of a
    trespasser, the promise that has the device alone; None where it only is not where it belongs.
    """

    process: ProcessUse
    relation: Relation
    reservation: str | None
    against: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overuse:
    """A promise whose processes hold more of a device than was promised; bytes."""

    device: str
    reservation: str
    granted_bytes: int
    observed_bytes: int
    processes: tuple[ProcessUse, ...]


def slices_of(sample: Sample, samples: Iterable[Sample]) -> frozenset[str]:
    """UUIDs of the MIG slices of this card."""
    uuid = sample.info.uuid
    return frozenset(each.info.uuid for each in samples if each.info.parent_uuid == uuid)


def relations(
    sample: Sample, books: Books, slices: frozenset[str] = frozenset()
) -> tuple[Related, ...]:
    """What each process of the newest list is; `slices` are the device's own."""
    return tuple(_relate(process, sample, books, slices) for process in sample.processes or ())


def belonging(process: ProcessUse, reservation: Reservation) -> Related:
    """What a process of a promise is on one of its devices; of an ended one it is foreign."""
    relation = Relation.ATTACHED if process.attached else Relation.OWNER
    if not reservation.booked:
        relation = Relation.FOREIGN
    return Related(process=process, relation=relation, reservation=reservation.id)


def overuses(sample: Sample, books: Books) -> tuple[Overuse, ...]:
    """Promises that hold more of this device than theirs and the slack.

    A process whose bytes the driver does not tell counts none. What is promised inside a standing
    reservation is not its own processes' to use. The RAM beside an instance's card is an estimate
    of ours: what it takes above is charged, and no offence.
    """
    found: dict[str, list[ProcessUse]] = {}
    for process in sample.processes or ():
        if process.claim is not None and _covers(process.claim, sample, books, frozenset()):
            found.setdefault(process.claim, []).append(process)
    judged = []
    for id_, processes in found.items():
        observed = sum(process.used_bytes or 0 for process in processes)
        over = excess_bytes(id_, sample.info.uuid, observed, books)
        if over:
            judged.append(
                Overuse(
                    device=sample.info.uuid,
                    reservation=id_,
                    granted_bytes=observed - over,
                    observed_bytes=observed,
                    processes=tuple(processes),
                )
            )
    return tuple(judged)


def excess_bytes(id_: str, uuid: str, observed_bytes: int, books: Books) -> int:
    """How much more than its own a promise holds of a device; 0 where that is no over-use."""
    granted = _granted_bytes(id_, uuid, books)
    if _is_estimate(id_, uuid, books) or observed_bytes <= granted + OVERUSE_SLACK_BYTES:
        return 0
    return observed_bytes - granted


def _is_estimate(id_: str, uuid: str, books: Books) -> bool:
    held = books.reservations[id_]
    beside = any(grant.beside and grant.device == uuid for grant in held.grants)
    return held.instance is not None and beside


def _relate(process: ProcessUse, sample: Sample, books: Books, slices: frozenset[str]) -> Related:
    claimed = books.reservations.get(process.claim or "")
    live = claimed.id if claimed is not None and claimed.booked else None
    exclusive = books.device(sample.info.uuid).exclusive
    if live is not None and _covers(live, sample, books, slices):
        relation = Relation.ATTACHED if process.attached else Relation.OWNER
        return Related(process=process, relation=relation, reservation=live)
    is_held_itself = sample.info.kind is not DeviceKind.HOST and not sample.readings.mig_enabled
    if is_held_itself and (exclusive is not None or live is not None):
        return Related(
            process=process, relation=Relation.TRESPASSER, reservation=live, against=exclusive
        )
    return Related(process=process, relation=Relation.FOREIGN, reservation=live)


def _covers(id_: str, sample: Sample, books: Books, slices: frozenset[str]) -> bool:
    """Whether this promise is one on the device, or on a slice of it."""
    books_here = (books.device(uuid) for uuid in (sample.info.uuid, *slices))
    return any(id_ in book.holders or id_ in book.within for book in books_here)


def _granted_bytes(id_: str, uuid: str, books: Books) -> int:
    """What its own processes may hold on the device."""
    grants = books.reservations[id_].grants
    granted = sum(grant.bytes for grant in grants if grant.device == uuid)
    return granted - sum(books.inside(id_, uuid).values())
