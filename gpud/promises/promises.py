"""The ledger's decisions made durable: what is answered, watched or listed has been committed.

The ledger holds the newest decisions, `durable` what is committed; they differ by what is on its
way to the disk. When a commit fails, the newest are void and are read back from the store.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import msgspec
import structlog
from msgspec import structs

from gpud.clock import Clock
from gpud.devices.snapshot import Snapshot
from gpud.errors import NotServing, OptionInvalid, Reconciling, StoreReadOnly
from gpud.events import Cause, Event, present_cause
from gpud.ledger.admission.explain import Explanation
from gpud.ledger.books import Books, Cordon
from gpud.ledger.change import Change, joined
from gpud.ledger.ledger import Ledger
from gpud.ledger.reservation import Attachment, Enforcement, Reservation, ReserveRequest
from gpud.promises.requests import Call, Remembered, Requests
from gpud.promises.watching import Watchers
from gpud.store import Committed, Row, SqliteStore, Write

log = structlog.get_logger()
T = TypeVar("T")
# In `_unreadable`: the store as a whole, not rows of a kind.
_STORE = ""
LOG_AFTER_SECONDS = 0.002


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Leaked bytes of a device, and the boot in which they leaked."""

    boot_id: str
    bytes: int


@dataclass(kw_only=True, eq=False)
class StoreUnreadable(StoreReadOnly):
    """Not all of the store can be read: what is promised is not wholly known."""

    def __str__(self) -> str:
        return f"cannot promise: the store cannot be read: {self.cause}"


