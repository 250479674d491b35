"""Steps: gathered as a plain reckoning would, to bytes and back, and nothing else is taken."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.telemetry.history.blocks import (
    COARSE,
    FINE,
    MIDDLE,
    SPANS,
    Block,
    BlockUnreadable,
    Column,
    Row,
    decoded,
    encoded,
    laid,
    of_rows,
    rolled,
    start_of,
    uncovered,
    within,
)

NUMBERS = (1, 2, 7)
VALUES = st.none() | st.booleans() | st.integers(0, 2**53) | st.floats(-1e6, 1e6)
ROWS = st.lists(
    st.tuples(st.integers(0, 200), st.tuples(VALUES, VALUES, VALUES)), min_size=1, max_size=60
).map(lambda rows: sorted(rows, key=lambda row: row[0]))
Told = dict[int, dict[int, tuple[object, ...]]]


def told(block: Block) -> Told:
    """By field and time: count, min, max, last, mean."""
    found: Told = {}
    for number, column in block.columns.items():
        for at, time in enumerate(block.times):
            if column.counts[at]:
                mean, last = column.means[at], column.lasts[at]
                assert mean is not None
                assert last is not None
                values = (column.mins[at], column.maxs[at], last, float(mean))
                found.setdefault(number, {})[time] = (column.counts[at], *values)
    return found


def reckoned(rows: list[tuple[int, Row]], step: int) -> Told:
    """The same, the plain way; the mean as near as sums come to it."""
    seen: dict[int, dict[int, list[float]]] = {}
    for time, row in rows:
        for number, value in zip(NUMBERS, row, strict=True):
            if value is not None:
                seen.setdefault(number, {}).setdefault(time // step * step, []).append(value)
    return {
        number: {
            time: (len(v), min(v), max(v), v[-1], pytest.approx(sum(v) / len(v)))
            for time, v in times.items()
        }
        for number, times in seen.items()
    }


@given(rows=ROWS)
def test_steps_are_as_a_plain_reckoning_has_them(rows: list[tuple[int, Row]]) -> None:
    fine = of_rows(FINE, NUMBERS, rows)
    assert told(fine) == reckoned(rows, FINE)
    assert told(rolled([fine], MIDDLE)) == reckoned(rows, MIDDLE)
    # By way of another step it comes to the same.
    assert told(rolled([rolled([fine], MIDDLE)], COARSE)) == reckoned(rows, COARSE)


@given(rows=ROWS, cut=st.integers(0, 200))
def test_two_blocks_come_to_what_one_would(rows: list[tuple[int, Row]], cut: int) -> None:
    parts = [[r for r in rows if r[0] < cut], [r for r in rows if r[0] >= cut]]
    blocks = [of_rows(FINE, NUMBERS, part) for part in parts if part]
    assert told(rolled(blocks, MIDDLE)) == reckoned(rows, MIDDLE)
    whole = of_rows(FINE, NUMBERS, rows)
    assert told(within(whole, 0, cut)) == reckoned(parts[0], FINE)
    assert told(within(whole, cut, 999)) == reckoned(parts[1], FINE)


@given(rows=ROWS, step=st.sampled_from([FINE, MIDDLE, COARSE]))
def test_bytes_and_back(rows: list[tuple[int, Row]], step: int) -> None:
    block = rolled([of_rows(FINE, NUMBERS, rows)], step)
    assert told(decoded(step, encoded(block))) == told(block)
    only = decoded(step, encoded(block), {2})
    assert told(only) == {n: v for n, v in told(block).items() if n == 2}


def test_a_card_that_idles_takes_a_few_bytes() -> None:
    rows: list[tuple[int, Row]] = [(time, (45.0, None, 3)) for time in range(30)]
    assert len(encoded(of_rows(FINE, NUMBERS, rows))) < 70


@given(body=st.binary(max_size=200), step=st.sampled_from([FINE, COARSE]))
def test_bytes_that_are_no_block_are_refused(body: bytes, step: int) -> None:
    try:
        block = decoded(step, body)
    except BlockUnreadable:
        return
    assert all(len(c.lasts) == len(block.times) for c in block.columns.values())


@pytest.mark.parametrize(
    "columns",
    [
        {1: (1, None, None, None, [1.0])},  # shorter than the times
        {1: (1, None, None, None, "hot")},
        {1: ([1, 1], None)},
        {"temperature": (1, None, None, None, 1.0)},
    ],
)
def test_columns_of_another_shape_are_refused(columns: Mapping[object, object]) -> None:
    body = msgspec.msgpack.encode(([0, 1], columns))
    with pytest.raises(BlockUnreadable):
        decoded(FINE, body)
    with pytest.raises(BlockUnreadable):
        decoded(COARSE, zlib.compress(body))


def test_a_mean_lies_between_the_least_and_the_greatest() -> None:
    # Summed up, 0.1 ten times is a little less than 1.
    column = Column([10, 10], [0.1, 0.1], [0.1, 0.1], [0.1, 0.1], [0.1, 0.1])
    (mean,) = rolled([Block(FINE, [0, 1], {1: column})], MIDDLE).columns[1].means
    assert mean == 0.1


def test_a_coarse_block_tells_all_that_was_written_before_it() -> None:
    hour = SPANS[COARSE]
    blocks = [
        (FINE, hour),  # within the five minutes and the hour
        (MIDDLE, hour),
        (FINE, hour + 600),
        (COARSE, hour),
        (FINE, hour + 300),  # the clock was set back, or had been ahead
        (FINE, 2 * hour + 30),
        (MIDDLE, 2 * hour),
        (FINE, 2 * hour + 300),
    ]
    told_of = list(uncovered(blocks))
    assert told_of == [
        (COARSE, hour),
        (FINE, hour + 300),
        (MIDDLE, 2 * hour),
        (FINE, 2 * hour + 300),
    ]
    assert start_of(MIDDLE, 2 * hour + 299.9) == 2 * hour


@given(st.lists(st.tuples(st.sampled_from([FINE, MIDDLE]), ROWS), max_size=6))
def test_the_newer_block_tells_what_two_tell(
    written: list[tuple[int, list[tuple[int, Row]]]],
) -> None:
    blocks = [rolled([of_rows(FINE, NUMBERS, rows)], step) for step, rows in written]
    expected: Told = {}
    for block in blocks:
        begin, end = block.times[0], block.times[-1] + block.step
        for times in expected.values():
            for time in [each for each in times if begin <= each < end]:
                del times[time]
        for number, times in told(block).items():
            expected.setdefault(number, {}).update(times)
    found = laid(blocks)
    starts = [time for block in found for time in block.times]
    assert starts == sorted(set(starts))
    assert told(rolled(found, FINE)) == {n: times for n, times in expected.items() if times}
