"""Goes through each new list of processes: tells who trespasses and who over-uses, ends who must.

A case is told when it begins and when it ends. What is known of cases is in memory alone: after a
restart of the daemon those that still stand are told again.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from gpud.clock import Clock
from gpud.devices.snapshot import ProcessUse, Sample, Snapshot
from gpud.enforcement.attachment import AttachmentKeeper
from gpud.enforcement.proof import Gone, Held, Unproved, hold
from gpud.enforcement.relations import (
    Overuse,
    Related,
    Relation,
    overuses,
    relations,
    slices_of,
)
from gpud.enforcement.telling import tell
from gpud.events import Event
from gpud.feed import Feed
from gpud.ledger.books import Books
from gpud.promises.promises import Promises
from gpud.units import format_size

log = structlog.get_logger()

TRESPASS, OVERUSE = "device.trespass", "reservation.overuse"
# From SIGTERM to SIGKILL.
GRACE_SECONDS = 5.0

ProcessKey = tuple[int, int | None]
CaseKey = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offence:
    """What a list shows to be wrong: one trespasser, or one promise that holds too much."""

    key: CaseKey
    type: str
    subject: str
    reason: str
    details: dict[str, str]
    processes: tuple[ProcessUse, ...]
    instance: str | None = None  # whose over-use it is


@dataclass(slots=True)
class Case:
    """An offence that goes on, and the processes that were opened for it."""

    offence: Offence
    held: dict[ProcessKey, Held] = field(default_factory=dict)
    spared: set[ProcessKey] = field(default_factory=set)
    is_instance_stopped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PatrolSeams:
    """What the patrol reads and acts through."""

    promises: Promises
    snapshots: Feed[Snapshot]
    clock: Clock
    attachments: AttachmentKeeper
    list_soon: Callable[[], None]
    # Has an instance stopped, with the reason.
    stop_instance: Callable[[str, str], None]


class Patrol:
    """Reports, and ends what `ends` names (TRESPASS, OVERUSE), by the rules of proof.py."""

    def __init__(self, seams: PatrolSeams, ends: frozenset[str]) -> None:
        self._seams = seams
        self.ends = ends
        self._cases: dict[str, dict[CaseKey, Case]] = {}
        self._listed: dict[str, float] = {}
        # Sent SIGTERM, to be sent SIGKILL.
        self._ending: list[tuple[Held, Offence]] = []
        self._has_ending = asyncio.Event()

    async def run(self) -> None:
        """Look at every snapshot until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._climb())
                async for _, snapshot in self._seams.snapshots.follow():
                    self.observe(snapshot)
        finally:
            for held in self._all_held():
                held.close()

    def observe(self, snapshot: Snapshot) -> None:
        """Take in what is new in a snapshot."""
        fresh = [sample for sample in snapshot.samples if self._is_fresh(sample)]
        attachments, books = self._seams.attachments, self._seams.promises.durable
        if fresh:
            attachments.refresh()
        for sample in map(attachments.applied, fresh):
            slices = slices_of(sample, snapshot.samples)
            self._take(sample, snapshot, tuple(offences(sample, books, slices)))
        present = {sample.info.uuid for sample in snapshot.samples}
        self._listed = {uuid: at for uuid, at in self._listed.items() if uuid in present}
        for uuid in self._cases.keys() - present:
            for case in self._cases.pop(uuid).values():
                self._close(case, "the device is gone")

    def _is_fresh(self, sample: Sample) -> bool:
        """Whether its list is one that was not seen yet."""
        uuid, listed = sample.info.uuid, sample.listed_boottime
        if sample.processes is None or listed is None or self._listed.get(uuid) == listed:
            return False
        self._listed[uuid] = listed
        return True

    def _take(self, sample: Sample, snapshot: Snapshot, found: tuple[Offence, ...]) -> None:
        cases = self._cases.setdefault(sample.info.uuid, {})
        for key in cases.keys() - {offence.key for offence in found}:
            self._close(cases.pop(key), "the newest list shows it no more")
        for offence in found:
            case = cases.get(offence.key)
            if case is None:
                case = cases[offence.key] = Case(offence)
                self._post(offence.type, offence, offence.reason, offence.details)
            case.offence = offence
            if offence.type in self.ends:
                self._end(case, sample, snapshot)

    def _close(self, case: Case, why: str) -> None:
        offence = case.offence
        for held in case.held.values():
            _let_go(held)
        self._post(f"{offence.type}.ended", offence, f"{why}: {offence.reason}", offence.details)

    # Ending.

    def _end(self, case: Case, sample: Sample, snapshot: Snapshot) -> None:
        offence = case.offence
        if offence.type == OVERUSE and offence.instance is not None:
            if not case.is_instance_stopped:
                case.is_instance_stopped = True
                self._seams.stop_instance(offence.instance, offence.reason)
            return
        listed = {(each.pid, each.start_time): each for each in offence.processes}
        for key in case.held.keys() - listed.keys():
            _let_go(case.held.pop(key))
        for key, process in listed.items():
            if key in case.spared:
                continue
            try:
                self._pursue(case, key, process, (sample, snapshot))
            except Unproved as refusal:
                case.spared.add(key)
                self._spare(case, key, process, str(refusal))

    def _pursue(
        self, case: Case, key: ProcessKey, process: ProcessUse, seen: tuple[Sample, Snapshot]
    ) -> None:
        """Open it and have the list read that may prove it; with that, end it. Raises Unproved."""
        sample, snapshot = seen
        held = case.held.get(key)
        if held is None:
            if case.offence.instance is not None:
                raise Unproved(f"it belongs to instances/{case.offence.instance}")
            with suppress(Gone):
                case.held[key] = hold(process, sample.info.kind, self._seams.clock)
                self._seams.list_soon()
        elif held.signalled_boottime is None and self._proves(sample, snapshot, held):
            if held.has_ended() or not held.send(signal.SIGTERM):
                # Whoever has its pid by now was never opened: with the next list he is.
                self._spare(case, key, process, "it has ended by itself")
                return
            self._ended(held, case.offence, sample.listed_boottime or 0.0)

    def _proves(self, sample: Sample, snapshot: Snapshot, held: Held) -> bool:
        """Whether this list was read after the opening, and knows all attachments."""
        settled = self._seams.attachments.settled_boottime
        return snapshot.boottime > settled and held.is_proved_by(sample, snapshot)

    def _ended(self, held: Held, offence: Offence, listed: float) -> None:
        held.signalled_boottime = self._seams.clock.now().boottime
        self._ending.append((held, offence))
        self._has_ending.set()
        proof = (
            f"opened at {held.opened_boottime:.3f} s of this boot with start time "
            f"{held.start_time}, and listed again at {listed:.3f} s while it lived"
        )
        self._tell_ended(held, offence, signal.SIGTERM, proof)

    async def _climb(self) -> None:
        """SIGKILL for those that SIGTERM did not end."""
        while True:
            if not self._ending:
                self._has_ending.clear()
                await self._has_ending.wait()
            held, offence = self._ending[0]
            due = (held.signalled_boottime or 0.0) + GRACE_SECONDS
            pause = due - self._seams.clock.now().boottime
            if pause > 0:
                await self._seams.clock.sleep(pause)
            self._ending.pop(0)
            self._kill(held, offence)
            held.close()

    def _kill(self, held: Held, offence: Offence) -> None:
        try:
            if held.has_ended() or not held.send(signal.SIGKILL):
                return
        except Unproved as refusal:
            details = offence.details | {"pid": str(held.pid)}
            self._post("process.spared", offence, f"not ended: {refusal}", details)
            return
        proof = f"SIGTERM did not end it within {GRACE_SECONDS:g} s; held by its pidfd since"
        self._tell_ended(held, offence, signal.SIGKILL, proof)

    def _spare(self, case: Case, key: ProcessKey, process: ProcessUse, why: str) -> None:
        held = case.held.pop(key, None)
        if held is not None:
            held.close()
        details = case.offence.details | _described(process)
        self._post("process.spared", case.offence, f"not ended: {why}", details)

    # Telling.

    def _tell_ended(
        self, held: Held, offence: Offence, number: signal.Signals, proof: str
    ) -> None:
        details = offence.details | {
            "pid": str(held.pid),
            "start_time": str(held.start_time),
            "signal": number.name,
            "proof": proof,
        }
        reason = f"{number.name} to {held.pid}: {offence.reason}"
        self._post("process.terminated", offence, reason, details)

    def _post(self, type_: str, offence: Offence, reason: str, details: dict[str, str]) -> None:
        event = Event(
            wall=self._seams.clock.now().wall,
            type=type_,
            subject=offence.subject,
            reason=reason,
            details=details,
        )
        tell(self._seams.promises, event)

    def _all_held(self) -> Iterator[Held]:
        yield from (held for held, _ in self._ending)
        for cases in self._cases.values():
            for case in cases.values():
                yield from (h for h in case.held.values() if h.signalled_boottime is None)


