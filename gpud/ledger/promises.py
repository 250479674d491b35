"""The ledger's decisions made durable: what is answered, watched or listed has been committed.

The ledger holds the newest decisions, `durable` what is committed; they differ by what is on its
way to the disk. When a commit fails, the newest are void and are read back from the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import msgspec
import structlog

from gpud.clock import Clock
from gpud.devices.snapshot import Snapshot
from gpud.errors import OptionInvalid, Reconciling, StoreReadOnly
from gpud.events import Event
from gpud.ledger.books import Books
from gpud.ledger.change import Change
from gpud.ledger.ledger import Ledger
from gpud.ledger.reservation import Reservation, ReserveRequest
from gpud.store import Committed, Row, SqliteStore, Write

log = structlog.get_logger()
T = TypeVar("T")

REQUESTS_KEPT_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What a request_id was first used for. The same id with another body is refused."""

    method: str
    digest: str
    result: str  # id of the reservation or instance
    wall: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Leaked bytes of a device, and the boot in which they leaked."""

    boot_id: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """How a mutating call came: who, and under which request_id with which body."""

    method: str
    request_id: str = ""
    digest: str = ""


@dataclass(slots=True)
class Requests:
    """Request ids and what they led to; `pending` ones are on their way to the disk."""

    known: dict[str, Remembered] = field(default_factory=dict)
    pending: dict[str, asyncio.Future[Committed]] = field(default_factory=dict)

    def find(self, call: Call) -> Remembered | None:
        """What the id led to before. Raises OptionInvalid when it was another request."""
        known = self.known.get(call.request_id) if call.request_id else None
        if known is not None and (known.method, known.digest) != (call.method, call.digest):
            raise OptionInvalid(
                field="request_id",
                problem=f"{call.request_id!r} was used for another {known.method}; "
                "send each new request with a new id",
            )
        return known


class Promises:
    """Reserve, renew and release for the world; HELD promises for the instances."""

    def __init__(self, ledger: Ledger, store: SqliteStore, clock: Clock) -> None:
        self.ledger = ledger
        self.durable = Books()
        self.requests = Requests()
        self.unreadable = ""  # why the store could not be read back after a failure
        self.waiting_for = "the first sample of every device"
        self._store = store
        self._clock = clock
        self._ends: dict[str, asyncio.Event] = {}

    def restore(self) -> None:
        """Read the store into both books, at start and after a failed commit."""
        now = self._clock.now()
        read = self._store.read_rows
        reservations = [_decoded(body, Reservation) for _, body in read("reservation")]
        found = [(uuid, _decoded(body, Leak)) for uuid, body in read("leak")]
        # A reboot gives back what was leaked before it.
        leaks = [(uuid, leak.bytes) for uuid, leak in found if leak.boot_id == now.boot_id]
        settled = tuple((uuid, 0) for uuid, leak in found if leak.boot_id != now.boot_id)
        self.requests = Requests(
            known={id_: _decoded(body, Remembered) for id_, body in read("request")}
        )
        self.unreadable = ""
        restored = self.ledger.restore(reservations, leaks, now)
        change = replace(restored, leaks=settled)
        self.durable = Books()
        for reservation in self.ledger.books.reservations.values():
            self.durable.put(reservation)
        for uuid, leaked in leaks:
            self.durable.set_leak(uuid, leaked)
        if change:
            self.post(change)

    # What callers ask.

    async def reserve(self, request: ReserveRequest, id_: str, call: Call) -> Reservation:
        """Promise bytes; answered once durable. Raises what Ledger.reserve and admit raise."""
        known = self.requests.find(call)
        if known is not None:
            return await self._same_again(call, known)
        self.admit()
        reservation, change = self.ledger.reserve(request, id_, self._clock.now())
        await self._commit_call(change, call, reservation.id)
        return reservation

    def propose(self, request: ReserveRequest) -> Reservation:
        """What reserve would answer, promising nothing."""
        self.admit()
        return self.ledger.propose(request, "validate-only", self._clock.now())

    async def renew(
        self, id_: str, generation: int | None, ttl_seconds: float | None, call: Call
    ) -> Reservation:
        """Move a deadline; answered once durable."""
        known = self.requests.find(call)
        if known is not None:
            return await self._same_again(call, known)
        renewed, change = self.ledger.renew(id_, generation, ttl_seconds, self._clock.now())
        await self._commit_call(change, call, id_)
        return renewed

    async def release(self, id_: str, generation: int | None, call: Call) -> Reservation:
        """End a promise; answered once durable. Its bytes may still be RELEASING."""
        known = self.requests.find(call)
        if known is not None:
            return await self._same_again(call, known)
        released, change = self.ledger.release(id_, generation, self._clock.now())
        await self._commit_call(change, call, id_)
        return released

    async def freed(self, id_: str) -> None:
        """Wait until a reservation is durably booked no more."""
        reservation = self.durable.reservations.get(id_)
        if reservation is not None and reservation.booked:
            await self._ends.setdefault(id_, asyncio.Event()).wait()

    def admit(self) -> None:
        """Raise Reconciling or StoreReadOnly while nothing new may be promised."""
        if self.waiting_for:
            raise Reconciling(waiting_for=self.waiting_for)
        cause = self.unreadable or self._store.read_only_cause
        if cause:
            raise StoreReadOnly(cause=cause)

    # What the daemon drives.

    def observe(self, snapshot: Snapshot) -> None:
        """Let the ledger see what the devices show."""
        change = self.ledger.observe(snapshot, self._clock.now())
        if change:
            self.post(change)

    def expire(self) -> None:
        """End what is due."""
        change = self.ledger.expire(self._clock.now())
        if change:
            self.post(change)

    def post(self, change: Change, rows: tuple[Row, ...] = ()) -> None:
        """Queue a change that nobody waits for."""
        _ = self.commit(change, rows)

    def commit(
        self,
        change: Change,
        rows: tuple[Row, ...] = (),
        on_durable: Callable[[], None] = lambda: None,
    ) -> asyncio.Future[Committed]:
        """Queue a change with other rows of the same decision. Decisions queue in order."""
        for event in change.events:
            log.info(event.type, subject=event.subject, reason=event.reason, **event.details)
        write = Write(
            rows=(*rows_of(change, self._clock.now().boot_id), *rows),
            entries=tuple(event.entry() for event in change.events),
        )

        def durable() -> None:
            self._apply(change)
            on_durable()

        return self._store.append(write, durable)

    def remember(self, call: Call, result: str) -> tuple[Row, ...]:
        """The row that makes a request_id answer the same again."""
        if not call.request_id:
            return ()
        known = Remembered(
            method=call.method, digest=call.digest, result=result, wall=self._clock.now().wall
        )
        self.requests.known[call.request_id] = known
        return (Row(kind="request", id=call.request_id, body=msgspec.json.encode(known)),)

    def remember_only(self, call: Call, result: str) -> None:
        """Remember a request that changes nothing else of its own."""
        rows = self.remember(call, result)
        if rows:
            self.post(Change(), rows)

    def forget_old_requests(self) -> None:
        """Drop request ids older than a day."""
        oldest = self._clock.now().wall - REQUESTS_KEPT_SECONDS
        old = [id_ for id_, known in self.requests.known.items() if known.wall < oldest]
        for id_ in old:
            del self.requests.known[id_]
        if old:
            rows = tuple(Row(kind="request", id=id_, body=None) for id_ in old)
            self.post(Change(), rows)

    async def _commit_call(self, change: Change, call: Call, result: str) -> None:
        rows = self.remember(call, result)
        if not change and not rows:
            return
        done = self.commit(change, rows)
        if call.request_id:
            self.requests.pending[call.request_id] = done
            done.add_done_callback(partial(self._settled, call.request_id))
        # Shielded: a client that leaves does not undo a decision on its way to the disk.
        await asyncio.shield(done)

    def _settled(self, request_id: str, done: asyncio.Future[Committed]) -> None:
        self.requests.pending.pop(request_id, None)

    async def _same_again(self, call: Call, known: Remembered) -> Reservation:
        pending = self.requests.pending.get(call.request_id)
        if pending is not None:
            await asyncio.shield(pending)
        reservation = self.durable.reservations.get(known.result)
        if reservation is None:
            raise OptionInvalid(
                field="request_id",
                problem=f"{call.request_id!r} led to reservations/{known.result}, which ended "
                "and is no longer listed; send a new id",
            )
        return reservation

    def _apply(self, change: Change) -> None:
        for reservation in change.reservations:
            self.durable.put(reservation)
            if not reservation.booked and reservation.id in self._ends:
                self._ends.pop(reservation.id).set()
        for id_ in change.forgotten:
            self.durable.drop(id_)
        for uuid, leaked in change.leaks:
            self.durable.set_leak(uuid, leaked)


def rows_of(change: Change, boot_id: str) -> tuple[Row, ...]:
    """A change as records."""
    return (
        *(
            Row(kind="reservation", id=r.id, body=msgspec.json.encode(r))
            for r in change.reservations
        ),
        *(Row(kind="reservation", id=id_, body=None) for id_ in change.forgotten),
        *(
            Row(kind="leak", id=uuid, body=_leak_body(boot_id, leaked))
            for uuid, leaked in change.leaks
        ),
    )


def _leak_body(boot_id: str, leaked: int) -> bytes | None:
    return msgspec.json.encode(Leak(boot_id=boot_id, bytes=leaked)) if leaked else None


def _decoded(body: bytes, kind: type[T]) -> T:
    return msgspec.json.decode(body, type=kind)


def note(event: Event) -> Change:
    """A change that is only an event."""
    return Change(events=(event,))
