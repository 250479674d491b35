"""Pure: which devices are kept for whom, of those that wait."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gpud.clock import Moment
from gpud.devices.snapshot import DeviceKind, Sample
from gpud.ledger.admission.outlook import NEVER_KNOWN, Outlook
from gpud.ledger.admission.placement import eligible
from gpud.ledger.admission.policy import LedgerSettings
from gpud.ledger.admission.queue import Kept, Line, longest_lead
from gpud.ledger.books import Books
from gpud.ledger.reservation import Reservation, ReserveRequest, Shape
from gpud.ledger.sight import Sight


@dataclass(frozen=True, slots=True, order=True)
class _Choice:
    """A device on which a shape comes in, the best first: kept for few, early, roomy."""

    heads: int
    moment: float
    less_room: int
    uuid: str


class Keeper:
    """Looks for each that waits where it comes in first."""

    def __init__(
        self, books: Books, sight: Sight, settings: LedgerSettings, outlook: Outlook, now: Moment
    ) -> None:
        self._books = books
        self._sight = sight
        self._settings = settings
        self._outlook = outlook
        self._now = now
        self._samples = sight.snapshot.samples if sight.snapshot is not None else ()

    def line(self) -> Line:
        """A line without heads."""
        return Line(self._settings.queue, self._now)

    def wanted(self, entry: Reservation, line: Line) -> tuple[Kept, ...]:
        """The devices to keep for one that waits.

        Of the shapes the one that comes in first as the leases stand, on the devices where it does
        so; sooner on one that is kept for nobody else. Nothing where no moment is known: a device
        that a model holds until it is unloaded, or that strangers use, is not left idle for it.
        Leases that are renewed again and again put a moment off: who has waited long is kept a
        device more with each ageing span, of those that look as if they come free.
        """
        request = entry.request
        ram = self._ram(request)
        if request.within is not None or ram is None:
            return ()
        best: tuple[float, Shape, list[_Choice]] | None = None
        for shape in request.shapes:
            choices = sorted(self._choices(request, shape, line))
            if len(choices) < shape.device_count:
                continue
            moment = max(choice.moment for choice in choices[: shape.device_count])
            if best is None or moment < best[0]:
                best = (moment, shape, choices)
        if best is None:
            return ()
        _, shape, choices = best
        further = (c for c in choices[shape.device_count :] if self._outlook.is_draining(c.uuid))
        more = [choice for choice, _ in zip(further, range(self._extra(entry)), strict=False)]
        chosen = (*choices[: shape.device_count], *more)
        kept = [Kept(choice.uuid, shape.bytes, request.exclusive) for choice in chosen]
        return (*kept, *ram)

    def moment(self, entry: Reservation) -> float:
        """When it comes in if the leases end as they now stand; NEVER_KNOWN: nobody knows."""
        request, empty = entry.request, self.line()
        moments = [NEVER_KNOWN]
        for shape in request.shapes:
            choices = sorted(choice.moment for choice in self._choices(request, shape, empty))
            if len(choices) >= shape.device_count:
                moments.append(choices[shape.device_count - 1])
        return max(min(moments), self._ram_moment(request))

    def _extra(self, entry: Reservation) -> int:
        queue = self._settings.queue
        late = self._now.boottime - entry.created.boottime - longest_lead(queue)
        return 1 + int(late / queue.ageing_seconds) if late > 0 else 0

    def _choices(self, request: ReserveRequest, shape: Shape, line: Line) -> Iterator[_Choice]:
        for sample in self._samples:
            uuid = sample.info.uuid
            if line.has_enough(uuid) or not eligible(uuid, sample.info.kind, shape):
                continue
            size = shape.bytes + _beside(request, sample)
            moment = self._outlook.moment(sample, request, size, alone=request.exclusive)
            if moment < NEVER_KNOWN:
                room = self._sight.terms(sample, self._books).grantable_bytes or 0
                yield _Choice(line.heads_of(uuid), moment, -room, uuid)

    def _ram(self, request: ReserveRequest) -> tuple[Kept, ...] | None:
        """The RAM to keep beside the devices; None: nobody knows when there is enough."""
        host = self._sight.host()
        if not request.host_bytes:
            return ()
        if host is None or self._ram_moment(request) == NEVER_KNOWN:
            return None
        return (Kept(host.info.uuid, request.host_bytes, alone=False),)

    def _ram_moment(self, request: ReserveRequest) -> float:
        host = self._sight.host()
        if not request.host_bytes:
            return 0.0
        if host is None:
            return NEVER_KNOWN
        return self._outlook.fits_at(host, request.host_bytes, alone=False)


def _beside(request: ReserveRequest, sample: Sample) -> int:
    """The RAM beside it, where the device is the RAM."""
    return request.host_bytes if sample.info.kind is DeviceKind.HOST else 0
