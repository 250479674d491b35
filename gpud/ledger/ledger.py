"""Pure: who may use which bytes. Each method decides and changes in one step.

The caller hands in time, ids and snapshots, and makes the returned Change durable, in the order of
the decisions. Admission sees every decision at once; everything else sees what became durable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from gpud.clock import Moment
from gpud.devices.snapshot import Snapshot
from gpud.errors import (
    DeviceUnavailable,
    GpudError,
    VramInsufficient,
    WrongState,
)
from gpud.ledger import telling
from gpud.ledger.admission.admission import Admission, Fit, never_fits
from gpud.ledger.admission.policy import LedgerSettings
from gpud.ledger.admission.preemption import Preemption
from gpud.ledger.admission.queue import Line, in_order
from gpud.ledger.books import Books, Cordon
from gpud.ledger.change import Change, joined
from gpud.ledger.ending import fence, rebased
from gpud.ledger.reading import Reader
from gpud.ledger.reservation import (
    Attachment,
    Deadline,
    Enforcement,
    Notice,
    Reservation,
    ReservationKind,
    ReservationState,
    ReserveRequest,
)
from gpud.ledger.returning import Returning


class Ledger(Reader):
    """The newest decisions. Synchronous: nothing can come between a check and its change."""

    def __init__(self, settings: LedgerSettings) -> None:
        super().__init__(settings)
        self._open_books()

    def configure(self, settings: LedgerSettings) -> None:
        """Decide by other settings from now on; what is promised stays so, whatever they say."""
        super().configure(settings)
        self._returning.deadline_seconds = settings.release_deadline_seconds

    def _open_books(self) -> None:
        self.books = Books()
        deadline = self.settings.release_deadline_seconds
        self._returning = Returning(self.books, self._sight, deadline)

    # Coming back.

    def restore(
        self,
        reservations: Iterable[Reservation],
        leaks: Iterable[tuple[str, int]],
        now: Moment,
        cordons: Mapping[str, Cordon] | None = None,
    ) -> Change:
        """Take in what was durable; after a reboot put deadlines on this boot's clock."""
        self._open_books()
        changed = []
        for reservation in sorted(reservations, key=lambda each: each.created.wall):
            moved = rebased(reservation, now)
            self.books.put(moved)
            if moved != reservation:
                changed.append(moved)
        for uuid, leaked in leaks:
            self.books.set_leak(uuid, leaked)
        for uuid, cordon in (cordons or {}).items():
            self.books.set_cordon(uuid, cordon)
        return Change(reservations=tuple(changed))

    # Deciding.

    def reserve(
        self, request: ReserveRequest, id_: str, now: Moment
    ) -> tuple[Reservation, Change]:
        """Promise bytes, or let the request wait for them.

        Raises VramInsufficient, DeviceUnavailable, SamplesStale, Reconciling, QuotaExceeded,
        QueueFull, DeviceNotFound, ReservationNotFound, WrongState.
        """
        decided = self.propose(request, id_, now)
        self.books.put(decided)
        if decided.queued:
            why = self.why_waiting(decided, now)
            change = Change(reservations=(decided,), events=(telling.queued(decided, why, now),))
            # For a higher class somebody may have to go.
            return decided, joined([change, self.serve(now)])
        return decided, Change(reservations=(decided,), events=(telling.granted(decided, now),))

    def propose(self, request: ReserveRequest, id_: str, now: Moment) -> Reservation:
        """What reserve would answer, changing nothing. Raises as reserve does."""
        self._check_outer(request)
        admission = Admission(self.books, self._sight, self.settings, now)
        asked = Reservation.asked(id_, request, now)
        admission.limits.check(request)
        try:
            fit = admission.fit(request, admission.line(request))
        except (VramInsufficient, DeviceUnavailable) as refusal:
            if request.max_wait_seconds == 0 or never_fits(refusal):
                raise
            admission.limits.check_wait(request)
            return asked
        admission.limits.check_grants(request, fit.grants)
        return _granted(asked, fit, now)

    def serve(self, now: Moment) -> Change:
        """Grant whoever of those that wait fits now, in order; give notice where that helps."""
        if not self.books.queued or not self._sight.complete:
            return self._withdraw_notices()
        admission = Admission(self.books, self._sight, self.settings, now)
        preemption = Preemption(self.books, self._sight, self.settings.preemption, now)
        line, changes = admission.line(), []
        for entry in in_order(self.books.queued.values(), self.settings.queue):
            fit = self._fit(entry, admission, line)
            if fit is None:
                victims = None if line.is_full else preemption.victims(entry, admission, line)
                changes += [self._give_notice(each, entry, now) for each in victims or ()]
                if victims is None:
                    changes.append(self._withdraw_notices(entry.id))
                admission.keep(entry, line)
                continue
            granted = replace(_granted(entry, fit, now), generation=entry.generation + 1)
            self.books.put(granted)
            event = telling.granted(granted, now)
            changes.append(Change(reservations=(granted,), events=(event,)))
        return joined([*changes, self._withdraw_notices()])

    def _fit(self, entry: Reservation, admission: Admission, line: Line) -> Fit | None:
        if admission.is_hopeless(entry.request):
            return None
        try:
            return admission.fit(entry.request, line)
        except GpudError:  # whatever it is, the others must not wait for it
            return None

    def stand(self, id_: str, request: ReserveRequest, now: Moment) -> Change:
        """Hold a standing reservation as the configuration has it; `serve` gives it its bytes."""
        old = self.books.reservations.get(id_)
        if old is not None and (old.booked or old.queued):
            if old.request == request:
                return Change()
            if old.state is ReservationState.RELEASING or self._returning.carries(old):
                return Change()  # it is held anew once it has ended
            ended = self._returning.end(old, ReservationState.RELEASED, "changed", now)[1]
            if self.books.reservations[id_].booked:
                return ended
        else:
            ended = Change()
        asked = Reservation.asked(id_, request, now)
        generation = old.generation + 1 if old is not None else 1
        asked = replace(asked, generation=generation)
        self.books.put(asked)
        return joined([ended, Change(reservations=(asked,))])

    def unstand(self, id_: str, now: Moment) -> Change:
        """End a standing reservation that the configuration no longer has."""
        held = self._find(id_)
        if held.state is ReservationState.RELEASING or not (held.booked or held.queued):
            return Change()
        reason = "no longer in the configuration"
        changes = [self._returning.end(held, ReservationState.RELEASED, reason, now)[1]]
        for entry in tuple(self.books.queued.values()):
            if entry.within == id_:
                why = f"{held.name}, within which it waited, is {reason}"
                ended = self._returning.end(entry, ReservationState.RELEASED, why, now)[1]
                changes.append(ended)
        return joined(changes)

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
        deadline = Deadline.after(now, ttl)
        limit = self.renewable_until(reservation)
        if limit is not None:
            deadline = min(deadline, limit, key=lambda each: each.boottime)
        renewed = replace(reservation, ttl_seconds=ttl, deadline=deadline)
        self.books.put(renewed)
        # A renewal is durable but no event: every owner does it all the time.
        return renewed, Change(reservations=(renewed,))

    def release(
        self,
        id_: str,
        generation: int | None,
        now: Moment,
        *,
        holder: bool = False,
        by: str = "",
    ) -> tuple[Reservation, Change]:
        """End a promise or a wait; `holder` is the instance that a HELD one was made for.

        `by` is who asked for it.

        Raises ReservationNotFound, GenerationMismatch, WrongState. Releasing again what has
        ended, or is ending, answers with it and changes nothing.
        """
        reservation = self._find(id_)
        fence(reservation, generation)
        if not reservation.queued and reservation.state is not ReservationState.GRANTED:
            return reservation, Change()
        if reservation.kind is ReservationKind.HELD and not holder:
            raise WrongState(name=reservation.name, state="HELD", advice=_instead(reservation))
        reason = "released"
        if by and by != reservation.owner:
            reservation = replace(reservation, ended_by=by)
            reason = f"released by {by}"
        return self._returning.end(reservation, ReservationState.RELEASED, reason, now)

    def revoke(self, id_: str, reason: str, now: Moment) -> tuple[Reservation, Change]:
        """End a promise that cannot be kept as it was asked for. Raises ReservationNotFound."""
        held = self._find(id_)
        if not held.queued and held.state is not ReservationState.GRANTED:
            return held, Change()
        return self._returning.end(held, ReservationState.REVOKED, reason, now)

    def bind(self, id_: str) -> Change:
        """A process is about to start in it: from now on its bytes are free only once seen back.

        Raises ReservationNotFound, WrongState.
        """
        self._granted(id_, None)
        return self._returning.bind(id_)

    def attach(
        self,
        id_: str,
        generation: int | None,
        attachment: Attachment,
        now: Moment,
        *,
        by: str = "",
    ) -> tuple[Reservation, Change]:
        """From now on a process or cgroup is the owner's; `by` is who asked for it.

        Raises ReservationNotFound, GenerationMismatch, WrongState, QuotaExceeded.
        """
        reservation = self._granted(id_, generation)
        same = (attachment.pid, attachment.start_time, attachment.cgroup)
        for known in reservation.attachments:
            if (known.pid, known.start_time, known.cgroup) == same:
                return reservation, Change()
        telling.check_attachments(reservation)
        attached = replace(reservation, attachments=(*reservation.attachments, attachment))
        self.books.put(attached)
        bound = self._returning.bind(id_)
        event = telling.attached(attached, attachment, by, now)
        change = Change(reservations=(attached,), events=(event,))
        return self.books.reservations[id_], joined([change, bound])

    def enforced(self, id_: str, by: Enforcement) -> Change:
        """What keeps others off its devices, as far as that was proved."""
        reservation = self._find(id_)
        grants = tuple(
            grant if grant.beside else replace(grant, enforcement=by)
            for grant in reservation.grants
        )
        if grants == reservation.grants:
            return Change()
        enforced = replace(reservation, grants=grants)
        self.books.put(enforced)
        return Change(reservations=(enforced,))

    def adopt(self, id_: str) -> Change:
        """Its holder was found again after a restart: earlier holders of the number are fenced."""
        reservation = self._find(id_)
        adopted = replace(reservation, generation=reservation.generation + 1)
        self.books.put(adopted)
        return Change(reservations=(adopted,))

    def cordon(self, uuid: str, cordon: Cordon | None, actor: str, now: Moment) -> Change:
        """No new grants on a device, or again some; the empty UUID is the whole node."""
        known = self.books.cordons.get(uuid) if uuid else self.books.drain
        if (known is None) == (cordon is None) and (known and known.reason) == (
            cordon and cordon.reason
        ):
            return Change()
        self.books.set_cordon(uuid, cordon)
        event = telling.cordoned(uuid, cordon or known, actor, now, lifted=cordon is None)
        return Change(cordons=((uuid, cordon),), events=(event,))

    # Time and devices.

    def expire(self, now: Moment) -> Change:
        """End every lease and wait whose deadline has come; forget what ended ten minutes ago."""
        return joined([self._fall_due(reservation, now) for reservation in self.books.due(now)])

    def observe(self, snapshot: Snapshot, now: Moment) -> Change:
        """Take in what the devices show: bind, confirm bytes that came back, tell leaks."""
        return self._returning.observe(snapshot, now)

    # Inside.

    def _fall_due(self, reservation: Reservation, now: Moment) -> Change:
        if not reservation.booked and not reservation.queued:
            self.books.drop(reservation.id)
            return Change(forgotten=(reservation.id,))
        deadline, notice = reservation.deadline, reservation.notice
        if deadline is not None and deadline.remaining_seconds(now) <= 0:
            waited = reservation.request.max_wait_seconds or 0.0
            reason = f"waited {waited:g} s for its bytes" if reservation.queued else "expired"
            return self._returning.end(reservation, ReservationState.EXPIRED, reason, now)[1]
        if notice is None:
            return Change()
        if not self._still_helps(notice.by, now):
            return joined([self._withdraw_notices(notice.by), self._withdraw_notices()])
        reason = f"ended for reservations/{notice.by}, which is of a higher class"
        return self._returning.end(reservation, ReservationState.REVOKED, reason, now)[1]

    def _still_helps(self, waiting: str, now: Moment) -> bool:
        """Whether the ends it was promised let it in: nobody is ended for nothing."""
        entry = self.books.queued.get(waiting)
        if entry is None or not self._sight.complete:
            return False
        admission = Admission(self.books, self._sight, self.settings, now)
        preemption = Preemption(self.books, self._sight, self.settings.preemption, now)
        return preemption.victims(entry, admission, admission.line_before(entry)) is not None

    def _give_notice(self, victim: Reservation, entry: Reservation, now: Moment) -> Change:
        grace = self.settings.preemption.grace_seconds
        noticed = replace(victim, notice=Notice(by=entry.id, deadline=Deadline.after(now, grace)))
        self.books.put(noticed)
        event = telling.noticed(noticed, entry, grace, now)
        return Change(reservations=(noticed,), events=(event,))

    def _withdraw_notices(self, by: str | None = None) -> Change:
        """Whoever is to be ended for one that no longer waits may stay; or for this one."""
        spared = []
        for noticed in tuple(self.books.noticed.values()):
            if noticed.notice is None or noticed.state is not ReservationState.GRANTED:
                continue
            if noticed.notice.by == by or noticed.notice.by not in self.books.queued:
                spared.append(replace(noticed, notice=None))
                self.books.put(spared[-1])
        return Change(reservations=tuple(spared))


def _granted(asked: Reservation, fit: Fit, now: Moment) -> Reservation:
    """It gets its bytes; its ttl starts now."""
    ttl = asked.ttl_seconds
    return replace(
        asked,
        state=ReservationState.GRANTED,
        grants=fit.grants,
        passes=fit.passes,
        deadline=None if ttl is None else Deadline.after(now, ttl),
        granted=Deadline.after(now, 0),
    )


def _instead(reservation: Reservation) -> str:
    """What ends a HELD promise."""
    if reservation.request.standing:
        return (
            f"it stands in the configuration: take [reservations.{reservation.id}] out of it "
            "and restart gpud"
        )
    return (
        f"it lives with instances/{reservation.instance}: `gpuctl unload {reservation.instance}`"
    )