class Promises:
    """Reserve, renew and release for the world; HELD promises for the instances."""

    def __init__(self, ledger: Ledger, store: SqliteStore, clock: Clock) -> None:
        self.ledger = ledger
        self.durable = Books()
        self.requests = Requests()
        self.watchers = Watchers()
        self.on_notice: Callable[[Reservation], None] = lambda _: None
        # Of a device, whether it was cordoned or not; once that is durable.
        self.on_uncordon: Callable[[str], None] = lambda _: None
        self._unreadable: dict[str, str] = {}  # why not, by kind of row
        self.waiting_for = "the first sample of every device"
        self.revision = 0  # of `durable`: grows with each change of it
        self._store = store
        self._clock = clock
        self._newest: asyncio.Future[Committed] | None = None
        self._untold: list[Event] = []
        # By reservation whose bytes are awaited: the call that ended it.
        self._ended_by: dict[str, Cause] = {}

    @property
    def unreadable(self) -> str:
        """What of the store cannot be read, and what to do; nothing new is promised then."""
        return next(iter(self._unreadable.values()), "")

    def read(self, kind: str, type_: type[T]) -> dict[str, T]:
        """The records of a kind, by id; those that make no sense are told in `unreadable`.

        Raises sqlite3.Error.
        """
        found, senseless = {}, []
        for id_, body in self._store.read_rows(kind):
            try:
                found[id_] = msgspec.json.decode(body, type=type_)
            except (msgspec.MsgspecError, TypeError, ValueError) as error:
                log.warning("store.unreadable", kind=kind, id=id_, problem=str(error))
                senseless.append((id_, str(error)))
        self._unreadable.pop(kind, None)
        if senseless:
            self._unreadable[kind] = _advice(kind, senseless)
        return found

    def restore(self) -> None:
        """Read the store into both books, at start and after a failed commit.

        Raises sqlite3.Error; until it has succeeded nothing new is promised.
        """
        now = self._clock.now()
        self._unreadable[_STORE] = "it is being read"
        try:
            reservations = self.read("reservation", Reservation).values()
            cordons = self.read("cordon", Cordon)
            found = self.read("leak", Leak).items()
            known = self.read("request", Remembered)
        except sqlite3.Error as error:
            self._unreadable[_STORE] = str(error)
            raise
        # A reboot gives back what was leaked before it.
        leaks = [(uuid, leak.bytes) for uuid, leak in found if leak.boot_id == now.boot_id]
        settled = tuple((uuid, 0) for uuid, leak in found if leak.boot_id != now.boot_id)
        self.requests = Requests(known=known)
        restored = self.ledger.restore(reservations, leaks, now, cordons)
        change = structs.replace(restored, leaks=settled)
        self.durable = Books()
        self._ended_by.clear()
        self.revision += 1
        self.watchers.wake_all()
        for reservation in self.ledger.books.reservations.values():
            self.durable.put(reservation)
        for uuid, leaked in leaks:
            self.durable.set_leak(uuid, leaked)
        for uuid, cordon in cordons.items():
            self.durable.set_cordon(uuid, cordon)
        del self._unreadable[_STORE]
        if change:
            self.post(change)

    # What callers ask.

    async def reserve(self, request: ReserveRequest, id_: str, call: Call) -> Reservation:
        """Promise bytes or queue the request; answered once durable.

        Raises what Ledger.reserve and admit raise.
        """
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

    def explain(self, request: ReserveRequest) -> Explanation:
        """Why a request fits or not. Raises Reconciling, ReservationNotFound, WrongState."""
        return self.ledger.explain(request, self._clock.now())

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

    async def release(
        self, id_: str, generation: int | None, call: Call, *, by: str = ""
    ) -> Reservation:
        """End a promise for `by`; answered once durable. Its bytes may still be RELEASING."""
        known = self.requests.find(call)
        if known is not None:
            return await self._same_again(call, known)
        released, change = self.ledger.release(id_, generation, self._clock.now(), by=by)
        await self._commit_call(joined([change, self.served()]), call, id_)
        return released

    async def revoke(self, id_: str, reason: str, call: Call | None = None) -> None:
        """End a promise that cannot be kept as asked for; `call`, which is refused, is forgotten.

        Raises ReservationNotFound, StoreReadOnly.
        """
        _, change = self.ledger.revoke(id_, reason, self._clock.now())
        rows: tuple[Row, ...] = ()
        if call is not None and (known := self.requests.known.get(call.key)):
            # Sent again meanwhile, it may have led to another promise: that is not forgotten.
            rows = self.requests.forget(call) if known.result == id_ else ()
        change = joined([change, self.served()])
        if change or rows:
            await asyncio.shield(self.commit(change, rows))

    async def attach(
        self,
        id_: str,
        generation: int | None,
        look_up: Callable[[], Attachment],
        call: Call,
        *,
        by: str = "",
    ) -> Reservation:
        """Make a process or cgroup the owner's for `by`; answered once durable.

        `look_up` finds it as it is now; asked again with its request_id, it may be gone.
        """
        known = self.requests.find(call)
        if known is not None:
            return await self._same_again(call, known)
        now = self._clock.now()
        attached, change = self.ledger.attach(id_, generation, look_up(), now, by=by)
        await self._commit_call(change, call, id_)
        return attached

    async def enforced(self, id_: str, by: Enforcement) -> None:
        """Note what keeps others off a reservation's devices; returns once durable."""
        change = self.ledger.enforced(id_, by)
        if change:
            await asyncio.shield(self.commit(change))

    async def cordon(self, uuid: str, cordon: Cordon | None, actor: str, call: Call) -> None:
        """Cordon a device, or lift that (None); the empty UUID is the whole node."""
        if self.requests.find(call) is not None:
            await self.requests.settled(call)
            return
        change = self.ledger.cordon(uuid, cordon, actor, self._clock.now())
        served = self.served() if cordon is None else Change()
        then = partial(self.on_uncordon, uuid) if uuid and cordon is None else _nothing
        await self._commit_call(joined([change, served]), call, uuid, then)

    def condemn(self, uuid: str, cordon: Cordon, rows: tuple[Row, ...]) -> None:
        """Cordon a device by gpud's own decision; `rows` are kept with it."""
        self.post(self.ledger.cordon(uuid, cordon, cordon.actor, self._clock.now()), rows)

    def keep(self, rows: tuple[Row, ...]) -> None:
        """Keep records that change nothing else."""
        self.post(Change(), rows)

    async def freed(self, id_: str) -> None:
        """Wait until a reservation is durably booked no more."""
        await self.watchers.until(id_, lambda: self.durable, lambda held: not held.booked)

    async def admitted(self, id_: str) -> Reservation | None:
        """Wait until a queued reservation is durably granted, or has ended; None: forgotten."""
        await self.watchers.until(id_, lambda: self.durable, lambda held: not held.queued)
        return self.durable.reservations.get(id_)

    def admit(self) -> None:
        """Raise Reconciling or StoreReadOnly while nothing new may be promised."""
        if self.waiting_for:
            raise Reconciling(waiting_for=self.waiting_for)
        if self._unreadable:
            raise StoreUnreadable(cause=self.unreadable)
        if self._store.read_only_cause:
            raise StoreReadOnly(cause=self._store.read_only_cause)

    def served(self) -> Change:
        """Whoever of the queue fits now is granted, unless nothing may be promised."""
        try:
            self.admit()
        except NotServing:
            return Change()
        return self.ledger.serve(self._clock.now())

    async def settled(self) -> None:
        """Wait until what was decided so far is durable, or void."""
        if self._newest is not None and not self._newest.done():
            await asyncio.wait([self._newest])

    # What the daemon drives.

    def begin(self) -> None:
        """From now on new promises are made: first to those that wait, the standing ones ahead."""
        self.waiting_for = ""
        self._post_and_serve(Change(), always=True)

    def observe(self, snapshot: Snapshot) -> None:
        """Let the ledger see what the devices show, and serve whoever waits for that."""
        change = self.ledger.observe(snapshot, self._clock.now())
        self._post_and_serve(change, always=True)

    def expire(self) -> None:
        """End what is due."""
        self._post_and_serve(self.ledger.expire(self._clock.now()))

    def stand(self, wanted: dict[str, ReserveRequest], *, keep: frozenset[str]) -> None:
        """Hold the standing reservations that are wanted, and no others but those to keep.

        They wait until `begin`. Nothing without a store; the next snapshot tries again.
        """
        now, ledger = self._clock.now(), self.ledger
        if self._unreadable or self._store.read_only_cause:
            return
        gone = ledger.books.standing.keys() - keep - wanted.keys()
        changes = [ledger.unstand(id_, now) for id_ in sorted(gone)]
        changes += [ledger.stand(id_, request, now) for id_, request in wanted.items()]
        self._post_and_serve(joined(changes))

    def _post_and_serve(self, change: Change, *, always: bool = False) -> None:
        if change or always:
            change = joined([change, self.served()])
        if change:
            self.post(change)

    def post(self, change: Change, rows: tuple[Row, ...] = ()) -> None:
        """Queue a change that nobody waits for."""
        _ = self.commit(change, rows)

    def commit(
        self,
        change: Change,
        rows: tuple[Row, ...] = (),
        on_durable: Callable[[], None] = _nothing,
    ) -> asyncio.Future[Committed]:
        """Queue a change with other rows of the same decision. Decisions queue in order."""
        for event in change.events:
            if event.type == "reservation.releasing" and (by := event.cause or present_cause()):
                self._ended_by[event.subject] = by
        cause = present_cause() if change.events else None
        write = Write(
            rows=(*rows_of(change, self._clock.now().boot_id), *rows),
            entries=tuple(
                event.entry(self._ended_by.get(event.subject, cause)) for event in change.events
            ),
        )

        def durable() -> None:
            self._apply(change)
            self._log_soon(change.events)
            on_durable()

        self._newest = self._store.append(write, durable)
        return self._newest

    def log_untold(self) -> None:
        """Log the events that became durable since the last time."""
        events, self._untold = self._untold, []
        for event in events:
            log.info(event.type, subject=event.subject, reason=event.reason, **event.details)

    def remember(self, call: Call, result: str) -> tuple[Row, ...]:
        """The row that makes a request_id answer the same again."""
        return self.requests.remember(call, result, self._clock.now().wall)

    def remember_only(self, call: Call, result: str) -> None:
        """Remember a request that changes nothing else of its own."""
        rows = self.remember(call, result)
        if rows:
            self.post(Change(), rows)

    def forget_old_requests(self) -> None:
        """Drop request ids older than a day."""
        rows = self.requests.forget_old(self._clock.now().wall)
        if rows:
            self.post(Change(), rows)

    async def _commit_call(
        self, change: Change, call: Call, result: str, then: Callable[[], None] = _nothing
    ) -> None:
        rows = self.remember(call, result)
        if not change and not rows:
            # What is answered may be another's decision, still on its way to the disk.
            if self._newest is not None and not self._newest.done():
                await asyncio.shield(self._newest)
            then()
            return
        done = self.commit(change, rows, then)
        self.requests.await_commit(call, done)
        # Shielded: a client that leaves does not undo a decision on its way to the disk.
        await asyncio.shield(done)

    async def _same_again(self, call: Call, known: Remembered) -> Reservation:
        await self.requests.settled(call)
        reservation = self.durable.reservations.get(known.result)
        if reservation is None:
            raise OptionInvalid(
                field="request_id",
                problem=f"{call.request_id!r} led to reservations/{known.result}, which ended "
                "and is no longer listed; send a new id",
            )
        return reservation

    def _log_soon(self, events: Sequence[Event]) -> None:
        """Log them once their callers have been answered: that takes as long as a small commit."""
        if events and not self._untold:
            asyncio.get_running_loop().call_later(LOG_AFTER_SECONDS, self.log_untold)
        self._untold += events

    def _apply(self, change: Change) -> None:
        self.revision += 1
        queued = self.durable.queued
        moved = any(each.queued or each.id in queued for each in change.reservations)
        for reservation in change.reservations:
            self.durable.put(reservation)
            if not reservation.booked:
                self._ended_by.pop(reservation.name, None)
            if reservation.notice is not None and reservation.instance is not None:
                self.on_notice(reservation)
        for id_ in change.forgotten:
            self.durable.drop(id_)
        for uuid, leaked in change.leaks:
            self.durable.set_leak(uuid, leaked)
        for uuid, cordon in change.cordons:
            self.durable.set_cordon(uuid, cordon)
        self.watchers.tell(change, self.durable, moved=moved)


