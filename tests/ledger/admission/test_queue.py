"""Who waits, who is next, how many may: cases with names and numbers."""

from __future__ import annotations

from typing import Any

import pytest

from gpud.devices.snapshot import Health
from gpud.errors import QueueFull, QuotaExceeded, VramInsufficient
from gpud.ledger.admission.queue import in_order
from gpud.ledger.reservation import Priority, ReservationState, Sharing
from gpud.rpc.errors import status_of
from tests.fakes.cards import GIB, process, sample
from tests.ledger.desk import HOST, Desk, asking, settled

EXCLUSIVE = {"sharing": Sharing.EXCLUSIVE}
BATCH, NORMAL, INTERACTIVE, CRITICAL = Priority
SPAN = 60.0


def line_of(desk: Desk) -> list[str]:
    queued = desk.ledger.books.queued.values()
    return [each.id for each in in_order(queued, desk.settings.queue)]


def full(**queue: Any) -> Desk:
    """One card, held whole by `h`."""
    desk = Desk(sample(0), settings=settled(queue=queue))
    desk.reserve("h", 24, ttl_seconds=7 * 86400.0)
    return desk


# The order.


@pytest.mark.parametrize(
    ("first", "second", "apart_seconds", "order"),
    [
        (BATCH, NORMAL, SPAN - 1, ["second", "first"]),
        (BATCH, NORMAL, SPAN + 1, ["first", "second"]),
        (BATCH, INTERACTIVE, 2 * SPAN - 1, ["second", "first"]),
        (BATCH, CRITICAL, 3 * SPAN - 1, ["second", "first"]),
        (BATCH, CRITICAL, 3 * SPAN + 1, ["first", "second"]),  # nobody starves
        (NORMAL, NORMAL, 1, ["first", "second"]),
        (CRITICAL, BATCH, 1, ["first", "second"]),
    ],
)
def test_a_class_is_worth_a_span_of_waiting(
    first: Priority, second: Priority, apart_seconds: float, order: list[str]
) -> None:
    desk = full()
    desk.reserve("first", 24, priority=first, max_wait_seconds=None)
    desk.pass_seconds(apart_seconds)
    desk.reserve("second", 24, priority=second, max_wait_seconds=None)
    assert line_of(desk) == order
    desk.release("h")
    assert desk.granted() == {order[0]}


def test_at_exactly_a_span_they_are_equal_and_arrival_decides() -> None:
    desk = full()
    desk.reserve("first", 24, priority=BATCH, max_wait_seconds=None)
    desk.pass_seconds(SPAN)
    desk.reserve("second", 24, priority=NORMAL, max_wait_seconds=None)
    assert line_of(desk) == ["first", "second"]


def test_the_order_of_two_never_changes_while_they_wait() -> None:
    desk = full()
    for number, priority in enumerate((BATCH, CRITICAL, NORMAL, INTERACTIVE, BATCH)):
        desk.reserve(f"w{number}", 24, priority=priority, max_wait_seconds=None)
        desk.pass_seconds(25)
    order = line_of(desk)
    desk.pass_seconds(10_000)
    assert line_of(desk) == order == ["w1", "w3", "w2", "w0", "w4"]


def test_without_classes_the_first_to_come_is_first() -> None:
    desk = full(by_priority=False)
    desk.wait("first", 24, priority=BATCH)
    desk.wait("second", 24, priority=CRITICAL)
    assert line_of(desk) == ["first", "second"]


def test_a_standing_reservation_is_before_all() -> None:
    desk = full()
    desk.wait("critical", 24, priority=CRITICAL)
    desk.clock.advance(10_000)
    desk.show(*desk.cards)
    request = asking(24, standing=True, ttl_seconds=None, max_wait_seconds=None, priority=BATCH)
    desk.keep(desk.ledger.stand("voice", request, desk.clock.now()))
    assert line_of(desk) == ["voice", "critical"]
    desk.release("h")
    assert desk.granted() == {"voice"}


def test_a_newcomer_of_a_higher_class_goes_before_who_waits() -> None:
    """It has room at once, and those that wait before it in order are not there."""
    desk = Desk(sample(0))
    desk.reserve("h", 12)
    desk.wait("batch", 24, priority=BATCH)
    with pytest.raises(VramInsufficient, match="kept for reservations/batch"):
        desk.reserve("same", 12, priority=BATCH, ttl_seconds=3600.0)
    desk.reserve("critical", 12, priority=CRITICAL, ttl_seconds=3600.0)
    assert desk.granted() == {"h", "critical"}
    assert desk.held("critical").passes == ()


