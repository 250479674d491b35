"""The parts of a bar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuctl.glance.split import Part, bar_text, device_bar
from gpud.v1 import devices_pb2 as d
from tests.gpuctl import samples

GIB = samples.GIB


def card(used: float, granted: float = 0, foreign: float = 0, leaked: float = 0) -> d.Device:
    """Of 10 GiB; all in GiB."""
    made = samples.card()
    made.memory_total_bytes = 10 * GIB
    made.granted_bytes, made.leaked_bytes = int(granted * GIB), int(leaked * GIB)
    made.foreign_bytes, made.sample.memory_used_bytes = int(foreign * GIB), int(used * GIB)
    return made


@pytest.mark.parametrize(
    ("device", "shown"),
    [
        (card(0), "··········"),
        (card(3, granted=5), "███▒▒·····"),
        (card(5, granted=5, foreign=2), "███▒▒▓▓···"),
        (card(7, granted=4), "███████···"),  # over-use is in use as well
        (card(2, foreign=1, leaked=1), "▓▚········"),
        (card(0.2, granted=0.2), "█·········"),  # what is little is seen
        (card(0.05, granted=0.05), "··········"),
        (card(10, granted=6, foreign=4), "██████▓▓▓▓"),
        (card(9.9, granted=9.9, foreign=0), "██████████"),
        (samples.silent_card(), "??????????"),
    ],
)
def test_where_the_bytes_are(device: d.Device, shown: str) -> None:
    assert bar_text(device_bar(device, 10)) == shown


def test_in_ascii() -> None:
    device = card(5, granted=5, foreign=1, leaked=1)
    assert bar_text(device_bar(device, 10), plain=True) == "###==%!..."


def test_what_a_lost_card_showed_last_is_not_drawn() -> None:
    lost = card(5, granted=5)
    lost.health = d.DEVICE_HEALTH_LOST
    assert device_bar(lost, 4) == ((Part.UNKNOWN, 4),)


@given(
    sizes=st.tuples(*[st.integers(0, 2**50)] * 4),
    total=st.integers(1, 2**50),
    width=st.integers(1, 60),
)
def test_it_is_always_as_wide_as_was_asked(
    sizes: tuple[int, int, int, int], total: int, width: int
) -> None:
    used, granted, foreign, leaked = sizes
    made = samples.card()
    made.memory_total_bytes, made.granted_bytes = total, granted
    made.sample.memory_used_bytes, made.foreign_bytes, made.leaked_bytes = used, foreign, leaked
    bar = device_bar(made, width)
    assert sum(count for _, count in bar) == width
    assert all(count > 0 for _, count in bar)
