"""Templates that are filled in say the same as lines that are put together one by one."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from gpud.histogram import Histogram
from gpud.telemetry.page.table import (
    Column,
    Family,
    Labels,
    Number,
    Table,
    counter,
    gauge,
    histogram,
    labelled,
    spans,
)
from tests.telemetry.page.exposition import read, value

STATE = Family(name="state", help="Which.")
COLUMNS = (
    gauge("heat_celsius", "How hot, in % of nothing."),
    counter("work_total", "How much."),
    Column(family=STATE, labels='is="on"', form="%d"),
    Column(family=STATE, labels='is="off"', form="%d"),
    gauge("clock_hertz", "How fast.", form="%d000000"),
)
NUMBERS = st.none() | st.integers(0, 2**63) | st.floats(allow_nan=False, width=64)
FLAGS = st.none() | st.booleans()
MEGA = st.none() | st.integers(0, 10**6)
Page = list[tuple[Number, ...]]
ROWS = st.lists(st.tuples(NUMBERS, NUMBERS, FLAGS, FLAGS, MEGA), max_size=4)


@given(st.lists(ROWS, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_a_table_tells_what_is_known_and_nothing_else(
    pages: list[list[tuple[Number, ...]]],
) -> None:
    # One after the other from the same table, so that a template of before would show.
    table = Table(COLUMNS)
    names = ["heat_celsius", "work_total", "state", "state", "clock_hertz"]
    for rows in pages:
        labels = tuple(labelled(device=f"gpu{at}") for at in range(len(rows)))
        expected = {}
        for device, row in zip(labels, rows, strict=True):
            for at, (name, number) in enumerate(zip(names, row, strict=True)):
                told = {("device", device.split('"')[1])}
                if at in (2, 3):
                    told.add(("is", ("on", "off")[at - 2]))
                if number is not None:
                    scaled = float(number) * (1e6 if at == 4 else 1)
                    expected[name, frozenset(told)] = scaled
        found = read(table.render(labels, rows))
        assert found.keys() == expected.keys()
        assert all(math.isclose(found[key], expected[key]) for key in expected)


@given(st.text(max_size=30))
@settings(deadline=None)
def test_whatever_a_label_says_it_is_read_back(text: str) -> None:
    table = Table([gauge("g", "Help.")])
    page = table.render((labelled(name=text, other="x"),), [(1,)])
    # The reader splits a page by all that Python takes for a line's end.
    if len(page.splitlines()) == 3:
        wanted = {("other", "x")} | ({("name", text)} if text else set())
        assert read(page) == {("g", frozenset(wanted)): 1.0}


def test_a_page_as_it_looks() -> None:
    table = Table(COLUMNS[:3])
    page = table.render((labelled(device="a"), ""), [(1.5, 2, True), (None, 3, None)])
    assert page == (
        "# HELP heat_celsius How hot, in % of nothing.\n# TYPE heat_celsius gauge\n"
        'heat_celsius{device="a"} 1.5\n'
        "# HELP work_total How much.\n# TYPE work_total counter\n"
        'work_total{device="a"} 2\nwork_total 3\n'
        "# HELP state Which.\n# TYPE state gauge\n"
        'state{device="a",is="on"} 1\n'
    )
    assert table.render((), []) == ""


def test_spans_are_told_by_their_bounds() -> None:
    seconds = Histogram((0.1, 1.0))
    for each in (0.05, 0.1, 0.5, 2.0):
        seconds.observe(each)
    page = Table(histogram("wait_seconds", "How long.", seconds.bounds)).render(
        ("",), [spans(seconds)]
    )
    buckets = {le: value(page, "wait_seconds_bucket", le=le) for le in ("0.1", "1", "+Inf")}
    assert buckets == {"0.1": 2, "1": 3, "+Inf": 4}
    assert value(page, "wait_seconds_sum") == 2.65
    assert value(page, "wait_seconds_count") == 4


def test_labels_are_made_again_only_for_others() -> None:
    made = []
    labels = Labels(lambda each: (made.append(each), labelled(device=each))[1])  # type: ignore[func-returns-value]
    one, two = ("a", "b"), ("a", "c")
    assert labels.of(one) == labels.of(one) == ('device="a"', 'device="b"')
    assert labels.of(two) == ('device="a"', 'device="c"')
    assert made == ["a", "b", "a", "c"]