def offences(
    sample: Sample, books: Books, slices: frozenset[str] = frozenset()
) -> Iterator[Offence]:
    """What the newest list of a device shows to be wrong."""
    for related in relations(sample, books, slices):
        if related.relation is Relation.TRESPASSER:
            yield _trespass(related, sample, books)
    for overuse in overuses(sample, books):
        yield _overuse(overuse, sample, books)


def _trespass(related: Related, sample: Sample, books: Books) -> Offence:
    process, uuid = related.process, sample.info.uuid
    against = related.against
    own = f"; it belongs to reservations/{related.reservation}" if related.reservation else ""
    whose = (
        f"which reservations/{against} has alone" if against else "which its promise leaves out"
    )
    size = "" if process.used_bytes is None else f" with {format_size(process.used_bytes)}"
    details = _described(process) | {"device": f"devices/{uuid}"}
    details |= {"against": f"reservations/{against}"} if against else {}
    details |= {"reservation": f"reservations/{related.reservation}"} if own else {}
    return Offence(
        key=(TRESPASS, str(process.pid), str(process.start_time), against or ""),
        type=TRESPASS,
        subject=f"devices/{uuid}",
        reason=f"{_who(process)} is on {sample.info.alias}{size}, {whose}{own}",
        details=details,
        processes=(process,),
        instance=_instance(related.reservation, books),
    )


