"""The ledger against an independent model: any sequence of requests, ticks, clocks and crashes."""

from __future__ import annotations

import os

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from gpud.clock import Moment
from gpud.devices.snapshot import ProcessUse, Sample
from gpud.errors import DeviceUnavailable, SamplesStale, VramInsufficient
from gpud.ledger.admission.policy import LedgerSettings
from gpud.ledger.change import Change
from gpud.ledger.charge import Reserves
from gpud.ledger.invariants import violations
from gpud.ledger.ledger import Ledger
from gpud.ledger.reservation import Reservation, ReservationState, ReserveRequest
from gpud.units import GIB
from tests.fakes.cards import process, sample, snapshot
from tests.fakes.clock import FakeClock

RESERVES = Reserves(device_bytes=GIB // 2, host_bytes=2 * GIB)
SETTINGS = LedgerSettings(reserves=RESERVES, release_deadline_seconds=10.0)
CARDS, CARD_BYTES = 2, 24 * GIB
SIZES = st.sampled_from([1, GIB // 4, GIB, 5 * GIB, 11 * GIB, 23 * GIB, 30 * GIB])


class LedgerMachine(RuleBasedStateMachine):
    """`promised` and `disk` are the model: what was answered, and what is durable."""

    @initialize()
    def start(self) -> None:
        self.clock = FakeClock()
        self.ledger = Ledger(SETTINGS)
        self.disk: dict[str, bytes] = {}
        self.leaks: dict[str, int] = {}
        self.promised: dict[str, tuple[dict[str, int], float]] = {}
        self.running: dict[int, tuple[int, int, str | None]] = {}  # pid → card, bytes, claim
        self.stuck = [0] * CARDS  # freed by processes, still shown by the card
        self.made = 0
        self.tick()

    # What the world does.

    @rule()
    def tick(self) -> None:
        self.clock.advance(1.0)
        now = self.clock.now()
        self.keep(self.ledger.observe(snapshot(*map(self.card, range(CARDS))), now))

    @rule(size=SIZES, count=st.integers(1, 2), ttl=st.sampled_from([1.0, 20.0, 600.0]))
    def reserve(self, size: int, count: int, ttl: float) -> None:
        self.made += 1
        request = ReserveRequest(owner="me", bytes=size, device_count=count, ttl_seconds=ttl)
        terms = self.ledger.charges()
        fits = sum(size <= (each.grantable_bytes or 0) for each in terms.values()) >= count
        try:
            made, change = self.ledger.reserve(request, f"r{self.made}", self.clock.now())
        except VramInsufficient:
            assert not fits
            return
        except (SamplesStale, DeviceUnavailable):
            return
        assert fits
        self.keep(change)
        grants = {grant.device: grant.bytes for grant in made.grants}
        self.promised[made.id] = (grants, self.clock.boottime + ttl)

    @precondition(lambda self: self.promised)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.promised)))
        self.keep(self.ledger.release(id_, None, self.clock.now())[1])
        del self.promised[id_]

    @precondition(lambda self: self.promised)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.promised)))
        grants, deadline = self.promised[id_]
        if deadline > self.clock.boottime:
            self.keep(self.ledger.renew(id_, None, 30.0, self.clock.now())[1])
            self.promised[id_] = (grants, self.clock.boottime + 30.0)

    @precondition(lambda self: self.promised)
    @rule(data=st.data(), size=st.integers(1, 8))
    def start_process(self, data: st.DataObject, size: int) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.promised)))
        card = int(next(iter(self.promised[id_][0])).removeprefix("U-gpu"))
        self.run(card, size * GIB // 4, id_)

    @rule(card=st.integers(0, CARDS - 1), size=st.integers(1, 8))
    def foreign_process(self, card: int, size: int) -> None:
        self.run(card, size * GIB // 4, None)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), lag=st.booleans())
    def end_process(self, data: st.DataObject, lag: bool) -> None:
        card, size, _ = self.running.pop(data.draw(st.sampled_from(sorted(self.running))))
        self.stuck[card] += size if lag else 0

    @rule(card=st.integers(0, CARDS - 1))
    def memory_comes_back(self, card: int) -> None:
        self.stuck[card] = 0

    @rule(seconds=st.sampled_from([0.5, 5.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.expire()

    @rule(seconds=st.sampled_from([-3600.0, 3600.0]))
    def the_date_is_set(self, seconds: float) -> None:
        self.clock.step_wall(seconds)
        self.expire()

    @rule()
    def crash(self) -> None:
        """The daemon is killed and comes back: what was durable is all there is."""
        self.ledger = Ledger(SETTINGS)
        stored = [msgspec.json.decode(body, type=Reservation) for body in self.disk.values()]
        self.keep(self.ledger.restore(stored, self.leaks.items(), self.clock.now()))
        self.tick()

    # The model's own parts.

    def run(self, card: int, size: int, claim: str | None) -> None:
        if sum(each[1] for each in self.running.values() if each[0] == card) < 12 * GIB:
            self.running[len(self.running) + 1000 * (self.made + 1)] = (card, size, claim)

    def card(self, index: int) -> Sample:
        here: tuple[ProcessUse, ...] = tuple(
            process(pid, size, claim)
            for pid, (card, size, claim) in self.running.items()
            if card == index
        )
        used = sum(each.used_bytes or 0 for each in here) + self.stuck[index]
        return sample(index, used=used, processes=here, boottime=self.clock.boottime)

    def expire(self) -> None:
        self.keep(self.ledger.expire(self.clock.now()))
        for id_, (_, deadline) in list(self.promised.items()):
            if deadline <= self.clock.boottime:
                del self.promised[id_]

    def keep(self, change: Change) -> None:
        for reservation in change.reservations:
            self.disk[reservation.id] = msgspec.json.encode(reservation)
        for id_ in change.forgotten:
            del self.disk[id_]
        self.leaks.update(change.leaks)

    # What must hold after every step.

    @invariant()
    def nothing_is_oversold_or_forgotten(self) -> None:
        if not hasattr(self, "ledger"):
            return
        shown = snapshot(*map(self.card, range(CARDS)))
        assert violations(self.ledger.books, shown, RESERVES, {}) == []
        for id_, (grants, deadline) in self.promised.items():
            held = self.ledger.books.reservations[id_]
            assert {grant.device: grant.bytes for grant in held.grants} == grants
            if deadline > self.clock.boottime:
                assert held.state is ReservationState.GRANTED
        for uuid, book in self.ledger.books.devices().items():
            booked = sum(grants.get(uuid, 0) for grants, _ in self.promised.values())
            assert book.granted_bytes >= booked
            assert book.granted_bytes + book.leaked_bytes <= CARD_BYTES - RESERVES.device_bytes

    @invariant()
    def memory_equals_disk(self) -> None:
        if not hasattr(self, "ledger"):
            return
        stored = {
            id_: msgspec.json.decode(body, type=Reservation) for id_, body in self.disk.items()
        }
        assert stored == self.ledger.books.reservations


EXAMPLES = int(os.environ.get("GPUD_TEST_EXAMPLES", "150"))
TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_a_moment_is_all_the_ledger_knows_of_time() -> None:
    """The same decisions at the same moments give the same books, whenever they are taken."""
    books = []
    for _ in range(2):
        now = Moment(boot_id="b", boottime=5.0, wall=100.0)
        ledger = Ledger(SETTINGS)
        ledger.observe(snapshot(sample(0, boottime=5.0)), now)
        ledger.reserve(ReserveRequest(owner="me", bytes=GIB), "a", now)
        books.append(ledger.books.reservations)
    assert books[0] == books[1]
