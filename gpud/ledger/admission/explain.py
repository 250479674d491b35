"""Pure: why a request fits or does not, device by device, and what would let it in."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gpud.clock import Moment
from gpud.devices.snapshot import DeviceKind, Sample
from gpud.errors import GpudError, LimitReached, QuotaExceeded
from gpud.ledger.admission.admission import Admission, Fit, never_fits
from gpud.ledger.admission.outlook import NEVER_KNOWN, ends, goes
from gpud.ledger.admission.placement import Candidate
from gpud.ledger.books import Books
from gpud.ledger.reservation import Deadline, ReserveRequest, Shape
from gpud.ledger.sight import Sight
from gpud.units import format_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Somebody who holds bytes of a device; `until` is when a lease ends, unless renewed."""

    what: str  # the owner of a promise, or foreign, unattributed, leaked, reserve
    bytes: int
    reservation: str = ""
    until: Deadline | None = None
    pid: int | None = None
    process_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceExplanation:
    """One shape on one device."""

    shape: int
    candidate: Candidate
    needed_bytes: int
    fits: bool
    rule: str  # why not; empty when it fits
    holders: tuple[Holder, ...]
    remedy: str
    expected: Deadline | None  # when it fits if the leases end as they now stand


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What Reserve would answer, and why."""

    devices: tuple[DeviceExplanation, ...]
    fit: Fit | None
    refusal: GpudError | None
    queue_ahead: int
    no_waiting: bool = False  # for want of room in the queue, or of its owner's quota
    # Over its owner's quota: when leases of the owner's own, as they now stand, make room.
    room_in_seconds: float | None = None
    # Waiting would end these, within the grace.
    preempts: tuple[str, ...] = ()
    grace_seconds: float = 0.0

    @property
    def can_wait(self) -> bool:
        """Whether it may come in later."""
        if self.no_waiting or isinstance(self.refusal, LimitReached):
            return False
        return self.refusal is None or not never_fits(self.refusal)


class Explainer:
    """Looks at the newest books and changes nothing."""

    def __init__(self, books: Books, sight: Sight, admission: Admission, now: Moment) -> None:
        self._books = books
        self._sight = sight
        self._admission = admission
        self._now = now

    def explain(self, request: ReserveRequest, queue_ahead: int) -> Explanation:
        """Every device that it may be placed on, for each of its shapes, then its RAM."""
        line = self._admission.line(request)
        fit, refusal = None, None
        try:
            fit = self._admission.fit(request, line)
        except GpudError as error:
            refusal = error
        found = [
            self._device(number, candidate, request, shape.bytes)
            for number, shape in enumerate(request.shapes)
            for candidate in self._admission.candidates(request, shape, line)
        ]
        if request.host_bytes and self._sight.host() is not None:
            host = self._admission.host_candidate(request, line)
            found.append(self._device(0, host, request, request.host_bytes))
        told = Explanation(devices=tuple(found), fit=fit, refusal=refusal, queue_ahead=queue_ahead)
        return self._limited(told, request)

    def _limited(self, told: Explanation, request: ReserveRequest) -> Explanation:
        """With what its owner has, or how many wait, as the reason where that is one."""
        limits = self._admission.limits
        try:
            limits.check(request)
            if told.fit is not None:
                limits.check_grants(request, told.fit.grants)
                return told
        except QuotaExceeded as limit:
            when = limits.makes_room(limit)
            left = None if when is None else when.remaining_seconds(self._now)
            return replace(told, fit=None, refusal=limit, room_in_seconds=left)
        try:
            if told.can_wait:
                limits.check_wait(request)
        except LimitReached as limit:
            waits = request.max_wait_seconds != 0
            return replace(told, no_waiting=True, refusal=limit if waits else told.refusal)
        return told

    def expected(self, request: ReserveRequest) -> Deadline | None:
        """When it fits if the leases in its way end as they now stand; None: that is not known."""
        if self._admission.limits.bars(request):
            return None
        times = [
            when
            for shape in request.shapes
            if (when := self._shape_expected(request, shape)) is not None
        ]
        return min(times, key=lambda each: each.boottime, default=None)

    def _shape_expected(self, request: ReserveRequest, shape: Shape) -> Deadline | None:
        candidates = self._admission.candidates(request, shape, self._admission.line())
        times = [
            when
            for candidate in candidates
            if (when := self._when(candidate, request, shape.bytes)) is not None
        ]
        times.sort(key=lambda each: each.boottime)
        if len(times) < shape.device_count:
            return None
        when = times[shape.device_count - 1]
        if not request.host_bytes:
            return when
        if self._sight.host() is None:
            return None
        host = self._admission.host_candidate(request, self._admission.line())
        ram = self._when(host, request, request.host_bytes)
        return ram and max(when, ram, key=lambda each: each.boottime)

    def _device(
        self, number: int, candidate: Candidate, request: ReserveRequest, size: int
    ) -> DeviceExplanation:
        fits = candidate.fits(size)
        room = candidate.room_bytes
        rule = candidate.rule or candidate.obstacle
        if not fits and not rule:
            rule = (
                f"{format_size(size - room)} too few"
                if room is not None
                else "its free bytes are not known"
            )
        when = None if fits else self._when(candidate, request, size)
        return DeviceExplanation(
            shape=number,
            candidate=candidate,
            needed_bytes=size,
            fits=fits,
            rule="" if fits else rule,
            holders=self._holders(candidate),
            remedy="" if fits else self._remedy(candidate, request, size, when),
            expected=when,
        )

    def _when(self, candidate: Candidate, request: ReserveRequest, size: int) -> Deadline | None:
        if candidate.fits(size):
            return Deadline.after(self._now, 0)
        if candidate.rule or candidate.room_bytes is None or request.within is not None:
            return None
        sample = self._sight.sample(candidate.charge.uuid)
        if sample is None:
            return None
        outlook, beside = self._admission.outlook, candidate.kind is DeviceKind.HOST
        alone = request.exclusive and not beside
        if candidate.obstacle and not alone:
            return None
        moment = outlook.moment(sample, request, size, alone=alone)
        return self._told(candidate.charge.uuid, moment)

    def _told(self, uuid: str, moment: float) -> Deadline | None:
        """The deadline that a moment is; None where it is none that anybody can foretell."""
        held = [each for each, _ in self._admission.outlook.leases(uuid)]
        if moment == NEVER_KNOWN or any(
            ends(each) is None and goes(each) <= moment for each in held
        ):
            return None
        # The lease's own deadline: one made anew would differ by a rounding at each look.
        found = (end for each in held if (end := ends(each)) is not None)
        exact = (end for end in found if end.boottime == moment)
        return next(exact, Deadline.after(self._now, max(0.0, moment - self._now.boottime)))

    def _holders(self, candidate: Candidate) -> tuple[Holder, ...]:
        terms = candidate.charge
        sample = self._sight.sample(terms.uuid)
        found = [
            Holder(
                what=held.owner,
                bytes=max(size, terms.observed_bytes.get(held.id, 0)),
                reservation=held.name,
                until=ends(held),
            )
            for held, size in self._admission.outlook.leases(terms.uuid)
        ]
        found += self._strangers(sample) if sample is not None else []
        rest = (
            ("foreign", (terms.foreign_bytes or 0) - sum(h.bytes for h in found if h.pid)),
            ("unattributed", terms.unattributed_bytes or 0),
            ("leaked", terms.leaked_bytes),
            ("reserve", terms.reserve_bytes),
        )
        return (*found, *(Holder(what=what, bytes=size) for what, size in rest if size > 0))

    def _strangers(self, sample: Sample) -> list[Holder]:
        book = self._books.device(sample.info.uuid)
        return [
            Holder(
                what="foreign",
                bytes=process.used_bytes,
                pid=process.pid,
                process_name=process.process_name,
            )
            for process in sample.processes or ()
            if process.used_bytes and book.carrier(process.claim) not in book.holders
        ]

    def _who(self, candidate: Candidate) -> str:
        """Those who use a device without a promise, by name where the device tells."""
        sample = self._sight.sample(candidate.charge.uuid)
        strangers = self._strangers(sample) if sample is not None else []
        shown = [f"pid {each.pid} ({each.process_name})" for each in strangers[:3]]
        rest = len(strangers) - 3
        return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "") or "nobody knows whose"

    def _remedy(
        self, candidate: Candidate, request: ReserveRequest, size: int, when: Deadline | None
    ) -> str:
        if not candidate.could_ever_fit(size):
            terms = candidate.charge
            most = (terms.total_bytes or 0) - terms.reserve_bytes
            if candidate.most_bytes is None:
                return f"nothing: it holds {format_size(most)} at most; ask for less per device"
            most = min(most, candidate.most_bytes)
            return (
                f"nothing: {format_size(most)} is all that can be had there, beside what stands "
                "in the configuration; ask for less per device"
            )
        if candidate.rule:
            return "see the rule; waiting helps once it no longer holds"
        room, names = candidate.charge.room_bytes - candidate.charge.charged_bytes, []
        for held, taken in self._admission.outlook.leases(candidate.charge.uuid):
            if room >= size and not request.exclusive:
                break
            if held.request.standing:
                continue
            room += taken
            names.append(held.name)
        if room < size:
            who = self._who(candidate)
            return f"{format_size(size - room)} that others use must come free: {who}"
        if not names:
            return "what the rule names has to go first"
        left = (
            ""
            if when is None
            else f", in {when.remaining_seconds(self._now):.0f} s unless renewed"
        )
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        return f"the end of {shown}{left}"
