"""Pure: which devices are kept for whom, of those that wait."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gpud.clock import Moment
from gpud.devices.snapshot import DeviceKind
from gpud.ledger.admission.outlook import NEVER_KNOWN, comes_in
from gpud.ledger.admission.placement import eligible
from gpud.ledger.admission.policy import LedgerSettings, enforcement_rule
from gpud.ledger.admission.queue import Line, longest_lead, room_of
from gpud.ledger.books import Books
from gpud.ledger.reservation import Reservation, ReserveRequest, Shape
from gpud.ledger.sight import Sight


class Keeper:
    """Looks for each that waits where it comes in first. `rules` refuse devices, by UUID."""

    def __init__(
        self,
        books: Books,
        sight: Sight,
        settings: LedgerSettings,
        rules: Mapping[str, str],
        now: Moment,
    ) -> None:
        self._books = books
        self._sight = sight
        self._settings = settings
        self._rules = rules
        self._now = now
        self._samples = sight.snapshot.samples if sight.snapshot is not None else ()

    def line(self) -> Line:
        """A line without heads."""
        return Line(self._settings.queue, self._now, len(self._samples))

    def wanted(self, entry: Reservation, line: Line) -> dict[str, int]:
        """The devices to keep for one that waits, and the bytes of each.

        Of the shapes the one that comes in first as the leases stand, on the devices where it does
        so, among those not kept for others. Empty when too few are left. Leases that are renewed
        again and again put that moment off: who has waited long is kept all that would do.
        """
        request = entry.request
        if request.within is not None:
            return {}
        if self._now.boottime - entry.created.boottime > longest_lead(self._settings.queue):
            return self._anywhere(request)
        best: tuple[float, dict[str, int]] | None = None
        for shape in request.shapes:
            moments = sorted(self._moments(request, shape, line))[: shape.device_count]
            if len(moments) < shape.device_count:
                continue
            moment = moments[-1][0]
            if best is None or moment < best[0]:
                best = (moment, {uuid: shape.bytes for _, _, uuid in moments})
        wanted = best[1] if best is not None else {}
        host = self._sight.host()
        if wanted and request.host_bytes and host is not None:
            uuid = host.info.uuid
            wanted[uuid] = wanted.get(uuid, 0) + request.host_bytes
        return wanted

    def _anywhere(self, request: ReserveRequest) -> dict[str, int]:
        """All devices that could ever carry one of its shapes, and the most that it may take."""
        wanted: dict[str, int] = {}
        for sample in self._samples:
            uuid, kind = sample.info.uuid, sample.info.kind
            most = (sample.info.memory_total_bytes or 0) - self._sight.reserves.of(sample)
            beside = request.host_bytes if kind is DeviceKind.HOST else 0
            barred = enforcement_rule(sample, request, self._settings)
            shapes = () if barred else request.shapes
            sizes = [beside, *(s.bytes + beside for s in shapes if eligible(uuid, kind, s))]
            if size := max(size if size <= most else 0 for size in sizes):
                wanted[uuid] = size
        return wanted

    def _moments(
        self, request: ReserveRequest, shape: Shape, line: Line
    ) -> Iterator[tuple[float, int, str]]:
        """When the shape fits on each device that is not kept; the roomiest first of equals."""
        for sample in self._samples:
            uuid, terms = sample.info.uuid, self._sight.terms(sample, self._books)
            barred = (
                line.keeps(uuid)
                or not eligible(uuid, sample.info.kind, shape)
                or enforcement_rule(sample, request, self._settings)
            )
            room = terms.grantable_bytes or 0
            if barred or shape.bytes > room_of(terms):
                continue
            moment = comes_in(self._books, uuid, room, shape.bytes, alone=request.exclusive)
            yield (NEVER_KNOWN if self._rules[uuid] else moment), -room, uuid
