"""What is counted as it happens."""

from __future__ import annotations

import pytest

from gpud.store import Committed, Entry, Write
from gpud.telemetry.counting import MOST_TYPES, OTHER, CommitTimes, EventCounts
from tests.fakes.clock import FakeClock


def committed(*types: str) -> Committed:
    entries = tuple(Entry(wall=1.0, type=each, subject="node", body=b"") for each in types)
    return Committed(write=Write(entries=entries), sequences=tuple(range(len(types))))


def test_events_are_counted_by_type() -> None:
    counts = EventCounts()
    counts.committed(
        [committed("node.ready", "device.lost"), committed("node.ready"), committed()]
    )
    assert counts.by_type == {"node.ready": 2, "device.lost": 1}


def test_no_more_types_are_told_apart_than_a_page_bears() -> None:
    counts = EventCounts()
    counts.committed([committed(*(f"t{at}" for at in range(2 * MOST_TYPES)), "t0")])
    assert len(counts.by_type) <= MOST_TYPES + 1
    assert counts.by_type[OTHER] == MOST_TYPES
    assert counts.by_type["t0"] == 2


def fail_after(seconds: float, clock: FakeClock, times: CommitTimes) -> None:
    with times():
        clock.advance(seconds)
        raise OSError("full")


def test_commits_are_timed_those_that_fail_too() -> None:
    clock = FakeClock()
    times = CommitTimes(clock)
    with times():
        clock.advance(0.002)
    with pytest.raises(OSError, match="full"):
        fail_after(2.0, clock, times)
    assert times.seconds.total_seconds == pytest.approx(2.002)
    assert times.seconds.cumulative()[-1] == 2
    assert times.seconds.cumulative()[1] == 1
