"""Prometheus' text format, read as it is meant, and bounded whatever it is."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.engines.counting import exposition
from gpud.engines.counting.exposition import Exposition, of_histograms, read

WANTED = frozenset({"a", "b", "c:d", *of_histograms("h")})


def test_lines_are_read_as_the_format_says() -> None:
    told = read(
        "# HELP a What it is.\n# TYPE a counter\n"
        'a{x="1"} 2\na{x="2",} 3 1700000000000\n'
        "b\t+1.5e3\r\n"
        'c:d{text="a \\"b\\" } , \\\\ \\n"} .5 # {id="7"} 0.3 1.2\n'
        "other 9\na_suffix 7\n",
        WANTED,
    )
    assert told.total("a") == 5
    assert told.highest("a") == 3
    assert told.total("b") == 1500
    assert told.labelled("c:d") == [({"text": 'a "b" } , \\ \n'}, 0.5)]
    assert "other" not in told
    assert told.total("missing") is None
    assert told.highest("missing") is None


@pytest.mark.parametrize(
    "line",
    [
        "a", "a ", "a{ 1", 'a{x="1} 1', 'a{x=1"} 1', "a NaN", "a +Inf", "a -Inf", "a 1_000", "a ١",
        "a 0x10", "a 1 apples", "a 1e999", " a 1", "a{} {} 1", "1a 1", "a 1 2 3", 'a{x="1"}} 1',
        "<html>a 1</html>", "\0a 1", "a=1",
    ],
)  # fmt: skip
def test_what_is_no_sample_or_no_finite_number_is_left_out(line: str) -> None:
    assert read(f"{line}\nb 1\n", WANTED).samples == {"b": {"": 1.0}}


def test_of_a_series_that_comes_twice_the_last_counts() -> None:
    assert read('a{x="1"} 2\na{x="1"} 3\na{x="2"} 1\n', WANTED).total("a") == 4


def test_sums_beyond_all_numbers_are_unknown() -> None:
    assert read('a{x="1"} 1e308\na{x="2"} 1e308\n', WANTED).total("a") is None


def test_a_histogram_is_the_sum_of_its_series() -> None:
    cores = ((1, 3, 4, 5), (2, 2, 2, 0.1))
    told = read(
        "".join(
            f'h_bucket{{core="{core}",le="0.1"}} {first}\n'
            f'h_bucket{{core="{core}",le="1"}} {second}\n'
            f'h_bucket{{core="{core}",le="+Inf"}} {every}\nh_sum{{core="{core}"}} {seconds}\n'
            for core, (first, second, every, seconds) in enumerate(cores)
        ),
        WANTED,
    ).histogram("h")
    assert told is not None
    assert (told.bounds, told.counts) == ((0.1, 1.0, math.inf), (3, 5, 6))
    assert (told.count, told.sum) == (6, pytest.approx(5.1))


def test_a_histogram_without_its_last_bound_has_its_count() -> None:
    told = read('h_bucket{le="1"} 3\nh_count 4\n', WANTED).histogram("h")
    assert told is not None
    assert told.counts == (3, 4)
    assert told.sum is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        'h_bucket{le="1"} 3\n',
        'h_bucket{le="1"} 5\nh_bucket{le="+Inf"} 4\n',
        'h_bucket{le="x"} 5\n',
        'h_bucket{le="NaN"} 5\n',
        "h_bucket 5\n",
        'h_bucket{le="+Inf"} -1\n',
        "".join(f'h_bucket{{le="{n}"}} {n}\n' for n in range(2 * exposition.MOST_BOUNDS))
        + "h_count 9999\n",
    ],
)
def test_a_histogram_that_makes_no_sense_is_none(text: str) -> None:
    assert read(text, WANTED).histogram("h") is None


def test_more_than_is_read_is_told_to_be_more() -> None:
    assert not read("a 1\n" * 10, WANTED).is_cut
    assert read("\n" * (exposition.MOST_LINES + 1) + "a 1\n", WANTED) == Exposition({}, True)
    many = "".join(f'a{{x="{n}"}} 1\n' for n in range(exposition.MOST_SAMPLES + 1))
    assert read(many, WANTED).is_cut
    assert read(many, WANTED).total("a") == exposition.MOST_SAMPLES
    long = 'a{x="' + "y" * exposition.MOST_LINE_CHARACTERS + '"} 1\nb 2\n'
    assert read(long, WANTED).is_cut
    assert read(long, WANTED).samples == {"b": {"": 2.0}}


HOSTILE = [
    'a{x="' + '\\"' * 8000,
    "a{" * 8000,
    "a " * 8000,
    'a{x="' + '","' * 5000,
    "a " + "9" * 16_000,
    "a 1 " + "." * 16_000,
    "a" * 4_000_000,
    "\n" * 4_000_000,
    'a{x="1"} ' * 400_000,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_takes_long(text: str) -> None:
    """Each ends at all: a pattern that tries every split would not, in any test's time."""
    assert not read(text, WANTED).samples


@given(text=st.text() | st.text('abh_bucket{}"\\=le+Inf. 1\n#', max_size=120))
def test_any_text_gives_finite_numbers(text: str) -> None:
    told = read(text, WANTED)
    for series in told.samples.values():
        assert all(map(math.isfinite, series.values()))
    told.histogram("h")
