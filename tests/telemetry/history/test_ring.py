"""The ring: half minutes of readings packed as they end, aged, and a clock that is set back."""

from __future__ import annotations

from gpud.telemetry.history.blocks import FINE, decoded
from gpud.telemetry.history.ring import Ring

NUMBERS = (1,)
T0 = 1_700_000_010  # a half minute begins here


def filled(ring: Ring, times: list[float]) -> list[tuple[str, int, bytes]]:
    """What was closed while one subject showed its own moment."""
    closed = []
    for wall in times:
        time, ended = ring.turn(wall)
        closed += ended
        ring.put("a", NUMBERS, time, (wall,))
    return closed


def test_a_block_ends_with_its_half_minute() -> None:
    ring = Ring(900)
    closed = filled(ring, [T0 + s for s in range(31)])
    ((subject, start, body),) = closed
    assert (subject, start) == ("a", T0)
    block = decoded(FINE, body)
    assert list(block.times) == [T0 + s for s in range(30)]
    assert ring.packed("a") == ((T0, body),)
    opened = ring.unpacked("a")
    assert opened is not None
    assert list(opened.times) == [T0 + 30]


def test_what_came_in_since_is_closed_when_asked() -> None:
    ring = Ring(900)
    filled(ring, [T0, T0 + 1])
    ((_, start, body),) = ring.close()
    assert start == T0
    assert list(decoded(FINE, body).times) == [T0, T0 + 1]
    assert ring.unpacked("a") is None
    assert ring.close() == []


def test_a_gap_is_no_step() -> None:
    ring = Ring(900)
    closed = filled(ring, [T0, T0 + 3, T0 + 600])
    assert [list(decoded(FINE, body).times) for _, _, body in closed] == [[T0, T0 + 3]]


def test_ticks_that_are_faster_than_steps_make_one_step() -> None:
    ring = Ring(900)
    ticks = [T0 + tick / 100 for tick in range(0, 1200)]
    filled(ring, ticks)
    ((_, _, body),) = ring.close()
    column = decoded(FINE, body).columns[1]
    assert list(column.counts) == [100] * 12
    assert list(column.mins) == [T0 + s for s in range(12)]
    assert column.lasts[3] == T0 + 3.99


def test_the_oldest_goes() -> None:
    ring = Ring(120)
    filled(ring, [T0 + s for s in range(0, 600, 5)])
    ring.close()
    starts = [start for start, _ in ring.packed("a")]
    assert starts == [T0 + s for s in range(450, 600, 30)]
    assert ring.oldest() == starts[0]
    assert ring.size_bytes() == sum(len(body) for _, body in ring.packed("a"))


def test_a_subject_that_is_gone_is_forgotten() -> None:
    ring = Ring(120)
    filled(ring, [T0])
    for second in range(0, 300, 10):
        time, _ = ring.turn(T0 + second)
        ring.put("b", NUMBERS, time, (1,))
    assert set(ring.subjects()) == {"b"}


def test_a_clock_that_is_set_back_a_little_shows_the_newest_step() -> None:
    ring = Ring(900)
    filled(ring, [T0, T0 + 1, T0 + 0.2, T0 + 2])
    opened = ring.unpacked("a")
    assert opened is not None
    assert told(ring) == [T0, T0 + 1, T0 + 2]


def told(ring: Ring) -> list[int]:
    closed = [time for _, body in ring.packed("a") for time in decoded(FINE, body).times]
    opened = ring.unpacked("a")
    return closed + ([] if opened is None else sorted(set(opened.times)))


def test_a_clock_that_is_set_back_far_unsays_what_it_said() -> None:
    ring = Ring(9000)
    closed = filled(ring, [T0, T0 + 1, T0 + 3600, T0 + 3601, T0 + 30, T0 + 31])
    # All of it goes to the file, which nobody asks for a time to come.
    assert [start for _, start, _ in closed] == [T0, T0 + 3600]
    assert told(ring) == [T0, T0 + 1, T0 + 30, T0 + 31]
