"""Who is ended for another: only the willing, of a lower class, as few as need be, with notice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gpud.errors import GpudError
from gpud.ledger.reservation import Priority, ReservationState, Sharing
from tests.fakes.cards import GIB, process, sample
from tests.ledger.desk import HOST, Desk, asking, settled

BATCH, NORMAL, INTERACTIVE, CRITICAL = Priority
TENURE, GRACE = 60.0, 30.0
ON = {"min_tenure_seconds": TENURE, "grace_seconds": GRACE, "ratio": 2.0}
EXCLUSIVE = {"sharing": Sharing.EXCLUSIVE}
WILLING = {"preemptible": True, "ttl_seconds": 86400.0}


def desk_with(*held: dict[str, Any], cards: int = 1, **preemption: Any) -> Desk:
    """Reservations h0, h1, … that have had their tenure."""
    settings = settled(preemption={**ON, **preemption})
    desk = Desk(*(sample(index) for index in range(cards)), settings=settings)
    for number, each in enumerate(held):
        asked = {**WILLING, "priority": BATCH, **each}
        desk.reserve(f"h{number}", asked.pop("gib"), **asked)
        desk.clock.advance(1)
    desk.pass_seconds(TENURE)
    return desk


def noticed(desk: Desk) -> set[str]:
    return set(desk.ledger.books.noticed)


def test_by_default_nobody_goes() -> None:
    desk = Desk(sample(0))
    desk.reserve("h", 24, priority=BATCH, **WILLING)
    desk.pass_seconds(1000)
    desk.wait("a", 8, priority=CRITICAL)
    assert noticed(desk) == set()
    desk.pass_seconds(1000)
    assert desk.state("h") is ReservationState.GRANTED


@pytest.mark.parametrize(
    ("held", "asked", "goes"),
    [
        ({"gib": 12}, {}, True),
        ({"gib": 12, "preemptible": False}, {}, False),
        ({"gib": 12, "priority": NORMAL}, {}, False),  # of its own class
        ({"gib": 12, "priority": INTERACTIVE}, {}, False),  # of a higher one
        ({"gib": 12, "ttl_seconds": None}, {}, True),
        ({"gib": 16}, {"gib": 10}, True),
        ({"gib": 24}, {"gib": 12}, True),  # twice what is gained
        ({"gib": 24}, {"gib": 11}, False),  # more than that
        ({"gib": 24, **EXCLUSIVE}, {"gib": 12}, True),
    ],
)
def test_only_the_willing_of_a_lower_class_go(
    held: dict[str, Any], asked: dict[str, Any], goes: bool
) -> None:
    desk = desk_with(held)
    if desk.grantable() >= 12:
        desk.reserve("fixed", 12, devices=("U-gpu0",), priority=CRITICAL)
    desk.wait("a", **{"gib": 12, "priority": NORMAL, **asked})
    assert noticed(desk) == ({"h0"} if goes else set())


def test_nobody_goes_before_its_tenure() -> None:
    desk = desk_with()
    desk.reserve("h", 24, priority=BATCH, **WILLING)
    desk.pass_seconds(TENURE - 1)
    desk.wait("a", 12, priority=NORMAL)
    assert noticed(desk) == set()
    desk.pass_seconds(1)
    assert noticed(desk) == {"h"}


def test_tenure_counts_from_the_grant_and_not_from_the_asking() -> None:
    desk = desk_with({"gib": 24})
    desk.wait("late", 24, priority=BATCH, **WILLING)
    desk.pass_seconds(1000)
    desk.release("h0")
    desk.wait("a", 24, priority=NORMAL)
    desk.pass_seconds(TENURE - 1)
    assert noticed(desk) == set()
    desk.pass_seconds(1.1)
    assert noticed(desk) == {"late"}


@pytest.mark.parametrize(
    ("held", "busy", "asked_gib", "go"),
    [
        # The lowest class first, busy or not …
        (({"gib": 8, "priority": NORMAL}, {"gib": 8}, {"gib": 8, "priority": NORMAL}), ("h1",), 8,
         {"h1"}),
        # … of that the idle …
        (({"gib": 8}, {"gib": 8}, {"gib": 8}), ("h1", "h2"), 8, {"h0"}),
        # … then the youngest, which lose least.
        (({"gib": 8}, {"gib": 8}, {"gib": 8}), (), 8, {"h2"}),
        (({"gib": 8}, {"gib": 8}, {"gib": 8}), (), 16, {"h1", "h2"}),
        # Nobody goes whose bytes turn out not to be needed.
        (({"gib": 20}, {"gib": 4}), (), 20, {"h0"}),
        (({"gib": 4}, {"gib": 4}, {"gib": 16}), (), 12, {"h2"}),
        # What is free already counts.
        (({"gib": 8}, {"gib": 8}), (), 12, {"h1"}),
    ],
)  # fmt: skip
def test_who_goes_first(
    held: tuple[dict[str, Any], ...], busy: tuple[str, ...], asked_gib: int, go: set[str]
) -> None:
    desk = desk_with(*held)
    running = tuple(process(n, GIB, id_) for n, id_ in enumerate(busy, start=1))
    desk.show(sample(0, used=len(busy) * GIB, processes=running))
    desk.wait("a", asked_gib, priority=INTERACTIVE)
    assert noticed(desk) == go
    desk.pass_seconds(1)
    assert noticed(desk) == go  # and nobody else while they go


def test_between_devices_the_lower_class_goes_then_the_idle_then_the_fewer_bytes() -> None:
    low = {"gib": 24, "devices": ("U-gpu0",)}
    high = {"gib": 20, "priority": NORMAL, "devices": ("U-gpu1",)}
    desk = desk_with(low, high, cards=2)
    desk.wait("a", 20, priority=INTERACTIVE)
    assert noticed(desk) == {"h0"}


def test_notice_grace_and_the_end() -> None:
    desk = desk_with({"gib": 24})
    desk.wait("a", 20, priority=NORMAL)
    held = desk.held("h0")
    assert (held.state, held.generation) == (ReservationState.GRANTED, 1)
    assert held.notice is not None
    assert held.notice.by == "a"
    assert desk.told("reservation.preemption_notice") == ["reservations/h0"]
    desk.pass_seconds(GRACE - 1)
    assert desk.state("h0") is ReservationState.GRANTED
    assert desk.renew("h0").notice == held.notice  # a renewal does not save it
    desk.pass_seconds(1)
    ended = desk.held("h0")
    assert (ended.state, ended.generation) == (ReservationState.REVOKED, 2)
    assert ended.notice is None
    assert "reservations/a" in ended.reason
    assert desk.granted() == {"a"}
    assert desk.told("reservation.revoked") == ["reservations/h0"]


def test_who_goes_before_its_time_goes_released() -> None:
    desk = desk_with({"gib": 24})
    desk.wait("a", 20, priority=NORMAL)
    assert desk.release("h0").state is ReservationState.RELEASED
    assert desk.granted() == {"a"}


def test_a_lease_that_ends_within_the_grace_expires() -> None:
    desk = desk_with({"gib": 24, "ttl_seconds": TENURE + 11})
    desk.wait("a", 20, priority=NORMAL)
    desk.pass_seconds(11)
    assert desk.state("h0") is ReservationState.EXPIRED
    assert desk.granted() == {"a"}


def test_bytes_in_use_are_free_only_once_seen_back() -> None:
    desk = desk_with({"gib": 24})
    desk.show(sample(0, used=20 * GIB, processes=(process(1, 20 * GIB, "h0"),)))
    desk.wait("a", 20, priority=NORMAL)
    desk.pass_seconds(GRACE)
    ended = desk.held("h0")
    assert (ended.state, ended.ending) == (ReservationState.RELEASING, ReservationState.REVOKED)
    assert ended.generation == 2
    desk.pass_seconds(60)
    assert desk.state("a") is ReservationState.QUEUED  # its process goes on
    desk.clock.advance(1)
    desk.show(sample(0))
    assert desk.state("h0") is ReservationState.REVOKED
    assert desk.granted() == {"a"}


@pytest.mark.parametrize("how", ["released", "expired", "came in elsewhere"])
def test_a_notice_is_withdrawn_when_the_other_waits_no_more(how: str) -> None:
    desk = desk_with({"gib": 24}, {"gib": 24, "preemptible": False}, cards=2)
    desk.wait("a", 20, priority=NORMAL, max_wait_seconds=GRACE - 1)
    assert noticed(desk) == {"h0"}
    if how == "released":
        desk.release("a")
    elif how == "expired":
        desk.pass_seconds(GRACE - 1)
    else:
        desk.release("h1")
    assert noticed(desk) == set()
    desk.pass_seconds(GRACE + 1)
    assert desk.state("h0") is ReservationState.GRANTED


def test_a_notice_survives_a_restart_and_so_does_its_deadline() -> None:
    desk = desk_with({"gib": 24})
    desk.wait("a", 20, priority=NORMAL)
    desk.pass_seconds(20)
    before = desk.held("h0").notice
    desk.restart()
    desk.show(sample(0))
    assert desk.held("h0").notice == before
    desk.pass_seconds(10)
    assert desk.state("h0") is ReservationState.REVOKED


@pytest.mark.parametrize(("second", "go"), [({}, {"h0", "h1"}), ({"preemptible": False}, set())])
def test_alone_needs_all_of_them_to_go(second: dict[str, Any], go: set[str]) -> None:
    desk = desk_with({"gib": 1}, {"gib": 1, **second})
    desk.wait("a", 4, priority=NORMAL, **EXCLUSIVE)
    assert noticed(desk) == go


def test_alone_does_not_end_anybody_while_strangers_stay() -> None:
    desk = desk_with({"gib": 1})
    desk.show(sample(0, used=GIB, processes=(process(7, GIB),)))
    desk.wait("a", 4, priority=NORMAL, **EXCLUSIVE)
    assert noticed(desk) == set()


def test_two_devices_or_nobody_goes() -> None:
    held: list[dict[str, Any]] = [
        {"gib": 24, "devices": (f"U-gpu{at}",), "preemptible": at < 2} for at in range(3)
    ]
    desk = desk_with(*held, cards=3)
    desk.wait("three", 20, device_count=3, priority=INTERACTIVE)
    assert noticed(desk) == set()
    desk.release("three")
    desk.wait("two", 20, device_count=2, priority=INTERACTIVE)
    assert noticed(desk) == {"h0", "h1"}
    desk.pass_seconds(GRACE)
    assert desk.granted() == {"two", "h2"}


def test_one_that_holds_both_is_counted_whole() -> None:
    """48 GiB are not ended for 20, though the 24 on one device would be worth it."""
    desk = desk_with({"gib": 24, "device_count": 2}, cards=2)
    desk.wait("a", 20, priority=NORMAL)
    assert noticed(desk) == set()
    desk.wait("b", 20, device_count=2, priority=INTERACTIVE)
    assert noticed(desk) == {"h0"}


def test_nobody_goes_for_one_that_something_else_keeps_out() -> None:
    """Its RAM is lacking, and none of those that would go has any."""
    settings = settled(preemption=ON)
    desk = Desk(sample(0), HOST, settings=settings)
    desk.reserve("ram", 60, devices=("U-host",), ttl_seconds=86400.0)
    desk.reserve("h", 24, priority=BATCH, **WILLING)
    desk.pass_seconds(TENURE)
    desk.wait("a", 20, host_bytes=8 * GIB, priority=NORMAL)
    assert noticed(desk) == set()
    desk.release("ram")
    assert noticed(desk) == {"h"}


def test_the_ram_of_those_who_go_comes_with_them() -> None:
    desk = Desk(sample(0), HOST, settings=settled(preemption=ON))
    desk.reserve("h", 24, host_bytes=60 * GIB, priority=BATCH, **WILLING)
    desk.pass_seconds(TENURE)
    desk.wait("a", 20, host_bytes=60 * GIB, priority=NORMAL)
    assert noticed(desk) == {"h"}
    desk.pass_seconds(GRACE)
    assert desk.granted() == {"a"}


def test_nobody_goes_where_strangers_take_what_would_come_free() -> None:
    """16 promised and 14 foreign on 24: the end of 8 gives nothing to anybody."""
    desk = desk_with({"gib": 8}, {"gib": 8, "preemptible": False})
    desk.show(sample(0, used=14 * GIB, processes=(process(7, 14 * GIB),)))
    desk.wait("a", 8, priority=NORMAL)
    assert noticed(desk) == set()


def test_one_that_is_alone_goes_though_some_bytes_beside_it_are_free() -> None:
    desk = desk_with()
    desk.show(sample(0, used=12 * GIB, processes=None))
    desk.reserve("h", 4, priority=BATCH, **WILLING, **EXCLUSIVE)
    desk.pass_seconds(TENURE)
    desk.show(sample(0, used=0, processes=None))
    assert desk.grantable() == 12
    desk.wait("a", 8, priority=NORMAL)
    assert noticed(desk) == {"h"}
    desk.pass_seconds(GRACE + 1)
    desk.show(sample(0, used=0, processes=None))
    assert desk.granted() == {"a"}


def test_nobody_outside_goes_for_one_that_waits_within_a_standing_reservation() -> None:
    desk = Desk(sample(0), settings=settled(preemption=ON))
    request = asking(8, standing=True, ttl_seconds=None, max_wait_seconds=None)
    desk.keep(desk.ledger.stand("voice", request, desk.clock.now()))
    desk.serve()
    desk.reserve("inside", 8, within="voice", instance="i", ttl_seconds=None)
    desk.reserve("h", 16, priority=BATCH, **WILLING)
    desk.pass_seconds(TENURE)
    desk.wait("a", 8, within="voice", instance="j", ttl_seconds=None, priority=CRITICAL)
    assert noticed(desk) == set()


def test_who_waits_behind_another_ends_nobody_before_it_is_its_turn() -> None:
    desk = desk_with({"gib": 20})
    desk.wait("first", 24, priority=NORMAL, preemptible=True)
    assert noticed(desk) == {"h0"}
    desk.wait("second", 24, priority=NORMAL)
    held = desk.held("h0")
    assert held.notice is not None
    assert held.notice.by == "first"


# No thrashing.


def test_the_one_that_went_does_not_come_back_by_the_same_way() -> None:
    desk = desk_with({"gib": 24})
    desk.wait("a", 20, priority=NORMAL, preemptible=True, ttl_seconds=86400.0)
    desk.pass_seconds(GRACE)
    assert desk.granted() == {"a"}
    desk.wait("again", 24, priority=BATCH, **WILLING)
    for _ in range(10):
        desk.pass_seconds(TENURE)
    assert desk.granted() == {"a"}
    assert noticed(desk) == set()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "reserve", "pass", "release"]),
        st.sampled_from(Priority),
        st.sampled_from([2, 5, 11, 24]),
        st.booleans(),
        st.sampled_from([1, 10, 40]),
        st.integers(1, 2),
    ),
    max_size=40,
)


@examples(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_nobody_ever_goes_for_one_of_its_own_or_a_lower_class(
    steps: list[tuple[str, Priority, int, bool, int, int]],
) -> None:
    desk = desk_with(cards=2, min_tenure_seconds=5.0, grace_seconds=3.0)
    for number, (what, priority, gib, preemptible, value, count) in enumerate(steps):
        asked: dict[str, Any] = {"priority": priority, "preemptible": preemptible}
        if what == "reserve":
            asked |= {"max_wait_seconds": 100.0, "device_count": count}
            desk.reserve(f"r{number}", gib, **asked)
        elif what == "pass":
            desk.pass_seconds(value)
        elif there := sorted(desk.granted()):
            desk.release(there[value % len(there)])
        for victim in desk.ledger.books.noticed.values():
            assert victim.notice is not None
            by = desk.held(victim.notice.by)
            assert by.queued
            assert victim.request.preemptible
            assert victim.request.priority < by.request.priority
    assert set(desk.told("reservation.revoked")) <= set(desk.told("reservation.preemption_notice"))


@examples(max_examples=150, deadline=None)
@given(
    held=st.lists(
        st.tuples(st.integers(1, 9), st.booleans(), st.sampled_from([BATCH, NORMAL, CRITICAL])),
        max_size=7,
    ),
    need=st.integers(1, 24),
)
def test_as_few_go_as_need_be(held: list[tuple[int, bool, Priority]], need: int) -> None:
    """Together they make room, and without any one of them they would not."""
    desk = desk_with(ratio=1000.0)
    for number, (gib, preemptible, priority) in enumerate(held):
        try:
            desk.reserve(f"h{number}", gib, priority=priority, preemptible=preemptible)
        except GpudError:
            continue
    desk.pass_seconds(TENURE)
    desk.reserve("a", need, priority=INTERACTIVE, max_wait_seconds=None)
    free = desk.grantable()
    going = [desk.held(id_).request.bytes / GIB for id_ in noticed(desk)]
    willing = sum(
        desk.held(id_).request.bytes / GIB
        for id_ in desk.granted()
        if desk.held(id_).request.preemptible and desk.held(id_).request.priority < INTERACTIVE
    )
    if desk.state("a") is ReservationState.GRANTED or free + willing < need:
        assert going == []
        return
    assert free + sum(going) >= need
    assert all(free + sum(going) - each < need for each in going)