def _overuse(overuse: Overuse, sample: Sample, books: Books) -> Offence:
    name = f"reservations/{overuse.reservation}"
    many = ", ".join(_who(process) for process in overuse.processes[:8])
    more = len(overuse.processes) - 8
    return Offence(
        key=(OVERUSE, overuse.reservation),
        type=OVERUSE,
        subject=name,
        reason=f"{name} holds {format_size(overuse.observed_bytes)} of {sample.info.alias}, "
        f"promised are {format_size(overuse.granted_bytes)}: {many}"
        + (f" and {more} more" if more > 0 else ""),
        details={
            "device": f"devices/{overuse.device}",
            "granted_bytes": str(overuse.granted_bytes),
            "observed_bytes": str(overuse.observed_bytes),
            "pids": _joined(process.pid for process in overuse.processes),
        },
        processes=overuse.processes,
        instance=_instance(overuse.reservation, books),
    )


def _let_go(held: Held) -> None:
    """Close what was opened; one that was sent SIGTERM is the ladder's to close."""
    if held.signalled_boottime is None:
        held.close()


def _instance(id_: str | None, books: Books) -> str | None:
    reservation = books.reservations.get(id_ or "")
    return reservation.instance if reservation is not None else None


def _who(process: ProcessUse) -> str:
    return f"{process.process_name or 'a process'} ({process.pid})"


def _described(process: ProcessUse) -> dict[str, str]:
    size = "" if process.used_bytes is None else str(process.used_bytes)
    return {"pid": str(process.pid), "process_name": process.process_name, "bytes": size}


def _joined(pids: Iterable[int]) -> str:
    return ",".join(str(pid) for pid in pids)
