"""Pure: when a request comes in somewhere, as far as the leases in its way tell."""

from __future__ import annotations

from collections.abc import Mapping

from gpud.devices.snapshot import Sample
from gpud.ledger.admission.policy import LedgerSettings, lasting_rule, strangers_there
from gpud.ledger.books import Books
from gpud.ledger.reservation import Deadline, Reservation, ReservationState, ReserveRequest
from gpud.ledger.sight import Sight

NEVER_KNOWN = float("inf")


def ends(held: Reservation) -> Deadline | None:
    """When a promise ends, unless renewed; None where nothing ends it by itself.

    One that has ended gives its bytes back when the device shows them, which nobody can foretell.
    """
    if held.state is not ReservationState.GRANTED:
        return None
    known = [held.deadline, held.notice.deadline if held.notice is not None else None]
    deadlines = [each for each in known if each is not None]
    return min(deadlines, key=lambda each: each.boottime, default=None)


def goes(held: Reservation) -> float:
    """As `ends`, in boottime; what is on its way back is taken to need its whole time."""
    if held.state is ReservationState.RELEASING and held.release_deadline is not None:
        return held.release_deadline.boottime
    end = ends(held)
    return NEVER_KNOWN if end is None else end.boottime


def is_renewed(held: Reservation) -> bool:
    """Whether a lease was ever moved on: such a one may well be moved on again."""
    if held.deadline is None or held.granted is None:
        return True
    return held.deadline.boottime > held.granted.boottime + (held.request.ttl_seconds or 0.0) + 1


class Outlook:
    """Looks ahead on the newest books. `rules` refuse devices now, by UUID."""

    def __init__(
        self, books: Books, sight: Sight, settings: LedgerSettings, rules: Mapping[str, str]
    ) -> None:
        self._books = books
        self._sight = sight
        self._settings = settings
        self._rules = rules
        self._leases: dict[str, tuple[int, list[tuple[Reservation, int]]]] = {}

    def leases(self, uuid: str) -> list[tuple[Reservation, int]]:
        """Who holds bytes of a device, the first to go first; what has no end is last."""
        book = self._books.device(uuid)
        version, known = self._leases.get(uuid, (-1, []))
        if version != book.version:
            held = ((self._books.reservations[id_], size) for id_, size in book.holders.items())
            known = sorted(held, key=lambda each: goes(each[0]))
            self._leases[uuid] = (book.version, known)
        return known

    def moment(self, sample: Sample, request: ReserveRequest, size: int, *, alone: bool) -> float:
        """When (boottime; 0: now) so many bytes of a device come free; all of them, if `alone`.

        NEVER_KNOWN where something else than promises is in the way, or a promise without an end.
        """
        uuid = sample.info.uuid
        barred = self._rules[uuid] or (alone and strangers_there(sample, self._books.device(uuid)))
        book = self._books.device(uuid)
        if barred or lasting_rule(sample, book, request, self._settings):
            return NEVER_KNOWN
        return self.fits_at(sample, size, alone=alone)

    def fits_at(self, sample: Sample, size: int, *, alone: bool) -> float:
        """As `moment`, by the promises alone."""
        uuid, terms = sample.info.uuid, self._sight.terms(sample, self._books)
        room = terms.room_bytes - terms.charged_bytes
        moment = 0.0
        # Whoever has it alone now has to go before anybody comes in.
        alone = alone or self._books.device(uuid).exclusive is not None
        for held, taken in self.leases(uuid):
            if room >= size and not alone:
                break
            room += max(taken, terms.observed_bytes.get(held.id, 0))
            moment = goes(held)
        return moment if room >= size else NEVER_KNOWN

    def is_draining(self, uuid: str) -> bool:
        """Whether all who hold bytes there look as if they end: no lease was ever renewed."""
        return not any(is_renewed(held) for held, _ in self.leases(uuid))
