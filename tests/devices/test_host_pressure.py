"""What counts as one spell of memory pressure on the host."""

from __future__ import annotations

import pytest

from gpud.devices.host_pressure import CGROUP_QUIET_SECONDS, HostPressure, squeeze_events
from gpud.devices.snapshot import HostReadings, Snapshot

MIB = 1024**2


def counts(figures: list[HostReadings], every_seconds: float = 1.0) -> list[int]:
    """How many squeezes began at each tick."""
    pressure = HostPressure()
    begun = [len(pressure.observe(each, at * every_seconds)) for at, each in enumerate(figures)]
    assert pressure.count == sum(begun)
    return begun


def stalls(*percents: float | None) -> list[HostReadings]:
    return [HostReadings(memory_some_percent=percent) for percent in percents]


def swaps(*used_mib: int | None) -> list[HostReadings]:
    return [
        HostReadings(swap_used_bytes=None if used is None else used * MIB) for used in used_mib
    ]


def cgroups(*values: int | None) -> list[HostReadings]:
    return [
        HostReadings(memory_cgroup_events=None if value is None else {"max": value, "oom": 0})
        for value in values
    ]


def test_unknown_readings_count_nothing() -> None:
    assert counts([HostReadings()] * 3) == [0, 0, 0]


@pytest.mark.parametrize(
    ("percents", "begun"),
    [
        ((0, 9.9, 0), [0, 0, 0]),
        ((0, 10, 0), [0, 1, 0]),
        ((50,), [1]),
        # A long squeeze counts once, dips down to the lower threshold and gaps included.
        ((10, 40, 6, 12, None, 5, 30), [1, 0, 0, 0, 0, 0, 0]),
        # Having left, it may come again.
        ((12, 4.9, 9, 11), [1, 0, 0, 1]),
    ],
)
def test_stalls(percents: tuple[float | None, ...], begun: list[int]) -> None:
    assert counts(stalls(*percents)) == begun


@pytest.mark.parametrize(
    ("used_mib", "begun"),
    [
        ((500,) * 3, [0, 0, 0]),  # full of old pages is no growth
        ((0, 64, 64), [0, 0, 0]),
        ((0, 65, 65), [0, 1, 0]),
        ((0, 40, 80, 120, 500, 900), [0, 0, 1, 0, 0, 0]),
        # 5 MiB a second is slower than 64 MiB in 10 s.
        (tuple(range(0, 150, 5)), [0] * 30),
        # It shrinks, or stays for the length of the window, and grows again.
        ((0, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100), [0, 1, *[0] * 11, 1]),
        ((0, 100, *[100] * 11, 200), [0, 1, *[0] * 11, 1]),
        ((0, None, 100), [0, 0, 1]),
    ],
)
def test_swap(used_mib: tuple[int | None, ...], begun: list[int]) -> None:
    assert counts(swaps(*used_mib)) == begun


@pytest.mark.parametrize(
    ("values", "begun"),
    [
        ((7, 7), [0, 0]),  # counted before gpud looked
        ((7, 8, 9, 100), [0, 1, 0, 0]),
        ((7, None, 8), [0, 0, 1]),
        ((7, 3, 4), [0, 0, 1]),  # made anew: it starts again
    ],
)
def test_cgroup_counters(values: tuple[int | None, ...], begun: list[int]) -> None:
    assert counts(cgroups(*values)) == begun


def test_a_cgroup_that_was_quiet_counts_again() -> None:
    assert counts(cgroups(0, 1, 2), every_seconds=CGROUP_QUIET_SECONDS) == [0, 1, 1]
    assert counts(cgroups(0, 1, 2), every_seconds=CGROUP_QUIET_SECONDS - 1) == [0, 1, 0]


def test_signs_count_apart_and_tell_their_numbers() -> None:
    pressure = HostPressure()
    pressure.observe(HostReadings(swap_used_bytes=0, memory_cgroup_events={"oom_kill": 1}), 0.0)
    squeezes = pressure.observe(
        HostReadings(
            swap_used_bytes=80 * MIB,
            memory_some_percent=12.5,
            memory_full_percent=3.0,
            memory_cgroup_events={"oom_kill": 3},
        ),
        1.0,
    )
    assert pressure.count == 3
    assert [each.source for each in squeezes] == ["psi", "swap", "cgroup"]
    stall, swap, cgroup = squeezes
    assert stall.facts == {"some_percent": "12.5", "full_percent": "3"}
    assert stall.words == "tasks waited for memory in 12.5 % of the last 10 s"
    assert swap.facts == {"grown_bytes": str(80 * MIB), "swap_used_bytes": str(80 * MIB)}
    assert swap.words == "swap in use grew by 80 MiB within 10 s"
    assert cgroup.facts == {"counter": "oom_kill", "grown": "2", "total": "3"}
    assert cgroup.words == "the memory cgroup of gpud counted 2 × oom_kill"


def test_the_journal_tells_each_that_began() -> None:
    begun = HostPressure().observe(HostReadings(memory_some_percent=30.0), 0.0)
    seen = Snapshot(sequence=1, boottime=0.0, wall=1.7e9, samples=(), squeezes=begun)
    (event,) = squeeze_events(seen)
    assert (event.type, event.subject, event.wall) == ("node.memory_pressure", "node", 1.7e9)
    assert event.reason == "tasks waited for memory in 30 % of the last 10 s"
    assert event.details == {"source": "psi", "some_percent": "30"}
