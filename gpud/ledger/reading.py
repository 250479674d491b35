"""Pure: what the newest decisions say, told to whoever asks; nothing is changed by it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from gpud.clock import Moment
from gpud.errors import (
    DeviceUnavailable,
    GpudError,
    ReservationNotFound,
    VramInsufficient,
    WrongState,
)
from gpud.ledger.admission.admission import Admission
from gpud.ledger.admission.explain import Explainer, Explanation
from gpud.ledger.admission.policy import LedgerSettings
from gpud.ledger.admission.preemption import Preemption
from gpud.ledger.admission.queue import Line, in_order
from gpud.ledger.books import Books
from gpud.ledger.charge import Charge
from gpud.ledger.ending import fence
from gpud.ledger.reservation import Deadline, Reservation, ReservationState, ReserveRequest
from gpud.ledger.sight import Sight
from gpud.units import MIB, format_size

# More unexplained growth than this asks for a process list at the next tick.
UNEXPLAINED_BYTES = 64 * MIB


class Reader:
    """Reads the books and what the devices show. The ledger is one that also decides."""

    def __init__(self, settings: LedgerSettings) -> None:
        self.settings = settings
        self.books = Books()
        self._sight = Sight(settings.reserves)

    def configure(self, settings: LedgerSettings) -> None:
        """Decide by other settings from now on; what is promised stays so, whatever they say."""
        self.settings = settings
        self._sight.reserve(settings.reserves)

    def charges(self, books: Books | None = None) -> dict[str, Charge]:
        """Every device's terms by UUID, on the newest decisions or on another's books."""
        return self._sight.charges(books or self.books)

    def charges_of(self, uuids: Iterable[str], books: Books) -> dict[str, Charge]:
        """The terms of some devices."""
        return self._sight.charges_of(uuids, books)

    def renewable_until(self, reservation: Reservation) -> Deadline | None:
        """Until when it may be renewed at most: whom it passed may still wait; None: no bound."""
        bounds = (each.deadline for each in reservation.passes if each.by in self.books.queued)
        return min(bounds, key=lambda each: each.boottime, default=None)

    def wants_list(self) -> bool:
        """Whether a process list is needed sooner than it would come."""
        if self.books.releasing:
            return True
        return any(
            terms.unexplained_growth_bytes > UNEXPLAINED_BYTES for terms in self.charges().values()
        )

    def explain(self, request: ReserveRequest, now: Moment) -> Explanation:
        """Why a request fits or not. Raises Reconciling."""
        self._check_outer(request)
        admission = Admission(self.books, self._sight, self.settings, now)
        newcomer = Reservation.asked("", request, now)
        ordered = in_order((*self.books.queued.values(), newcomer), self.settings.queue)
        explainer = Explainer(self.books, self._sight, admission, now)
        explanation = explainer.explain(request, ordered.index(newcomer))
        if explanation.fit is not None or not explanation.can_wait:
            return explanation
        settings = self.settings.preemption
        preemption = Preemption(self.books, self._sight, settings, now)
        line = admission.line_before(newcomer)
        victims = preemption.victims(newcomer, admission, line) or ()
        names = tuple(victim.name for victim in victims)
        return replace(explanation, preempts=names, grace_seconds=settings.grace_seconds)

    def why_waiting(self, entry: Reservation, now: Moment) -> str:
        """What a waiting request waits for, with numbers."""
        try:
            admission = Admission(self.books, self._sight, self.settings, now)
        except GpudError as refusal:
            return str(refusal)
        return _reason(entry, admission, admission.line_before(entry))

    def reasons(self, now: Moment) -> dict[str, str]:
        """What each that waits waits for, by id, in one walk along the queue."""
        try:
            admission = Admission(self.books, self._sight, self.settings, now)
        except GpudError as refusal:
            return dict.fromkeys(self.books.queued, str(refusal))
        line, reasons = admission.line(), {}
        for entry in in_order(self.books.queued.values(), self.settings.queue):
            reasons[entry.id] = _reason(entry, admission, line)
            admission.keep(entry, line)
        return reasons

    def expected(self, entry: Reservation, now: Moment) -> Deadline | None:
        """When the next in the queue comes in, if the leases in its way end as they now stand."""
        try:
            admission = Admission(self.books, self._sight, self.settings, now)
        except GpudError:
            return None
        return Explainer(self.books, self._sight, admission, now).expected(entry.request)

    # Inside.

    def _find(self, id_: str) -> Reservation:
        reservation = self.books.reservations.get(id_)
        if reservation is None:
            raise ReservationNotFound(name=f"reservations/{id_}")
        return reservation

    def _granted(self, id_: str, generation: int | None) -> Reservation:
        reservation = self._find(id_)
        fence(reservation, generation)
        if reservation.state is not ReservationState.GRANTED:
            advice = (
                "wait for its grant (`gpuctl reservations`)"
                if reservation.queued
                else "reserve again (`gpuctl reserve`)"
            )
            raise WrongState(name=reservation.name, state=reservation.state.name, advice=advice)
        return reservation

    def _check_outer(self, request: ReserveRequest) -> None:
        """A promise within another needs a standing one that is granted."""
        if request.within is None:
            return
        outer = self._granted(request.within, None)
        if not outer.request.standing:
            raise WrongState(
                name=outer.name,
                state="not a standing reservation",
                advice="only those of the configuration carry instances; name one of those",
            )


def _reason(entry: Reservation, admission: Admission, line: Line) -> str:
    try:
        admission.fit(entry.request, line)
    except (VramInsufficient, DeviceUnavailable) as refusal:
        shown = "; ".join(str(shortage) for shortage in refusal.shortages[:8])
        if isinstance(refusal, DeviceUnavailable):
            return shown
        many = f"each of {refusal.device_count} of " if refusal.device_count > 1 else ""
        return f"{format_size(refusal.needed_bytes)} on {many}{shown}"
    except GpudError as refusal:
        return str(refusal)
    return "its turn"
