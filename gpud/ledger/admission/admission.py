"""Pure: whether a request fits now, and where; one look at the devices for one decision."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from gpud.clock import Moment
from gpud.devices.snapshot import DeviceKind, Health, Sample
from gpud.errors import (
    DeviceNotFound,
    DeviceUnavailable,
    GpudError,
    QuotaExceeded,
    Reconciling,
    SamplesStale,
    VramInsufficient,
)
from gpud.ledger.admission.keeping import Keeper
from gpud.ledger.admission.nothing import NoDevice
from gpud.ledger.admission.outlook import Outlook
from gpud.ledger.admission.placement import Candidate, eligible, place, refusal
from gpud.ledger.admission.policy import (
    LedgerSettings,
    device_rule,
    enforcement_rule,
    exclusion_rule,
    holders_there,
    lasting_rule,
    overload,
    strangers_there,
)
from gpud.ledger.admission.queue import Line, in_order
from gpud.ledger.admission.quota import Limits
from gpud.ledger.books import Books, DeviceBook
from gpud.ledger.charge import Charge, is_stale
from gpud.ledger.reservation import (
    Enforcement,
    Grant,
    Notice,
    Reservation,
    ReserveRequest,
    Shape,
    Sharing,
)
from gpud.ledger.sight import Sight


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """What a request gets, and whom it passes by it, each with the bound of that."""

    grants: tuple[Grant, ...]
    passes: tuple[Notice, ...] = ()


class Admission:
    """The devices as they stand in one step of deciding; `book`ing goes on between its calls."""

    def __init__(self, books: Books, sight: Sight, settings: LedgerSettings, now: Moment) -> None:
        """Raises Reconciling before the first complete snapshot."""
        if sight.snapshot is None or not sight.snapshot.complete:
            raise Reconciling(waiting_for="the first sample of every device")
        self._books = books
        self._sight = sight
        self._settings = settings
        self._now = now
        self._samples = sight.snapshot.samples
        self._trouble = sight.snapshot.trouble
        self._rules = {s.info.uuid: device_rule(s, books, now) for s in self._samples}
        self.outlook = Outlook(books, sight, settings, self._rules)
        self.limits = Limits(books, sight, settings)
        self._keeper = Keeper(books, sight, settings, self.outlook, now)

    def line(self, before: ReserveRequest | None = None) -> Line:
        """No heads, to walk the queue with; or those before a newcomer."""
        if before is None or not self._books.queued:
            return self._keeper.line()
        return self.line_before(Reservation.asked("", before, self._now))

    def line_before(self, entry: Reservation) -> Line:
        """The heads of those that wait before one that waits, or would."""
        line = self._keeper.line()
        others = (each for each in self._books.queued.values() if each.id != entry.id)
        ordered = in_order((*others, entry), self._settings.queue)
        for each in ordered[: ordered.index(entry)]:
            if line.is_full:
                break
            self.keep(each, line)
        return line

    def keep(self, entry: Reservation, line: Line) -> None:
        """It cannot be granted yet: keep it its devices, where any are left."""
        if not line.is_full and not self.limits.bars(entry.request):
            line.keep(entry, self._keeper.wanted(entry, line))

    def moment(self, entry: Reservation) -> float:
        """When it comes in as the leases stand (boottime); infinite: nobody knows."""
        return self._keeper.moment(entry)

    def is_hopeless(self, request: ReserveRequest) -> bool:
        """Whether no shape can fit now, by the free bytes alone: cheap, and tells no reason."""
        if request.within is not None:
            return False
        return not any(self._has_room(shape) for shape in request.shapes)

    def _has_room(self, shape: Shape) -> bool:
        fitting = 0
        for sample in self._samples:
            uuid = sample.info.uuid
            if not self._rules[uuid] and eligible(uuid, sample.info.kind, shape):
                room = self._sight.terms(sample, self._books).grantable_bytes
                fitting += room is not None and shape.bytes <= room
        return fitting >= shape.device_count

    def fit(self, request: ReserveRequest, line: Line) -> Fit:
        """Where it goes now: the first of its shapes that fits.

        Raises VramInsufficient, DeviceUnavailable, SamplesStale, DeviceNotFound, QuotaExceeded:
        of a shape that could fit at another time, where there is one.
        """
        refusals: list[GpudError] = []
        for shape in request.shapes:
            try:
                fit = self._fit_shape(request, shape, line)
                self.limits.check_booked(request, fit.grants)
            except (VramInsufficient, DeviceUnavailable, SamplesStale, QuotaExceeded) as error:
                refusals.append(error)
            else:
                return fit
        raise next((each for each in refusals if not never_fits(each)), refusals[0])

    def candidates(self, request: ReserveRequest, shape: Shape, line: Line) -> list[Candidate]:
        """The devices that a shape may be placed on, and what is in its way there."""
        return [
            self._candidate(sample, request, shape.bytes, line)
            for sample in self._samples
            if eligible(sample.info.uuid, sample.info.kind, shape)
        ]

    def host_candidate(
        self, request: ReserveRequest, line: Line, size: int | None = None
    ) -> Candidate:
        """The host's RAM beside the devices. Raises DeviceNotFound where it is no device."""
        host = self._sight.host()
        if host is None:
            raise DeviceNotFound(name="host")
        # Alone, or kept alone by a driver, it is to have its devices, not the RAM.
        shared = replace(request, sharing=Sharing.SHARED, require_enforcement=Enforcement.LEDGER)
        return self._candidate(host, shared, request.host_bytes if size is None else size, line)

    def preemptable(
        self, request: ReserveRequest, shape: Shape, line: Line
    ) -> list[tuple[Sample, DeviceBook]]:
        """Devices where only promises are in a shape's way, and it is its turn."""
        found = []
        for sample in self._samples:
            uuid = sample.info.uuid
            book, terms = self._books.device(uuid), self._sight.terms(sample, self._books)
            barred = (
                not eligible(uuid, sample.info.kind, shape)
                or self._rules[uuid]
                # That another has it alone is what preemption may end.
                or lasting_rule(sample, book, request, self._settings)
                or line.hold_up(terms, book, request, shape.bytes)[0]
                or (request.exclusive and strangers_there(sample, book))
            )
            if not barred and shape.bytes <= terms.room_bytes:
                found.append((sample, book))
        return found

    def _fit_shape(self, request: ReserveRequest, shape: Shape, line: Line) -> Fit:
        asked = self.candidates(request, shape, line)
        if not asked:
            raise NoDevice(
                needed_bytes=shape.bytes,
                device_count=shape.device_count,
                shortages=(),
                never_fits=True,
                kind=shape.device_kind.name.lower() if shape.device_kind is not None else "",
                has_host=self._sight.host() is not None,
                trouble=self._trouble,
            )
        self._refuse_stale(asked)
        if request.host_bytes:
            self._refuse_ram(request, shape, asked, line)
        chosen = place(asked, shape, request, numa_aware=self._settings.numa_aware)
        # Alone on a device is to have all of it.
        grants = [
            Grant(
                device=each.charge.uuid,
                bytes=(each.room_bytes or 0) if request.exclusive else shape.bytes,
            )
            for each in chosen
        ]
        if request.host_bytes:
            size = _ram_bytes(request, shape, chosen)
            host = self.host_candidate(request, line, size)
            grants = _with_ram(grants, host, size, alone=request.exclusive)
            chosen = (*chosen, host)
        # The bound of passing one is the same on every device.
        passes = {notice.by: notice for each in chosen for notice in each.passes}
        return Fit(grants=tuple(grants), passes=tuple(passes.values()))

    def _candidate(
        self, sample: Sample, request: ReserveRequest, size: int, line: Line
    ) -> Candidate:
        uuid, settings = sample.info.uuid, self._settings
        book, terms = self._books.device(uuid), self._sight.terms(sample, self._books)
        rule = self._rules[uuid] or exclusion_rule(
            sample, book, request, settings, self._books.standing
        )
        room, obstacle = terms.grantable_bytes, ""
        passes: tuple[Notice, ...] = ()
        if request.within is not None:
            promised = book.holders.get(request.within, 0)
            # Its own processes use it too.
            observed = terms.observed_bytes
            inside = self._books.inside(request.within, uuid)
            taken = sum(max(size, observed.get(id_, 0)) for id_, size in inside.items())
            taken += observed.get(request.within, 0)
            room = max(0, promised - taken)
        elif not rule and request.exclusive:
            obstacle = holders_there(book) or strangers_there(sample, book)
        if not rule and not obstacle and request.instance is not None:
            obstacle = overload(sample, size, settings.critical_load_percent)
        if not rule and not obstacle:
            obstacle, passes = line.hold_up(terms, book, request, size)
        return Candidate(
            charge=terms,
            kind=sample.info.kind,
            room_bytes=room,
            most_bytes=self._most(request, book, terms),
            numa_node=sample.info.numa_node,
            rule=rule,
            for_good=bool(rule) and self._lasts(sample, book, request),
            within=request.within or "",
            obstacle=obstacle,
            passes=passes,
        )

    def _lasts(self, sample: Sample, book: DeviceBook, request: ReserveRequest) -> bool:
        """Whether the rule that refuses a device holds as long as the configuration does."""
        stands = book.exclusive in self._books.standing and not request.standing
        return stands or bool(enforcement_rule(sample, request, self._settings))

    def _most(self, request: ReserveRequest, book: DeviceBook, terms: Charge) -> int | None:
        """What it could have of a device at best; None: all of it but the reserve.

        Shares that stand in the configuration do not end by waiting.
        """
        if request.within is not None:
            return book.holders.get(request.within)
        if request.standing or not book.standing_bytes or book.exclusive is not None:
            return None
        most = (terms.total_bytes or 0) - terms.reserve_bytes - book.standing_bytes
        return 0 if request.exclusive else max(0, most)

    def _refuse_ram(
        self, request: ReserveRequest, shape: Shape, asked: list[Candidate], line: Line
    ) -> None:
        """RAM that can never be had is refused at once, however busy the devices are."""
        only_host = all(each.kind is DeviceKind.HOST for each in asked)
        least = _ram_bytes(request, shape, asked if only_host else ())
        host = self.host_candidate(request, line, least)
        if not host.could_ever_fit(least):
            raise refusal([host], Shape(bytes=least))

    def _refuse_stale(self, asked: list[Candidate]) -> None:
        """When nothing but stale samples is left to choose from, that is the reason to tell."""
        if not asked or not all(candidate.rule for candidate in asked):
            return
        samples = [self._sight.sample(candidate.charge.uuid) for candidate in asked]
        stale = [
            s
            for s in samples
            # One that is lost is sampled no more; that it is lost is the reason then.
            if s is not None and s.health is not Health.LOST and is_stale(s, self._now.boottime)
        ]
        if len(stale) == len(asked):
            raise SamplesStale(
                device=stale[0].info.alias, age_seconds=self._now.boottime - stale[0].boottime
            )


def never_fits(error: GpudError) -> bool:
    """Whether waiting cannot help."""
    return isinstance(error, VramInsufficient | DeviceUnavailable) and error.never_fits


def _ram_bytes(request: ReserveRequest, shape: Shape, chosen: Iterable[Candidate]) -> int:
    """What is taken of the host: what is asked beside, and more where it is chosen itself."""
    is_chosen = any(each.kind is DeviceKind.HOST for each in chosen)
    return request.host_bytes + (shape.bytes if is_chosen else 0)


def _with_ram(grants: Iterable[Grant], host: Candidate, size: int, *, alone: bool) -> list[Grant]:
    """The grants with so much of the host; one grant where the host itself was chosen."""
    uuid = host.charge.uuid
    taken = sum(grant.bytes for grant in grants if grant.device == uuid)
    place([host], Shape(bytes=size), ReserveRequest(owner="", bytes=size))
    others = [grant for grant in grants if grant.device != uuid]
    return [
        *others,
        Grant(device=uuid, bytes=taken if taken and alone else size, beside=not taken),
    ]
