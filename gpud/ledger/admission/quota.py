"""Pure: how much one owner may have, and how many may wait.

An owner has what is booked for it (granted, or on its way back) and what its waiting requests ask
for, each the largest of its shapes: so what may wait comes in later without going beyond. Where it
would after all (a smaller quota since, a larger device), it waits on, and nothing is kept for it.
What lies within a standing reservation is that one's bytes; that one itself counts for its owner,
and is never refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

from gpud.devices.snapshot import DeviceKind, Sample
from gpud.errors import QueueFull, QuotaExceeded
from gpud.ledger.admission.outlook import ends
from gpud.ledger.admission.placement import eligible
from gpud.ledger.admission.policy import LedgerSettings, QueueSettings
from gpud.ledger.books import Books
from gpud.ledger.reservation import Deadline, Grant, Reservation, ReserveRequest, Shape
from gpud.ledger.sight import Sight
from gpud.units import format_size

_WAITING = "waiting requests"
_RELEASE = "release one (`gpuctl reservations`)"
_LET_IN = "let one come in first, or release it (`gpuctl reservations`)"


class _Bytes(NamedTuple):
    """Of all devices but the host, and of the host."""

    gpu: int
    host: int


class Limits:
    """Weighs requests against what their owners have, on the newest books."""

    def __init__(self, books: Books, sight: Sight, settings: LedgerSettings) -> None:
        self._books = books
        self._sight = sight
        self._settings = settings

    def check(self, request: ReserveRequest) -> None:
        """Refuse a newcomer whose owner has enough, or would have too much with it.

        Of an EXCLUSIVE one only what it asks at least is weighed: `check_grants` and `check_wait`
        know what it gets. Raises QuotaExceeded.
        """
        owner, quota = request.owner, self._settings.quotas.of(request.owner)
        most = self._queue.max_reservations_per_owner
        if quota is None and not most:
            return
        limits = [("policy.max_reservations_per_owner", most)]
        if quota is not None:
            limits.append((f"{quota.key}.reservations", quota.reservations))
        held = self._books.live[owner] + self._books.waiting[owner]
        _check_count(owner, held, [each for each in limits if each[1]], "reservations", _RELEASE)
        if quota is not None:
            self._check_bytes(request, self._most(request, whole=False), waiting=True)

    def check_wait(self, request: ReserveRequest) -> None:
        """Refuse one that would wait where enough wait. Raises QuotaExceeded, QueueFull."""
        owner, quota = request.owner, self._settings.quotas.of(request.owner)
        if len(self._books.queued) >= self._queue.max_queued:
            raise QueueFull(limit=self._queue.max_queued)
        limits = [("policy.max_queue_per_owner", self._queue.max_queued_per_owner)]
        if quota is not None and quota.queued:
            limits.append((f"{quota.key}.queued", quota.queued))
        waiting = self._books.waiting[owner]
        _check_count(owner, waiting, limits, _WAITING, _LET_IN)
        if quota is not None and request.exclusive:
            self._check_bytes(request, self._most(request, whole=True), waiting=True)

    def check_grants(self, request: ReserveRequest, grants: Iterable[Grant]) -> None:
        """Refuse a newcomer that would be granted too much. Raises QuotaExceeded."""
        if self._settings.quotas:
            self._check_bytes(request, self._sum(grants), waiting=True)

    def check_booked(self, request: ReserveRequest, grants: Iterable[Grant]) -> None:
        """As `check_grants`, beside what is booked alone: of one that has waited, and others do.

        Raises QuotaExceeded.
        """
        if self._settings.quotas:
            self._check_bytes(request, self._sum(grants), waiting=False)

    def bars(self, request: ReserveRequest) -> bool:
        """Whether one that waits stays out by its owner's quota, whatever comes free."""
        if not self._settings.quotas:
            return False
        return all(self._is_over(request, shape) for shape in request.shapes)

    @property
    def _queue(self) -> QueueSettings:
        return self._settings.queue

    def _is_over(self, request: ReserveRequest, shape: Shape) -> bool:
        try:
            self._check_bytes(request, self._asks(request, shape, whole=False), waiting=False)
        except QuotaExceeded:
            return True
        return False

    def _check_bytes(self, request: ReserveRequest, asked: _Bytes, *, waiting: bool) -> None:
        owner, quota = request.owner, self._settings.quotas.of(request.owner)
        if quota is None or request.standing or request.within is not None:
            return
        held = self._booked(owner)
        if waiting and self._books.waiting[owner]:
            waits = self._waits_for(owner)
            held = _Bytes(held.gpu + waits.gpu, held.host + waits.host)
        for name, limit, has, more in (
            ("gpu_bytes", quota.gpu_bytes, held.gpu, asked.gpu),
            ("host_bytes", quota.host_bytes, held.host, asked.host),
        ):
            if limit and more and has + more > limit:
                raise QuotaExceeded(
                    owner=owner,
                    limit_name=f"{quota.key}.{name}",
                    limit=limit,
                    held=has,
                    asked=more,
                    unit="bytes",
                    advice=f"ask for at most {format_size(limit)}" if more > limit else _RELEASE,
                )

    def makes_room(self, exceeded: QuotaExceeded) -> Deadline | None:
        """When the owner's own leases, as they now stand, have ended so far that it would fit.

        None where they never do, or nobody can foretell it.
        """
        if exceeded.unit == _WAITING:
            return None
        over = exceeded.held + exceeded.asked - exceeded.limit
        own = [
            (end, held)
            for held in self._books.reservations.values()
            if held.owner == exceeded.owner and (end := ends(held)) is not None
        ]
        for end, held in sorted(own, key=lambda each: each[0].boottime):
            over -= self._counted(held, exceeded)
            if over <= 0:
                return end
        return None

    # Counting.

    def _counted(self, held: Reservation, exceeded: QuotaExceeded) -> int:
        """What one counts for in what is exceeded."""
        if exceeded.unit != "bytes":
            return 1
        if held.within is not None:
            return 0
        booked = self._sum(held.grants)
        return booked.host if exceeded.limit_name.endswith(".host_bytes") else booked.gpu

    def _booked(self, owner: str) -> _Bytes:
        books, host = self._books, self._host
        booked = {uuid: books.booked[owner, uuid] for uuid in books.devices()}
        on_host = booked.get(host.info.uuid, 0) if host is not None else 0
        return _Bytes(sum(booked.values()) - on_host, on_host)

    def _waits_for(self, owner: str) -> _Bytes:
        asked = [
            self._most(entry.request, whole=True)
            for entry in self._books.queued.values()
            if entry.owner == owner and entry.within is None
        ]
        return _Bytes(sum(each.gpu for each in asked), sum(each.host for each in asked))

    def _sum(self, grants: Iterable[Grant]) -> _Bytes:
        host = self._host
        uuid = host.info.uuid if host is not None else None
        sizes = [(grant.device == uuid, grant.bytes) for grant in grants]
        on_host = sum(size for is_host, size in sizes if is_host)
        return _Bytes(sum(size for _, size in sizes) - on_host, on_host)

    def _most(self, request: ReserveRequest, *, whole: bool) -> _Bytes:
        """The most that a shape of it takes; `whole`: with all of the devices it wants alone."""
        asked = [self._asks(request, shape, whole=whole) for shape in request.shapes]
        return _Bytes(max(each.gpu for each in asked), max(each.host for each in asked))

    def _asks(self, request: ReserveRequest, shape: Shape, *, whole: bool) -> _Bytes:
        alone = whole and request.exclusive
        host = self._host
        takes_host = host is not None and eligible(host.info.uuid, DeviceKind.HOST, shape)
        named = len(shape.devices) - takes_host if shape.devices else shape.device_count
        count = min(shape.device_count, named)
        if takes_host and not shape.devices:
            count = 0
        ram = request.host_bytes
        if takes_host and host is not None:
            ram = self._room(host) if alone else ram + shape.bytes
        if not alone:
            return _Bytes(count * shape.bytes, ram)
        rooms = sorted((self._room(each) for each in self._largest(shape)), reverse=True)
        return _Bytes(sum(rooms[:count]), ram)

    def _largest(self, shape: Shape) -> list[Sample]:
        """The devices that it may be alone on, but the host; one cut into slices is none."""
        snapshot = self._sight.snapshot
        return [
            sample
            for sample in (snapshot.samples if snapshot is not None else ())
            if sample.info.kind is not DeviceKind.HOST
            and not (sample.readings.mig_enabled and sample.info.kind is DeviceKind.GPU)
            and eligible(sample.info.uuid, sample.info.kind, shape)
        ]

    def _room(self, sample: Sample) -> int:
        """What a grant of the whole device is at most."""
        return max(0, (sample.info.memory_total_bytes or 0) - self._sight.reserves.of(sample))

    @cached_property
    def _host(self) -> Sample | None:
        return self._sight.host()


def _check_count(
    owner: str, held: int, limits: list[tuple[str, int]], unit: str, advice: str
) -> None:
    """Refuse one more of what the smallest of some limits bounds. Raises QuotaExceeded."""
    if not limits:
        return
    name, limit = min(limits, key=lambda each: each[1])
    if held >= limit:
        raise QuotaExceeded(
            owner=owner,
            limit_name=name,
            limit=limit,
            held=held,
            asked=1,
            unit=unit,
            advice=advice,
        )