def rows_of(change: Change, boot_id: str) -> tuple[Row, ...]:
    """A change as records; of several versions of a reservation the last counts."""
    newest = {r.id: r for r in change.reservations}
    return (
        *(Row(kind="reservation", id=id_, body=encoded(r)) for id_, r in newest.items()),
        *(Row(kind="reservation", id=id_, body=None) for id_ in change.forgotten),
        *(
            Row(kind="leak", id=uuid, body=_leak_body(boot_id, leaked))
            for uuid, leaked in change.leaks
        ),
        *(
            Row(kind="cordon", id=uuid, body=None if cordon is None else encoded(cordon))
            for uuid, cordon in change.cordons
        ),
    )


def encoded(value: object) -> bytes:
    """A value as the body of a row."""
    return msgspec.json.encode(value)


def _leak_body(boot_id: str, leaked: int) -> bytes | None:
    return encoded(Leak(boot_id=boot_id, bytes=leaked)) if leaked else None


def _advice(kind: str, senseless: list[tuple[str, str]]) -> str:
    id_, problem = senseless[0]
    more = f" and {len(senseless) - 1} more of them" if len(senseless) > 1 else ""
    forget = "DELETE FROM rows WHERE kind = '%s' AND id = '%s'" % (kind, id_.replace("'", "''"))  # noqa: S608, UP031 — for a person
    return (
        f"the row {kind} {id_!r} of state.db{more} makes no sense ({problem}); "
        f"stop gpud, mend the row or forget it ({forget}), start gpud"
    )


def note(event: Event) -> Change:
    """A change that is only an event."""
    return Change(events=(event,))
