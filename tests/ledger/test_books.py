"""The books: each is told once, and what is gone is forgotten."""

from __future__ import annotations

import gc

from gpud.ledger.books import Books
from gpud.ledger.charge import Reckoning, Reserves
from gpud.ledger.reservation import Priority, ReservationState
from gpud.ledger.sight import Sight
from tests.fakes.cards import GIB, process, sample, snapshot
from tests.ledger.desk import Desk, settled


def test_who_falls_due_is_told_once_however_often_its_end_moved() -> None:
    """A notice that came and went left the same deadline twice."""
    settings = settled(preemption={"grace_seconds": 30.0, "min_tenure_seconds": 0.0})
    desk = Desk(sample(0), settings=settings)
    desk.reserve("h", 20, ttl_seconds=100.0, preemptible=True, priority=Priority.BATCH)
    desk.show(sample(0, used=GIB, processes=(process(5, GIB, "h"),)))
    for number in range(3):
        desk.wait(f"a{number}", 20, priority=Priority.CRITICAL)
        desk.release(f"a{number}")
    desk.clock.advance(101)
    assert [each.id for each in desk.ledger.books.due(desk.clock.now())] == ["h"]


def test_an_end_that_moved_tells_its_owner_once() -> None:
    desk = Desk(sample(0))
    desk.reserve("h", 20, ttl_seconds=100.0)
    held = desk.renew("h", 200.0)
    assert held.state is ReservationState.GRANTED
    desk.renew("h", 100.0)
    desk.clock.advance(201)
    desk.keep(desk.ledger.expire(desk.clock.now()))
    assert desk.told("reservation.expired") == ["reservations/h"]


def test_what_is_known_of_a_device_goes_with_it() -> None:
    """Slices made anew again and again have a new UUID each time."""
    desk = Desk(sample(0))
    before = reckonings()
    for index in range(1, 20):
        desk.show(sample(0), sample(index, used=GIB // 4))
        desk.reserve(f"r{index}", 8, devices=(f"U-gpu{index}",), ttl_seconds=600.0)
        desk.release(f"r{index}")
    desk.show(sample(0))
    assert set(desk.ledger.books.devices()) <= {"U-gpu0"}
    assert reckonings() <= before


def test_the_baseline_of_a_card_that_comes_back_is_learned_anew() -> None:
    sight, books = Sight(Reserves(device_bytes=GIB, host_bytes=0)), Books()
    card = sample(0, used=GIB // 4)
    sight.look(snapshot(card))
    sight.learn_baseline(card, books)
    assert sight.baseline("U-gpu0") == GIB // 4
    sight.look(snapshot())
    assert sight.baseline("U-gpu0") == 0


def reckonings() -> int:
    gc.collect()
    return sum(isinstance(each, Reckoning) for each in gc.get_objects())


def test_the_book_of_a_device_that_is_gone_stays_while_it_says_anything() -> None:
    desk = Desk(sample(0), sample(1))
    desk.reserve("a", 8, devices=("U-gpu1",), ttl_seconds=600.0)
    desk.show(sample(0))
    assert desk.ledger.books.device("U-gpu1").granted_bytes == 8 * GIB
    desk.release("a")
    desk.ledger.books.set_leak("U-gpu1", GIB)
    desk.show(sample(0))
    assert desk.ledger.books.device("U-gpu1").leaked_bytes == GIB