# Waiting.


def test_an_answer_says_where_it_waits_and_for_what() -> None:
    desk = full()
    made = desk.wait("a", 8, max_wait_seconds=30.0)
    assert (made.state, made.grants, made.generation) == (ReservationState.QUEUED, (), 1)
    assert desk.why("a") == "8 GiB on gpu0: 0 B grantable of 24 GiB (granted 24 GiB)"
    desk.wait("b", 24)
    kept = "24 GiB on gpu0: kept for reservations/a, which waits before it; "
    assert desk.why("b") == kept + "0 B grantable of 24 GiB (granted 24 GiB)"
    (queued, _) = [each for each in desk.events if each.type == "reservation.queued"]
    assert queued.reason == desk.why("a")
    assert queued.details["max_wait_seconds"] == "30"


def test_the_grant_moves_the_generation_and_starts_the_ttl() -> None:
    desk = full()
    desk.wait("a", 8, ttl_seconds=60.0)
    desk.pass_seconds(300)
    desk.release("h")
    held = desk.held("a")
    assert (held.state, held.generation) == (ReservationState.GRANTED, 2)
    assert held.deadline is not None
    assert held.deadline.remaining_seconds(desk.clock.now()) == 60.0
    (told,) = [e for e in desk.events if e.subject == "reservations/a" and "granted" in e.type]
    assert told.details["waited_seconds"] == "300.001"


def test_who_may_not_wait_is_refused_and_leaves_nothing() -> None:
    desk = full()
    for asked in ({}, {"max_wait_seconds": 0.0}):
        with pytest.raises(VramInsufficient):
            desk.reserve("a", 1, **asked)
    assert "a" not in desk.ledger.books.reservations


def test_a_wait_ends_at_its_limit_and_not_before() -> None:
    desk = full()
    desk.wait("a", 8, max_wait_seconds=30.0)
    desk.wait("endless", 24)
    desk.pass_seconds(29.9)
    assert desk.state("a") is ReservationState.QUEUED
    desk.pass_seconds(0.2)
    assert desk.state("a") is ReservationState.EXPIRED
    assert desk.held("a").reason == "waited 30 s for its bytes"
    desk.pass_seconds(5 * 86400)
    assert desk.state("endless") is ReservationState.QUEUED


def test_setting_the_date_neither_ends_nor_stretches_a_wait() -> None:
    desk = full()
    desk.reserve("a", 8, max_wait_seconds=30.0)
    for step in (3600.0, -7200.0):
        desk.clock.step_wall(step)
        desk.pass_seconds(10)
        assert desk.state("a") is ReservationState.QUEUED
    desk.pass_seconds(10.1)
    assert desk.state("a") is ReservationState.EXPIRED


@pytest.mark.parametrize("how", ["released", "expired"])
def test_when_the_first_leaves_the_next_comes_in(how: str) -> None:
    desk = Desk(sample(0))
    desk.reserve("h", 12)
    desk.wait("head", 24, max_wait_seconds=40.0)
    desk.wait("next", 12, ttl_seconds=3600.0)
    assert desk.granted() == {"h"}
    if how == "released":
        desk.release("head")
    else:
        desk.pass_seconds(41)
    assert desk.granted() == {"h", "next"}


def test_all_that_fit_come_in_with_one_release() -> None:
    desk = full()
    for id_, size in (("a", 10), ("b", 8), ("c", 10), ("d", 5)):
        desk.wait(id_, size, ttl_seconds=3600.0)
    desk.release("h")
    # c waits now, and d may not take what c needs.
    assert desk.granted() == {"a", "b"}
    desk.release("a")
    assert desk.granted() == {"b", "c", "d"}


def test_memory_that_a_stranger_gives_back_lets_the_next_in() -> None:
    desk = Desk(sample(0, used=20 * GIB, processes=(process(7, 20 * GIB),)))
    desk.wait("a", 8)
    desk.show(sample(0))
    assert desk.state("a") is ReservationState.GRANTED


def test_a_device_that_comes_back_lets_the_next_in() -> None:
    desk = Desk(sample(0, health=Health.LOST))
    desk.wait("a", 8)
    assert desk.why("a") == "gpu0: lost"
    desk.show(sample(0))
    assert desk.state("a") is ReservationState.GRANTED


