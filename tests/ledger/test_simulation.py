"""Nobody starves: the queue over many arrivals, and against an endless stream of its betters."""

from __future__ import annotations

import time
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpud.ledger.admission.policy import QueueSettings
from gpud.ledger.reservation import Priority, ReserveRequest
from gpud.units import GIB
from tests.ledger.simulation import RULES, Arrival, Outcome, Simulation, arrivals
from tests.proof.record import asked, record

AGEING, BOUND, HOLD = 60.0, 30.0, 20.0
LEAD = 3 * AGEING  # what CRITICAL is ahead of BATCH


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_the_longest_wait_is_shorter_than_without_ageing_or_with_free_passing() -> None:
    """Ten thousand arrivals of four classes; everybody gets in, and nobody is passed for ever."""
    began, number = time.monotonic(), asked(1500, 10_000)
    ours, unaged, free = (
        Simulation(RULES[name]).play(arrivals(number, 0.7, seed=1))
        for name in ("as they are", "no ageing", "free passing")
    )
    assert sum(map(len, ours.waits.values())) == number
    longest = max(map(ours.longest, Priority))
    assert ours.longest(Priority.BATCH) < unaged.longest(Priority.BATCH)
    assert longest < max(map(free.longest, Priority))
    middles = [sorted(ours.waits[each])[len(ours.waits[each]) // 2] for each in Priority]
    assert middles == sorted(middles, reverse=True), "a higher class waits less"
    seconds = time.monotonic() - began
    record("R5 arrivals of four classes, longest wait bounded", number, number, 0, seconds)


@settings(max_examples=20, deadline=None)
@given(
    load=st.floats(0.7, 1.2),
    size=st.integers(4, 12),
    wanted=st.integers(13, 23),
    cards=st.integers(1, 3),
)
def test_an_endless_stream_of_critical_ones_lets_a_large_batch_one_in(
    load: float, size: int, wanted: int, cards: int
) -> None:
    rules = QueueSettings(
        ageing_seconds=AGEING,
        overtaking_seconds=BOUND,
        max_queued=10**6,
        max_queued_per_owner=10**6,
    )
    simulation = Simulation(rules, cards=cards)
    outcome = simulation.play(stream(size * HOLD / (load * cards * 23.5), size, wanted))
    (waited,) = outcome.waits[Priority.BATCH]
    # Who came within its lead goes first, on the cards that it is kept as well; then what runs
    # there ends, and nobody new comes before it.
    ahead = outcome_ahead(outcome)
    assert waited <= LEAD + BOUND + HOLD + ahead


def outcome_ahead(outcome: Outcome) -> float:
    """Those of a higher class that came within the lead had to be let in first."""
    return max(outcome.waits[Priority.CRITICAL], default=0.0) + HOLD


def stream(gap: float, size: int, wanted: int) -> list[Arrival]:
    """Small CRITICAL ones without end (far beyond the bound), and one large BATCH one early on."""
    small = ReserveRequest(
        owner="stream",
        bytes=size * GIB,
        priority=Priority.CRITICAL,
        ttl_seconds=2 * HOLD,
        max_wait_seconds=None,
    )
    large = ReserveRequest(
        owner="large",
        bytes=wanted * GIB,
        priority=Priority.BATCH,
        ttl_seconds=2 * HOLD,
        max_wait_seconds=None,
    )
    coming = [Arrival(HOLD, 1.0, large)]
    for number in count():
        if number * gap > 2 * (LEAD + BOUND + 2 * HOLD):
            break
        coming.append(Arrival(number * gap, HOLD, small))
    return sorted(coming, key=lambda each: each.at)
