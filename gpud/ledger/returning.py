"""Pure: bytes on their way back. They are free once the device shows them, never before."""

from __future__ import annotations

from msgspec.structs import replace

from gpud.clock import Moment
from gpud.devices.snapshot import Sample, Snapshot
from gpud.events import Event
from gpud.ledger.books import Books
from gpud.ledger.change import Change, joined
from gpud.ledger.ending import (
    RESIDUE_SLACK_BYTES,
    begin_release,
    end_event,
    finish,
    is_alive,
    leak_event,
    releasing_event,
    shortfall,
)
from gpud.ledger.reservation import Deadline, Grant, Reservation, ReservationState
from gpud.ledger.sight import Lag, Sight
from gpud.units import format_size


class Returning:
    """Ends promises, and follows their bytes until they are free or leaked."""

    def __init__(self, books: Books, sight: Sight, release_deadline_seconds: float) -> None:
        self._books = books
        self._sight = sight
        self.deadline_seconds = release_deadline_seconds
        self._lag = Lag()
        self._leaked_boottime: dict[str, float] = {}  # by device, when bytes of it leaked last

    def end(
        self, reservation: Reservation, ending: ReservationState, reason: str, now: Moment
    ) -> tuple[Reservation, Change]:
        """End a promise, or a wait for one; its bytes are free at once if nothing ran in it."""
        if ending is ReservationState.REVOKED:
            # Its former holder is fenced from the first moment.
            reservation = replace(reservation, generation=reservation.generation + 1)
        reservation = replace(reservation, notice=None)
        if not reservation.bound and not self.carries(reservation):
            return self._finish(reservation, ending, reason, now)
        devices = [grant.device for grant in reservation.grants]
        terms = self._sight.charges_of(devices, self._books)
        # What its processes left before is on its way back too, and was not there before it.
        residues = {
            uuid: each.residue_bytes
            and max(0, each.residue_bytes - self._lag.of(uuid, reservation.id))
            for uuid, each in terms.items()
        }
        deadline = Deadline.after(now, self.deadline_seconds)
        begun = begin_release(reservation, ending, reason, residues, deadline)
        ended = replace(begun, ended=Deadline.after(now, 0))
        self._books.put(ended)
        return ended, Change(reservations=(ended,), events=(releasing_event(ended, now),))

    def bind(self, id_: str) -> Change:
        """A process runs in it: from now on its bytes are free only once seen back."""
        reservation = self._books.reservations[id_]
        outer = self.bind(reservation.within) if reservation.within is not None else Change()
        if reservation.bound:
            return outer
        bound = replace(reservation, bound=True)
        self._books.put(bound)
        return joined([outer, Change(reservations=(bound,))])

    def observe(self, snapshot: Snapshot, now: Moment) -> Change:
        """Take in a snapshot: bind, confirm bytes that came back, tell leaks."""
        self._sight.look(snapshot)
        if snapshot.complete:
            self._books.forget_devices(self._sight.devices)
            self._lag.keep(self._sight.devices)
        seen = [self._observe_device(sample, now) for sample in snapshot.samples]
        releasing = tuple(self._books.releasing.values())
        return joined([*seen, *(self._follow(each, now) for each in releasing)])

    def _observe_device(self, sample: Sample, now: Moment) -> Change:
        if sample.processes is None or sample.listed_boottime != sample.boottime:
            return Change()
        uuid = sample.info.uuid
        book, terms = self._books.device(uuid), self._sight.terms(sample, self._books)
        self._lag.look(uuid, terms.observed_bytes, terms.residue_bytes)
        if not self._lag.on(uuid):
            self._sight.learn_baseline(sample, self._books)
        bound = [
            self.bind(process.claim)
            for process in sample.processes
            if process.claim is not None and book.carrier(process.claim) in book.holders
        ]
        return joined([*bound, self._settle_leak(sample, now)])

    def _settle_leak(self, sample: Sample, now: Moment) -> Change:
        """What was leaked and is no longer used is grantable again."""
        uuid = sample.info.uuid
        leaked = self._books.device(uuid).leaked_bytes
        # One that answers no more is shown with its last list again: that tells nothing since.
        if not leaked or sample.boottime <= self._leaked_boottime.get(uuid, float("-inf")):
            return Change()
        residue = self._sight.terms(sample, self._books).residue_bytes
        left = min(leaked, max(0, (residue or 0) - self._sight.baseline(uuid)))
        left = left if left > RESIDUE_SLACK_BYTES else 0
        if left == leaked:
            return Change()
        self._books.set_leak(uuid, left)
        event = Event(
            wall=now.wall,
            type="device.leak_settled",
            subject=f"devices/{uuid}",
            reason=f"{format_size(leaked - left)} came back",
            details={"leaked_bytes": str(left)},
        )
        return Change(leaks=((uuid, left),), events=(event,))

    def _follow(self, reservation: Reservation, now: Moment) -> Change:
        if self.carries(reservation):
            return Change()
        shortfalls = [self._shortfall(reservation, grant) for grant in reservation.grants]
        ending = reservation.ending or ReservationState.RELEASED
        if all(shortfall == 0 for shortfall in shortfalls):
            return self._finish(reservation, ending, reservation.reason, now)[1]
        deadline = reservation.release_deadline
        alive = any(self._is_alive(reservation, grant) for grant in reservation.grants)
        if alive or deadline is None or deadline.remaining_seconds(now) > 0:
            return Change()
        missing = {
            grant.device: grant.bytes if short is None else min(short, grant.bytes)
            for grant, short in zip(reservation.grants, shortfalls, strict=True)
            if short != 0
        }
        if reservation.within is not None:
            return self._stay_inside(reservation, missing, now)
        changes = [self._finish(reservation, ending, "ended with bytes leaked", now)[1]]
        changes += [self._leak(reservation, uuid, size, now) for uuid, size in missing.items()]
        return joined(changes)

    def _stay_inside(
        self, reservation: Reservation, missing: dict[str, int], now: Moment
    ) -> Change:
        """What leaks inside a standing reservation is its own: the rest of it stays smaller."""
        staying = replace(reservation, release_deadline=None)
        self._books.put(staying)
        events = tuple(
            leak_event(reservation, uuid, size, self._books.device(uuid).leaked_bytes, now)
            for uuid, size in missing.items()
        )
        return Change(reservations=(staying,), events=events)

    def _leak(self, reservation: Reservation, uuid: str, size: int, now: Moment) -> Change:
        leaked = self._books.device(uuid).leaked_bytes + size
        self._books.set_leak(uuid, leaked)
        self._leaked_boottime[uuid] = now.boottime
        self._lag.settle(uuid, reservation.id)
        event = leak_event(reservation, uuid, size, leaked, now)
        return Change(leaks=((uuid, leaked),), events=(event,))

    def _finish(
        self, reservation: Reservation, ending: ReservationState, reason: str, now: Moment
    ) -> tuple[Reservation, Change]:
        done = finish(reservation, ending, reason, now)
        self._books.put(done)
        return done, Change(reservations=(done,), events=(end_event(done, now),))

    def carries(self, reservation: Reservation) -> bool:
        """Whether promises lie within it: then it ends after them."""
        return any(
            reservation.id in self._books.device(grant.device).within.values()
            for grant in reservation.grants
        )

    def _shortfall(self, reservation: Reservation, grant: Grant) -> int | None:
        sample = self._sight.sample(grant.device)
        if sample is None:
            return None
        return shortfall(reservation, grant, sample, self._sight.terms(sample, self._books))

    def _is_alive(self, reservation: Reservation, grant: Grant) -> bool:
        sample = self._sight.sample(grant.device)
        return sample is not None and is_alive(reservation, sample)
