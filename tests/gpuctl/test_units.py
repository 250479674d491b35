from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuctl import units
from gpud import units as daemon_units

GIB = 1024**3


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 * GIB),
        ("8G", 8 * GIB),
        ("8gb", 8 * 10**9),
        ("8192MiB", 8 * GIB),
        ("1.5 GiB", 3 * GIB // 2),
        ("512", 512),
        ("0", 0),
    ],
)
def test_sizes_that_people_write(text: str, size: int) -> None:
    assert units.parse_size(text) == size
    assert daemon_units.parse_size(text) == size  # one language on both ends


@pytest.mark.parametrize("text", ["", "G", "-1G", "8 GG", "1e9", "8GiB8", "99999999T", "٣G"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|bytes"):
        units.parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5m", 300), ("250ms", 0.25), ("1h30m", 5400), ("2d", 172800)],
)
def test_spans_that_people_write(text: str, seconds: float) -> None:
    assert units.parse_span(text) == seconds
    assert daemon_units.parse_span(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "-5s", "5 m", "5s!", "1y", "9999999999d"])
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(ValueError, match=r"span|longer"):
        units.parse_span(text)


@pytest.mark.parametrize(
    ("count", "short", "long"),
    [
        (None, "-", "-"),
        (0, "0", "0 B"),
        (17, "17B", "17 B"),
        (512 * 1024**2, "512M", "512 MiB"),
        (int(5.25 * GIB), "5.25G", "5.25 GiB"),
        (int(22.06 * GIB), "22.1G", "22.06 GiB"),
        (141 * GIB, "141G", "141 GiB"),
        (2 * 1024 * GIB, "2T", "2 TiB"),
    ],
)
def test_sizes_that_people_read(count: int | None, short: str, long: str) -> None:
    assert units.compact_size(count) == short
    assert units.size_text(count) == long


def test_used_is_told_in_the_unit_of_the_total() -> None:
    assert units.used_of(512 * 1024**2, 6 * GIB) == "0.5/6G"
    assert units.used_of(None, 6 * GIB) == "-/6G"
    assert units.used_of(3 * GIB, None) == "3G/-"
    assert units.used_of(None, None) == "-/-"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0s"),
        (0.0124, "12ms"),
        (0.9999, "1s"),
        (1.25, "1.2s"),
        (54, "54s"),
        (60, "1m"),
        (312, "5m12s"),
        (3599.9, "1h"),
        (3 * 86400 + 4 * 3600, "3d4h"),
        (-5, "-5s"),
        (0.00027, "0.27ms"),
    ],
)
def test_spans_that_people_read(seconds: float | None, text: str) -> None:
    assert units.span_text(seconds) == text


@given(st.floats(min_value=0.001, max_value=1e9))
def test_a_span_that_is_read_can_be_written(seconds: float) -> None:
    again = units.parse_span(units.span_text(seconds))
    assert again == pytest.approx(seconds, rel=0.05, abs=0.001)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (60, "1m"),
        (86400, "1d"),
        (604800, "7d"),
        (5400, "1h30m"),
        (0, "0s"),
        (0.25, "0.25s"),
        (86400.000001, "1d0.000001s"),
        (-61, "-1m1s"),
    ],
)
def test_spans_in_what_gpud_refuses(seconds: float, text: str) -> None:
    assert daemon_units.format_span(seconds) == text


@given(st.integers(min_value=0, max_value=2**60))
def test_a_size_that_is_read_can_be_written(count: int) -> None:
    again = units.parse_size(units.compact_size(count))
    assert again == pytest.approx(count, rel=0.006)
