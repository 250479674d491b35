"""Laws of passing and of the order that hold for any input and any history."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gpud.ledger.admission.queue import SUM_UNIT_BYTES, in_order, never_delays
from gpud.ledger.reservation import Priority, Reservation, ReservationState
from gpud.units import MIB
from tests.fakes.cards import GIB, sample
from tests.ledger.desk import Desk, asking, settled

UNIT = SUM_UNIT_BYTES


def is_delayed(holders: list[int], room: int, need: int, size: int) -> bool:
    """Whether some of the holders left may keep the first out with `size` taken, but not without.

    All subsets, so a few holders only.
    """
    for count in range(len(holders) + 1):
        for left in combinations(holders, count):
            if sum(left) + need <= room < sum(left) + need + size:
                return True
    return False


def sizes(unit: int, most: int) -> st.SearchStrategy[int]:
    return st.integers(1, most // unit).map(lambda count: count * unit)


@examples(max_examples=400, deadline=None)
@given(
    holders=st.lists(st.integers(1, 2 * GIB), max_size=9),
    room=st.integers(0, 6 * GIB),
    need=st.integers(1, 6 * GIB),
    size=st.integers(1, 2 * GIB),
)
def test_what_is_said_to_delay_nobody_never_does(
    holders: list[int], room: int, need: int, size: int
) -> None:
    if never_delays(holders, room, need, size):
        assert not is_delayed(holders, room, need, size)


@examples(max_examples=400, deadline=None)
@given(
    holders=st.lists(sizes(4 * MIB, 512 * MIB), max_size=9),
    room=sizes(4 * MIB, GIB),
    need=sizes(4 * MIB, GIB),
    size=sizes(4 * MIB, 512 * MIB),
)
def test_nor_where_sizes_lie_near_the_units_that_sums_are_followed_in(
    holders: list[int], room: int, need: int, size: int
) -> None:
    if never_delays(holders, room, need, size):
        assert not is_delayed(holders, room, need, size)


@examples(max_examples=400, deadline=None)
@given(
    holders=st.lists(sizes(GIB // 4, 12 * GIB), max_size=8),
    need=sizes(GIB, 24 * GIB),
    size=sizes(GIB // 2, 12 * GIB),
)
def test_with_models_sizes_nobody_is_kept_out_for_nothing(
    holders: list[int], need: int, size: int
) -> None:
    """Whole quarters of a GiB: what the rounding widens by is less than the sums are apart."""
    room = 24 * GIB
    delayed = is_delayed(holders, room, need, size)
    fits = size <= room - need
    # One that takes what even an empty device could not give beside the first is one that delays.
    assert never_delays(holders, room, need, size) == (fits and not delayed)


def test_the_widening_reaches_as_many_units_as_there_are_holders() -> None:
    """The price of never being wrong: a sum just above the interval counts as inside."""
    room, need, size = 24 * UNIT, 12 * UNIT, 2 * UNIT
    assert not is_delayed([13 * UNIT], room, need, size)
    assert not never_delays([13 * UNIT], room, need, size)
    assert never_delays([14 * UNIT], room, need, size)


def test_with_very_many_holders_nothing_is_said_to_be_harmless() -> None:
    assert never_delays([24 * UNIT] * 64, 2 * 1600 * UNIT, UNIT, UNIT) is True
    assert never_delays([24 * UNIT] * 65, 2 * 1600 * UNIT, UNIT, UNIT) is False


# The order.

ARRIVALS = st.lists(
    st.tuples(st.sampled_from(Priority), st.floats(0, 300).map(lambda s: round(s, 3))),
    min_size=1,
    max_size=25,
)


@examples(max_examples=100, deadline=None)
@given(arrivals=ARRIVALS, span=st.sampled_from([1.0, 60.0]))
def test_nobody_is_overtaken_by_who_came_three_spans_later(
    arrivals: list[tuple[Priority, float]], span: float
) -> None:
    settings = settled(queue={"ageing_seconds": span}).queue
    desk, entries = Desk(sample(0)), []
    for number, (priority, pause) in enumerate(arrivals):
        desk.clock.advance(pause)
        request = asking(1, priority=priority)
        entries.append(Reservation.asked(f"r{number}", request, desk.clock.now()))
    ordered = in_order(entries, settings)
    for at, entry in enumerate(ordered):
        for later in ordered[:at]:
            ahead = later.created.boottime - entry.created.boottime
            assert ahead <= 3 * span
            if later.request.priority <= entry.request.priority:
                assert ahead <= 0


Step = tuple[str, float, Priority, float]
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "reserve", "release", "pass"]),
        st.sampled_from([1, 2, 4, 7, 12, 20]),  # GiB, whose turn, or seconds
        st.sampled_from([Priority.BATCH, Priority.NORMAL, Priority.CRITICAL]),
        st.sampled_from([3.0, 20.0, 3600.0]),
    ),
    max_size=30,
)
BEFORE = {"h0": 4, "h1": 5, "h2": 6, "h3": 9}
BOUND_SECONDS = 30.0


def kept_out_seconds(need: int, steps: list[Step], bound_seconds: float) -> float:
    """How long the first still waits once those that were there before it leave it room.

    One card; the first is of the highest class. Without passers it would come in at that moment.
    Counted from its arrival and the bound on, where that is later.
    """
    desk = Desk(sample(0), settings=settled(queue={"overtaking_seconds": bound_seconds}))
    for id_, size in BEFORE.items():
        desk.reserve(id_, size, ttl_seconds=7 * 86400.0)
    desk.wait("head", need, priority=Priority.CRITICAL)
    latest = desk.held("head").created.boottime + BOUND_SECONDS
    free_since: float | None = None
    for number, (what, value, priority, ttl) in enumerate(steps):
        if what == "reserve":
            asked = {"priority": priority, "ttl_seconds": ttl, "max_wait_seconds": None}
            desk.reserve(f"r{number}", value, **asked)
        elif what == "release" and (there := sorted(desk.granted() - {"head"})):
            desk.release(there[int(value) % len(there)])
        elif what == "pass":
            desk.pass_seconds(value)
        if desk.state("head") is not ReservationState.QUEUED:
            return 0.0
        left = sum(BEFORE[id_] for id_ in desk.granted() & BEFORE.keys())
        if free_since is None and left + need <= 24:
            free_since = desk.clock.boottime
    if free_since is None:
        return 0.0
    return desk.clock.boottime - max(latest, free_since)


@examples(max_examples=60, deadline=None)
@given(need=st.sampled_from([8, 16, 24]), steps=STEPS)
def test_passers_keep_the_first_out_for_the_bound_at_most(need: int, steps: list[Step]) -> None:
    assert kept_out_seconds(need, steps, BOUND_SECONDS) <= 0


def test_with_a_longer_bound_they_would_keep_it_out_for_longer() -> None:
    """So the property above can fail."""
    steps: list[Step] = [("reserve", 2, Priority.BATCH, 3600.0)]
    steps += [("release", 0, Priority.BATCH, 0.0)] * 4
    steps += [("pass", 20, Priority.BATCH, 0.0)] * 3
    assert kept_out_seconds(24, steps, 86400.0) > 20
    assert kept_out_seconds(24, steps, BOUND_SECONDS) <= 0