def test_one_that_needs_ram_waits_on_where_the_host_is_no_device_any_more() -> None:
    desk = Desk(sample(0), HOST)
    desk.reserve("h", 24)
    desk.wait("a", 8, host_bytes=GIB)
    desk.wait("b", 8)
    desk.show(sample(0))
    desk.release("h")
    assert desk.state("a") is ReservationState.QUEUED
    assert "host" in desk.why("a")
    assert desk.ledger.expected(desk.held("a"), desk.clock.now()) is None
    desk.show(sample(0), HOST)
    assert desk.granted() == {"a", "b"}


# Limits.


def test_no_more_wait_than_may() -> None:
    desk = full(max_queued=2)
    desk.wait("a", 1)
    desk.wait("b", 1)
    with pytest.raises(QueueFull) as refusal:
        desk.reserve("c", 1, max_wait_seconds=9.0, priority=CRITICAL)
    assert "2 requests wait already (policy.max_queue)" in str(refusal.value)
    assert status_of(refusal.value).code == 8
    assert "c" not in desk.ledger.books.reservations
    desk.release("a")
    desk.wait("c", 1)


def test_an_owner_has_no_more_waiting_than_one_may() -> None:
    desk = full(max_queued_per_owner=1)
    desk.wait("a", 1)
    with pytest.raises(QuotaExceeded) as refusal:
        desk.reserve("b", 1, max_wait_seconds=9.0)
    assert (refusal.value.owner, refusal.value.limit) == ("me", 1)
    assert "policy.max_queue_per_owner" in str(refusal.value)
    desk.wait("other", 1, owner="other")
    desk.release("h")  # all come in: nobody waits any more
    desk.reserve("h", 24 - 2)
    desk.wait("b", 1)


def test_an_owner_has_no_more_reservations_than_one_may() -> None:
    desk = full(max_reservations_per_owner=2)
    desk.wait("a", 1)
    for asked in ({}, {"max_wait_seconds": 9.0}):
        with pytest.raises(QuotaExceeded, match="max_reservations_per_owner"):
            desk.reserve("b", 1, **asked)
    desk.release("h")
    desk.release("a")
    desk.reserve("b", 1)
    desk.reserve("c", 1)
    with pytest.raises(QuotaExceeded):  # one that fits as well
        desk.reserve("d", 1)
    assert desk.ledger.books.live["me"] == 2


def test_who_is_still_releasing_counts_against_its_owner() -> None:
    desk = Desk(sample(0), settings=settled(queue={"max_reservations_per_owner": 1}))
    desk.reserve("a", 1)
    desk.show(sample(0, used=GIB, processes=(process(1, GIB, "a"),)))
    desk.release("a")
    with pytest.raises(QuotaExceeded):
        desk.reserve("b", 1)
    desk.clock.advance(1)
    desk.show(sample(0))
    desk.reserve("b", 1)


# Coming back.


def waiting_three() -> Desk:
    desk = full()
    for id_, priority in (("batch", BATCH), ("normal", NORMAL), ("critical", CRITICAL)):
        desk.reserve(id_, 8, priority=priority, max_wait_seconds=500.0)
        desk.pass_seconds(20)
    return desk


def test_a_restart_keeps_the_line_and_its_limits() -> None:
    desk = waiting_three()
    before = {id_: desk.held(id_) for id_ in line_of(desk)}
    desk.restart()
    assert line_of(desk) == list(before)
    assert {id_: desk.held(id_) for id_ in before} == before
    desk.show(sample(0))
    desk.release("h")
    assert desk.granted() == set(before)


@pytest.mark.parametrize("down_seconds", [0.0, 100.0, -3600.0])
def test_a_reboot_keeps_the_line(down_seconds: float) -> None:
    desk = waiting_three()
    line = line_of(desk)
    assert line == ["critical", "batch", "normal"] or line == ["critical", "normal", "batch"]
    desk.clock.reboot(down_seconds)
    desk.restart()
    left = {id_: remaining(desk, id_) for id_ in line}
    if down_seconds >= 0:
        assert line_of(desk) == line
        arrived = {"batch": 60, "normal": 40, "critical": 20}
        assert left == {id_: 500 - arrived[id_] - down_seconds for id_ in line}
    else:
        # The clock went back: nobody waits longer than was asked, and the line is by class.
        assert line_of(desk) == ["critical", "normal", "batch"]
        assert left == dict.fromkeys(line, 500)


def remaining(desk: Desk, id_: str) -> float:
    deadline = desk.held(id_).deadline
    assert deadline is not None
    return round(deadline.remaining_seconds(desk.clock.now()), 3)
