from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuctl.tables import Column, Table, clean, clean_line, paint

COLUMNS: tuple[Column[tuple[str, str]], ...] = (
    Column(header="NAME", cell=lambda row: row[0], shrinks=True),
    Column(header="SIZE", cell=lambda row: row[1], right=True),
    Column(header="MORE", cell=lambda _: "more", wide=True),
)


@pytest.mark.parametrize(
    ("dirty", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;owned\x07title", "title"),
        ("\x1b]8;;http://x\x1b\\link", "link"),
        ("a\r\nb\tc", "a b c"),
        ("over\rwrite\x08", "overwrite"),
        ("\x9b31mC1", "31mC1"),
        ("abc\u202egnp.exe", "abcgnp.exe"),
        ("µ ü 漢 stay", "µ ü 漢 stay"),
    ],
)
def test_nothing_that_a_terminal_would_obey_is_left(dirty: str, shown: str) -> None:
    assert clean(dirty) == shown


@given(st.text())
def test_cleaned_text_has_no_control_characters(text: str) -> None:
    assert all(ord(c) >= 0x20 and not 0x7F <= ord(c) < 0xA0 for c in clean(text))
    assert clean(clean(text)) == clean(text)


def test_a_state_with_a_place_in_the_queue_has_the_colour_of_the_state() -> None:
    assert paint("QUEUED 12 ") == "\x1b[33mQUEUED 12 \x1b[0m"
    assert paint("QUEUED by") == "QUEUED by"


def test_tabs_stay_in_lines_of_output() -> None:
    assert clean_line("a\tb\x1b[2J") == "a\tb"


def test_columns_stand_under_each_other() -> None:
    assert Table(COLUMNS).lines([("a", "1"), ("longer", "200")]) == [
        "NAME    SIZE",
        "a          1",
        "longer   200",
    ]


def test_wide_columns_show_when_asked_for() -> None:
    assert Table(COLUMNS, wide=True).lines([("a", "1")])[0] == "NAME  SIZE  MORE"


def test_an_empty_cell_is_a_dash() -> None:
    assert Table(COLUMNS).lines([("", "1")], header=False) == ["-        1"]


def test_rows_drawn_later_keep_the_widths() -> None:
    table = Table(COLUMNS)
    table.lines([("a-long-name", "1")])
    assert table.lines([("b", "2")], header=False) == ["b               2"]


def test_the_column_that_may_shrinks_to_fit() -> None:
    lines = Table(COLUMNS, width=14).lines([("a-very-long-name", "1")])
    assert lines == ["NAME      SIZE", "a-very-…     1"]


SENTENCES: tuple[Column[tuple[str, str, str]], ...] = (
    Column(header="AT", cell=lambda row: row[0]),
    Column(header="WHY", cell=lambda row: row[1], wraps=True),
    Column(header="MORE", cell=lambda row: row[2], drops=True),
)


def test_a_sentence_that_does_not_fit_goes_on_below_itself() -> None:
    told = ("1", "the engine ended with code 1", "more")
    assert Table(SENTENCES, width=26).lines([told, ("2", "", "")]) == [
        "AT  WHY",
        "1   the engine ended with",
        "    code 1",
        "2   -",
    ]
    assert Table(SENTENCES).lines([told])[1] == "1   the engine ended with code 1  more"


def test_rows_drawn_later_have_the_columns_of_the_headers() -> None:
    table = Table(SENTENCES, width=30)
    assert table.lines([("1", "fits", "more")]) == ["AT  WHY   MORE", "1   fits  more"]
    later = table.lines([("2", "does not fit beside the last", "more")], header=False)
    assert later[0] == "2   does not fit beside   more"
    assert table.lines([("3", "fits", "more")])[0] == "AT  WHY"


def test_states_are_painted_and_nothing_else() -> None:
    assert paint("READY ") == "\x1b[32mREADY \x1b[0m"
    assert paint("WARM") == "\x1b[33mWARM\x1b[0m"
    assert paint("THROTTLING") == "\x1b[31mTHROTTLING\x1b[0m"
    assert paint("FAILED") == "\x1b[31mFAILED\x1b[0m"
    assert paint("ready-made") == "ready-made"
