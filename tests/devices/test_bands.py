"""The banding law: entered at once, left late, unknown readings change nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.devices.bands import Band, Bands, Law, Standing, shown, step, used_percent
from gpud.devices.sampling.frames import SamplerSettings
from gpud.devices.snapshot import DeviceInfo, DeviceKind, Pressure, Readings, Thermal
from gpud.settings import Policy

LAW = Law(edges=(65.0, 80.0, 85.0), hysteresis=5.0, hold_seconds=10.0)
INFO = DeviceInfo(
    uuid="SIM-0",
    alias="gpu0",
    index=0,
    kind=DeviceKind.SIMULATED,
    model_name="simulated",
    memory_total_bytes=1000,
)

Steps = list[tuple[float, float | None]]


def levels(law: Law, steps: Steps) -> list[int | None]:
    """What is shown after each (boottime, reading)."""
    band: Band | None = None
    told = []
    for boottime, reading in steps:
        band = step(law, band, reading, boottime)
        told.append(shown(law, band))
    return told


def test_the_defaults_are_those_of_the_policy() -> None:
    assert SamplerSettings().bands == Bands.of(Policy())


@pytest.mark.parametrize(
    ("reading", "level"),
    [
        (-10.0, 0), (0.0, 0), (64.9, 0), (65.0, 1), (79.9, 1), (80.0, 2), (84.9, 2), (85.0, 3),
        (200.0, 3), (None, None),
    ],
)  # fmt: skip
def test_a_first_reading_is_in_the_band_above_the_edges_that_it_has_reached(
    reading: float | None, level: int | None
) -> None:
    assert levels(LAW, [(0.0, reading)]) == [level]


@pytest.mark.parametrize(
    ("name", "steps", "expected"),
    [
        ("entered at once, by several bands too", [(0, 60), (1, 64.9), (2, 91)], [0, 0, 3]),
        ("left after the hold", [(0, 85), (1, 79), (10.9, 79), (11, 79)], [3, 3, 3, 2]),
        ("within the hysteresis it stays", [(0, 85), (1, 80), (99, 80), (200, 84)], [3, 3, 3, 3]),
        ("only below the hysteresis counts", [(0, 85), (1, 81), (20, 79.9), (29, 79)], [3] * 4),
        ("an interruption begins anew", [(0, 85), (1, 79), (6, 80), (8, 79), (17, 79)], [3] * 5),
        (
            "and then it needs all of the hold",
            [(0, 85), (1, 79), (6, 80), (8, 79), (18, 79)],
            [3, 3, 3, 3, 2],
        ),
        ("past two edges at once", [(0, 99), (1, 20), (11, 20)], [3, 3, 0]),
        (
            "each edge has its own wait",
            [(0, 99), (1, 70), (6, 50), (11, 50), (15.9, 50), (16, 50)],
            [3, 3, 3, 1, 1, 0],
        ),
        ("back up on its way out", [(0, 85), (1, 79), (5, 86), (12, 79)], [3, 3, 3, 3]),
        ("a long gap between two samples counts", [(0, 85), (1, 70), (601, 70)], [3, 3, 1]),
    ],
)  # fmt: skip
def test_bands_over_time(name: str, steps: Steps, expected: list[int]) -> None:
    assert levels(LAW, steps) == expected, name


@pytest.mark.parametrize(
    ("name", "steps", "expected"),
    [
        ("never read", [(0, None), (1, None)], [None, None]),
        ("a lower band is not told from memory", [(0, 81), (1, None)], [2, None]),
        ("the highest one is", [(0, 85), (1, None), (9999, None)], [3, 3, 3]),
        ("left by readings alone", [(0, 85), (1, None), (60, 40), (70, 40)], [3, 3, 3, 0]),
        ("the wait begins anew", [(0, 85), (1, 70), (6, None), (11, 70), (20, 70)], [3] * 5),
        ("hysteresis outlives a refusal", [(0, 81), (1, None), (2, 77)], [2, None, 2]),
        ("and so does entering", [(0, 60), (1, None), (2, 90)], [0, None, 3]),
    ],
)  # fmt: skip
def test_unknown_readings(name: str, steps: Steps, expected: list[int | None]) -> None:
    assert levels(LAW, steps) == expected, name


@pytest.mark.parametrize(
    ("name", "steps", "times"),
    [
        ("never there", [(0, 60), (1, 84.9)], 0),
        ("there at once", [(0, 90)], 1),
        ("one stay counts once", [(0, 60), (1, 90), (2, 80), (3, 95), (4, None), (5, 91)], 1),
        ("left and come again", [(0, 90), (1, 40), (11, 40), (12, 90), (13, 90)], 2),
    ],
)
def test_how_often_the_highest_band_was_entered(name: str, steps: Steps, times: int) -> None:
    band: Band | None = None
    for boottime, reading in steps:
        band = step(LAW, band, reading, boottime)
    assert band is not None
    assert band.risen == times, name


def test_without_hysteresis_and_hold_the_band_follows_the_reading() -> None:
    law = replace(LAW, hysteresis=0.0, hold_seconds=0.0)
    readings = [85.0, 84.9, 80.0, 79.9, 65.0, 64.9, 85.0]
    assert levels(law, [(0.0, reading) for reading in readings]) == [3, 2, 2, 1, 1, 0, 3]


laws = st.builds(
    lambda edges, hysteresis, hold: Law(
        edges=tuple(sorted(edges)), hysteresis=hysteresis, hold_seconds=hold
    ),
    st.sets(st.integers(1, 100), min_size=3, max_size=3),
    st.integers(0, 30),
    st.integers(0, 20),
)
histories = st.lists(
    st.tuples(st.integers(0, 12), st.none() | st.integers(0, 105)), min_size=1, max_size=40
)


def is_due_to_leave(law: Law, edge: float, history: Steps) -> bool:
    """Whether the newest samples, none unknown, were all far enough below for the whole hold."""
    newest = history[-1][0]
    for boottime, reading in reversed(history):
        if reading is None or reading >= edge - law.hysteresis:
            return False
        if newest - boottime >= law.hold_seconds:
            return True
    return False


@given(laws, histories)
def test_property_never_entered_late_and_never_left_early(
    law: Law, pauses: list[tuple[int, int | None]]
) -> None:
    band: Band | None = None
    now, history = 0.0, []
    for pause, reading in pauses:
        before, now = band, now + pause
        history.append((now, reading))
        band = step(law, before, reading, now)
        if reading is None:
            assert (band.level if band else None) == (before.level if before else None)
            continue
        assert band is not None
        for index, edge in enumerate(law.edges):
            was_held = before is not None and before.level > index
            is_held = band.level > index
            # Both ways: it is held while it must be, and not for longer.
            stays = was_held and not is_due_to_leave(law, edge, history)
            assert is_held == (reading >= edge or stays)


@pytest.mark.parametrize(
    ("total", "used", "percent"),
    [(1000, 850, 85.0), (None, 850, None), (1000, None, None), (0, 0, None), (1000, 0, 0.0)],
)
def test_used_percent(total: int | None, used: int | None, percent: float | None) -> None:
    info = replace(INFO, memory_total_bytes=total)
    assert used_percent(info, Readings(memory_used_bytes=used)) == percent


def test_both_bands_of_a_device_stand_by_themselves() -> None:
    bands = Bands()

    def told(*shows: Readings) -> tuple[Pressure | None, Thermal | None]:
        standing = Standing()
        for second, readings in enumerate(shows):
            standing = standing.after(bands, INFO, readings, float(second))
        return standing.told(bands)

    hot = Readings(memory_used_bytes=100, temperature_celsius=90.0)
    assert told(hot) == (Pressure.LOW, Thermal.CRITICAL)
    assert told(Readings(memory_used_bytes=850)) == (Pressure.CRITICAL, None)
    assert told(hot, Readings()) == (None, Thermal.CRITICAL)
    assert Pressure.LOW < Pressure.NORMAL < Pressure.HIGH < Pressure.CRITICAL
    assert Thermal.NORMAL < Thermal.WARNING < Thermal.THROTTLING < Thermal.CRITICAL
