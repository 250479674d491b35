"""Pure: who may use which bytes. Each method decides and changes in one step.

The caller hands in time, ids and snapshots, and makes the returned Change durable, in the order of
the decisions. Admission sees every decision at once; everything else sees what became durable.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gpud.clock import Moment
from gpud.devices.snapshot import DeviceKind, Sample, Snapshot
from gpud.errors import (
    Reconciling,
    ReservationNotFound,
    SamplesStale,
    WrongState,
)
from gpud.events import Event
from gpud.ledger.books import Books
from gpud.ledger.change import Change, joined
from gpud.ledger.charge import (
    Charge,
    Reckoning,
    Reserves,
    charge,
    is_stale,
    refusal_rule,
)
from gpud.ledger.ending import (
    RESIDUE_SLACK_BYTES,
    begin_release,
    end_event,
    fence,
    finish,
    is_alive,
    leak_event,
    rebased,
    releasing_event,
    shortfall,
)
from gpud.ledger.placement import Candidate, eligible, place
from gpud.ledger.reservation import (
    Deadline,
    Grant,
    Reservation,
    ReservationKind,
    ReservationState,
    ReserveRequest,
)
from gpud.units import MIB, format_size

# More unexplained growth than this asks for a process list at the next tick.
UNEXPLAINED_BYTES = 64 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings:
    """The policy that the ledger decides by."""

    reserves: Reserves
    release_deadline_seconds: float


class Ledger:
    """The newest decisions. Synchronous: nothing can come between a check and its change."""

    def __init__(self, settings: LedgerSettings) -> None:
        self.books = Books()
        self._settings = settings
        self._snapshot: Snapshot | None = None
        self._baselines: dict[str, int] = {}
        self._reckonings: dict[str, Reckoning] = {}

    # Coming back.

    def restore(
        self, reservations: Iterable[Reservation], leaks: Iterable[tuple[str, int]], now: Moment
    ) -> Change:
        """Take in what was durable; after a reboot put deadlines on this boot's clock."""
        self.books = Books()
        changed = []
        for reservation in reservations:
            moved = rebased(reservation, now)
            self.books.put(moved)
            if moved != reservation:
                changed.append(moved)
        for uuid, leaked in leaks:
            self.books.set_leak(uuid, leaked)
        return Change(reservations=tuple(changed))

    # Deciding.

    def reserve(
        self, request: ReserveRequest, id_: str, now: Moment
    ) -> tuple[Reservation, Change]:
        """Promise bytes. Raises VramInsufficient, DeviceUnavailable, SamplesStale, Reconciling."""
        reservation = self.propose(request, id_, now)
        self.books.put(reservation)
        event = Event(
            wall=now.wall,
            type="reservation.granted",
            subject=reservation.name,
            actor=reservation.owner,
            details={
                "bytes": str(request.bytes),
                "devices": ",".join(grant.device for grant in reservation.grants),
                "kind": reservation.kind.value,
            },
        )
        return reservation, Change(reservations=(reservation,), events=(event,))

    def propose(self, request: ReserveRequest, id_: str, now: Moment) -> Reservation:
        """What reserve would grant, changing nothing. Raises as reserve does."""
        chosen = place(self._candidates(request, now), request)
        ttl = request.ttl_seconds
        return Reservation(
            id=id_,
            request=request,
            kind=ReservationKind.HELD if ttl is None else ReservationKind.LEASED,
            state=ReservationState.GRANTED,
            grants=tuple(Grant(device=uuid, bytes=request.bytes) for uuid in chosen),
            generation=1,
            created=Deadline.after(now, 0),
            ttl_seconds=ttl,
            deadline=None if ttl is None else Deadline.after(now, ttl),
            granted=Deadline.after(now, 0),
        )

    def renew(
        self, id_: str, generation: int | None, ttl_seconds: float | None, now: Moment
    ) -> tuple[Reservation, Change]:
        """Move the deadline. Raises ReservationNotFound, GenerationMismatch, WrongState."""
        reservation = self._granted(id_, generation)
        if reservation.kind is ReservationKind.HELD:
            raise WrongState(
                name=reservation.name, state="HELD", advice="it has no deadline; nothing to renew"
            )
        ttl = ttl_seconds or reservation.ttl_seconds or 0.0
        renewed = replace(reservation, ttl_seconds=ttl, deadline=Deadline.after(now, ttl))
        self.books.put(renewed)
        # A renewal is durable but no event: every owner does it all the time.
        return renewed, Change(reservations=(renewed,))

    def release(
        self, id_: str, generation: int | None, now: Moment, *, holder: bool = False
    ) -> tuple[Reservation, Change]:
        """End a promise; `holder` is the instance that a HELD one was made for.

        Raises ReservationNotFound, GenerationMismatch, WrongState. Releasing again what has
        ended, or is ending, answers with it and changes nothing.
        """
        reservation = self._find(id_)
        fence(reservation, generation)
        if reservation.state is not ReservationState.GRANTED:
            return reservation, Change()
        if reservation.kind is ReservationKind.HELD and not holder:
            raise WrongState(
                name=reservation.name,
                state="HELD",
                advice=f"it lives with instances/{reservation.instance}: "
                f"`gpuctl unload {reservation.instance}`",
            )
        return self._end(reservation, ReservationState.RELEASED, "released", now)

    def bind(self, id_: str) -> Change:
        """A process was started in it: from now on its bytes are free only once seen back."""
        reservation = self._find(id_)
        if reservation.bound:
            return Change()
        bound = replace(reservation, bound=True)
        self.books.put(bound)
        return Change(reservations=(bound,))

    def adopt(self, id_: str) -> Change:
        """Its holder was found again after a restart: earlier holders of the number are fenced."""
        reservation = self._find(id_)
        adopted = replace(reservation, generation=reservation.generation + 1)
        self.books.put(adopted)
        return Change(reservations=(adopted,))

    # Time and devices.

    def expire(self, now: Moment) -> Change:
        """End every lease whose deadline has come; forget what ended ten minutes ago."""
        changes = []
        for reservation in self.books.due(now):
            ended = reservation.ended
            if reservation.state is ReservationState.GRANTED:
                changes.append(self._end(reservation, ReservationState.EXPIRED, "expired", now)[1])
            elif ended is not None:
                self.books.drop(reservation.id)
                changes.append(Change(forgotten=(reservation.id,)))
        return joined(changes)

    def observe(self, snapshot: Snapshot, now: Moment) -> Change:
        """Take in what the devices show: bind, confirm bytes that came back, tell leaks."""
        self._snapshot = snapshot
        bound = joined([self._observe_device(sample, now) for sample in snapshot.samples])
        releasing = tuple(self.books.releasing.values())
        return joined([bound, *(self._follow_release(each, now) for each in releasing)])

    # Reading.

    def charges(self, books: Books | None = None) -> dict[str, Charge]:
        """Every device's terms by UUID, on the newest decisions or on another's books."""
        if self._snapshot is None:
            return {}
        return {
            sample.info.uuid: self._charge(sample, books or self.books)
            for sample in self._snapshot.samples
        }

    def charges_of(self, uuids: Iterable[str], books: Books) -> dict[str, Charge]:
        """The terms of some devices."""
        samples = [self._snapshot.find(uuid) for uuid in uuids] if self._snapshot else []
        return {s.info.uuid: self._charge(s, books) for s in samples if s is not None}

    def wants_list(self) -> bool:
        """Whether a process list is needed sooner than it would come."""
        if self.books.releasing:
            return True
        return any(
            terms.unexplained_growth_bytes > UNEXPLAINED_BYTES for terms in self.charges().values()
        )

    # Inside.

    def _candidates(self, request: ReserveRequest, now: Moment) -> list[Candidate]:
        snapshot = self._snapshot
        if snapshot is None or not snapshot.complete:
            raise Reconciling(waiting_for="the first sample of every device")
        candidates = []
        for sample in snapshot.samples:
            candidate = Candidate(
                charge=self._charge(sample, self.books),
                kind=sample.info.kind,
                rule=refusal_rule(sample, now.boottime),
            )
            candidates.append(candidate)
        self._refuse_stale(candidates, request, now)
        return candidates

    def _refuse_stale(
        self, candidates: list[Candidate], request: ReserveRequest, now: Moment
    ) -> None:
        """When nothing but stale samples is left to choose from, that is the reason to tell."""
        asked = [candidate for candidate in candidates if eligible(candidate, request)]
        if not asked or not all(candidate.rule for candidate in asked):
            return
        assert self._snapshot is not None  # noqa: S101 — candidates come from it
        samples = [self._snapshot.find(candidate.charge.uuid) for candidate in asked]
        stale = [s for s in samples if s is not None and is_stale(s, now.boottime)]
        if len(stale) == len(asked):
            raise SamplesStale(
                device=stale[0].info.alias, age_seconds=now.boottime - stale[0].boottime
            )

    def _charge(self, sample: Sample, books: Books) -> Charge:
        uuid = sample.info.uuid
        book, baseline = books.device(uuid), self._baselines.get(uuid, 0)
        known = self._reckonings.get(uuid)
        if known is None or not known.holds(sample, book, baseline):
            known = self._reckonings[uuid] = Reckoning(
                sample=sample,
                book=book,
                version=book.version,
                baseline_bytes=baseline,
                charge=charge(sample, book, self._settings.reserves, baseline),
            )
        return known.charge

    def _find(self, id_: str) -> Reservation:
        reservation = self.books.reservations.get(id_)
        if reservation is None:
            raise ReservationNotFound(name=f"reservations/{id_}")
        return reservation

    def _granted(self, id_: str, generation: int | None) -> Reservation:
        reservation = self._find(id_)
        fence(reservation, generation)
        if reservation.state is not ReservationState.GRANTED:
            raise WrongState(
                name=reservation.name,
                state=reservation.state.name,
                advice="reserve again (`gpuctl reserve`)",
            )
        return reservation

    def _end(
        self, reservation: Reservation, ending: ReservationState, reason: str, now: Moment
    ) -> tuple[Reservation, Change]:
        if not reservation.bound:
            return self._finish(reservation, ending, reason, now)
        terms = self.charges_of([grant.device for grant in reservation.grants], self.books)
        residues = {uuid: each.residue_bytes for uuid, each in terms.items()}
        deadline = Deadline.after(now, self._settings.release_deadline_seconds)
        begun = begin_release(reservation, ending, reason, residues, deadline)
        ended = replace(begun, ended=Deadline.after(now, 0))
        self.books.put(ended)
        return ended, Change(reservations=(ended,), events=(releasing_event(ended, now),))

    def _finish(
        self, reservation: Reservation, ending: ReservationState, reason: str, now: Moment
    ) -> tuple[Reservation, Change]:
        done = finish(reservation, ending, reason, now)
        self.books.put(done)
        return done, Change(reservations=(done,), events=(end_event(done, now),))

    def _observe_device(self, sample: Sample, now: Moment) -> Change:
        if sample.processes is None or sample.listed_boottime != sample.boottime:
            return Change()
        uuid = sample.info.uuid
        book = self.books.device(uuid)
        self._learn_baseline(sample)
        bound = [
            self.bind(process.claim)
            for process in sample.processes
            if process.claim in book.holders
        ]
        return joined([*bound, self._settle_leak(sample, now)])

    def _learn_baseline(self, sample: Sample) -> None:
        """The residue of an empty card is its driver's, and its reserve absorbs it."""
        uuid = sample.info.uuid
        book = self.books.device(uuid)
        if sample.processes or book.leaked_bytes or sample.info.kind is DeviceKind.HOST:
            return
        if any(self.books.reservations[id_].bound for id_ in book.holders):
            return
        used = sample.memory_used_at_list_bytes or 0
        self._baselines[uuid] = min(used, self._settings.reserves.of(sample))

    def _settle_leak(self, sample: Sample, now: Moment) -> Change:
        """What was leaked and is no longer used is grantable again."""
        uuid = sample.info.uuid
        leaked = self.books.device(uuid).leaked_bytes
        if not leaked:
            return Change()
        residue = self._charge(sample, self.books).residue_bytes
        left = min(leaked, max(0, (residue or 0) - self._baselines.get(uuid, 0)))
        left = left if left > RESIDUE_SLACK_BYTES else 0
        if left == leaked:
            return Change()
        self.books.set_leak(uuid, left)
        event = Event(
            wall=now.wall,
            type="device.leak_settled",
            subject=f"devices/{uuid}",
            reason=f"{format_size(leaked - left)} came back",
            details={"leaked_bytes": str(left)},
        )
        return Change(leaks=((uuid, left),), events=(event,))

    def _follow_release(self, reservation: Reservation, now: Moment) -> Change:
        shortfalls = [self._shortfall(reservation, grant) for grant in reservation.grants]
        ending = reservation.ending or ReservationState.RELEASED
        if all(shortfall == 0 for shortfall in shortfalls):
            return self._finish(reservation, ending, reservation.reason, now)[1]
        deadline = reservation.release_deadline
        alive = any(self._is_alive(reservation, grant) for grant in reservation.grants)
        if alive or deadline is None or deadline.remaining_seconds(now) > 0:
            return Change()
        changes = [self._finish(reservation, ending, "ended with bytes leaked", now)[1]]
        for grant, missing in zip(reservation.grants, shortfalls, strict=True):
            if missing != 0:
                size = grant.bytes if missing is None else min(missing, grant.bytes)
                changes.append(self._leak(reservation, grant.device, size, now))
        return joined(changes)

    def _leak(self, reservation: Reservation, uuid: str, size: int, now: Moment) -> Change:
        leaked = self.books.device(uuid).leaked_bytes + size
        self.books.set_leak(uuid, leaked)
        event = leak_event(reservation, uuid, size, leaked, now)
        return Change(leaks=((uuid, leaked),), events=(event,))

    def _shortfall(self, reservation: Reservation, grant: Grant) -> int | None:
        sample = self._snapshot.find(grant.device) if self._snapshot else None
        if sample is None:
            return None
        return shortfall(reservation, grant, sample, self._charge(sample, self.books))

    def _is_alive(self, reservation: Reservation, grant: Grant) -> bool:
        sample = self._snapshot.find(grant.device) if self._snapshot else None
        return sample is not None and is_alive(reservation, sample)
