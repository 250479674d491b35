"""A ledger at work: a clock, devices of 24 GiB of which nothing is kept back, and who comes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from gpud.devices.snapshot import DeviceKind, Sample
from gpud.events import Event
from gpud.ledger.admission.policy import LedgerSettings, PreemptionSettings, QueueSettings
from gpud.ledger.change import Change
from gpud.ledger.charge import Reserves
from gpud.ledger.invariants import violations
from gpud.ledger.ledger import Ledger
from gpud.ledger.reservation import Reservation, ReservationState, ReserveRequest
from tests.fakes.cards import GIB, sample, snapshot
from tests.fakes.clock import FakeClock

RESERVES = Reserves(device_bytes=0, host_bytes=0)
HOST = sample(kind=DeviceKind.HOST, total=64 * GIB)


def settled(
    queue: dict[str, Any] | None = None, preemption: dict[str, Any] | None = None, **more: Any
) -> LedgerSettings:
    """Policy with some of it set; preemption is on as soon as anything of it is."""
    return LedgerSettings(
        reserves=RESERVES,
        release_deadline_seconds=10.0,
        queue=QueueSettings(**{"ageing_seconds": 60.0, **(queue or {})}),
        preemption=PreemptionSettings(**({"on": True, **preemption} if preemption else {})),
        **more,
    )


class Desk:
    """Every change is kept as the store would, and what must always hold is looked at."""

    def __init__(self, *cards: Sample, settings: LedgerSettings | None = None) -> None:
        self.clock = FakeClock()
        self.settings = settings or settled()
        self.ledger = Ledger(self.settings)
        self.disk: dict[str, bytes] = {}
        self.events: list[Event] = []
        self.cards: tuple[Sample, ...] = ()
        self.show(*(cards or (sample(0), sample(1))))

    # The world.

    def show(self, *cards: Sample) -> None:
        """A tick in which the devices show this, and whoever waits is served."""
        now = self.clock.boottime
        self.cards = tuple(
            replace(
                card,
                boottime=now,
                listed_boottime=None if card.listed_boottime is None else now,
            )
            for card in cards
        )
        shown = snapshot(*self.cards, boottime=now)
        self.keep(self.ledger.observe(shown, self.clock.now()))
        self.serve()

    def pass_seconds(self, seconds: float) -> None:
        """Time passes, the devices are looked at all the while, what is due ends."""
        self.clock.advance(seconds)
        self.show(*self.cards)
        self.keep(self.ledger.expire(self.clock.now()))
        self.show(*self.cards)

    def restart(self) -> None:
        """Another life of the daemon, from what was kept."""
        cordons = dict(self.ledger.books.cordons)
        if self.ledger.books.drain is not None:
            cordons[""] = self.ledger.books.drain
        self.ledger = Ledger(self.settings)
        stored = [msgspec.json.decode(body, type=Reservation) for body in self.disk.values()]
        self.keep(self.ledger.restore(stored, (), self.clock.now(), cordons))

    # Who comes.

    def reserve(self, id_: str, gib: float, **asked: Any) -> Reservation:
        """As asked; bytes that do not fit are refused unless max_wait_seconds is given."""
        request = asking(gib, **asked)
        made, change = self.ledger.reserve(request, id_, self.clock.now())
        self.keep(change)
        return made

    def wait(self, id_: str, gib: float, **asked: Any) -> Reservation:
        """One that has to wait, without end unless said."""
        made = self.reserve(id_, gib, **{"max_wait_seconds": None, **asked})
        assert made.queued, made
        # Equal moments hardly ever happen; the order of arrival is to be plain.
        self.clock.advance(0.001)
        return made

    def release(self, id_: str, *, holder: bool = False) -> Reservation:
        """It ends, and whoever waits is served in the same step."""
        ended, change = self.ledger.release(id_, None, self.clock.now(), holder=holder)
        self.keep(change)
        self.serve()
        return ended

    def renew(self, id_: str, ttl_seconds: float | None = None) -> Reservation:
        renewed, change = self.ledger.renew(id_, None, ttl_seconds, self.clock.now())
        self.keep(change)
        return renewed

    def serve(self) -> None:
        self.keep(self.ledger.serve(self.clock.now()))

    # What is seen.

    def held(self, id_: str) -> Reservation:
        return self.ledger.books.reservations[id_]

    def state(self, id_: str) -> ReservationState:
        return self.held(id_).state

    def places(self, id_: str) -> list[str]:
        """The aliases of what it holds."""
        return [grant.device.removeprefix("U-") for grant in self.held(id_).grants]

    def grantable(self, alias: str = "gpu0") -> float:
        """GiB."""
        terms = self.ledger.charges()[f"U-{alias}"]
        return (terms.grantable_bytes or 0) / GIB

    def granted(self) -> set[str]:
        """Ids of those that have their bytes."""
        held = self.ledger.books.reservations.values()
        return {each.id for each in held if each.state is ReservationState.GRANTED}

    def told(self, type_: str) -> list[str]:
        """The subjects of all events of a type."""
        return [event.subject for event in self.events if event.type == type_]

    def why(self, id_: str) -> str:
        return self.ledger.why_waiting(self.held(id_), self.clock.now())

    def keep(self, change: Change) -> None:
        for reservation in change.reservations:
            self.disk[reservation.id] = msgspec.json.encode(reservation)
        for id_ in change.forgotten:
            del self.disk[id_]
        self.events += change.events
        stored = {
            id_: msgspec.json.decode(body, type=Reservation) for id_, body in self.disk.items()
        }
        assert stored == self.ledger.books.reservations
        assert violations(self.ledger.books, None, RESERVES, {}) == []


def asking(gib: float, **asked: Any) -> ReserveRequest:
    """A request of so many GiB a device."""
    return ReserveRequest(**{"owner": "me", "bytes": int(gib * GIB), **asked})
