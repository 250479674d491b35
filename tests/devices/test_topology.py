"""What is nearest to a card, from the kernel's words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.devices.topology import (
    SYSFS,
    Nearness,
    format_cpus,
    members,
    nearest,
    nodes,
    parse_cpus,
)
from tests.devices.sysfs import node, slot, two_nodes

BUS = "00000000:3B:00.0"  # as NVML spells it
SLOT = "0000:3b:00.0"  # as sysfs does


@given(st.frozensets(st.integers(0, 300)))
def test_a_list_reads_back_as_it_was_written(cpus: frozenset[int]) -> None:
    assert parse_cpus(format_cpus(cpus)) == cpus


@pytest.mark.parametrize(
    ("cpus", "text"), [({0}, "0"), ({0, 1, 2, 5}, "0-2,5"), (set(), ""), ({7, 3}, "3,7")]
)
def test_lists_are_short(cpus: set[int], text: str) -> None:
    assert format_cpus(cpus) == text


@pytest.mark.parametrize("text", ["a", "3-1", "-1", "0-", "1 2", "0-99999999", "65536", "0x1"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no list of CPUs"):
        parse_cpus(text)


def test_a_mask_counts_from_its_lowest_word() -> None:
    assert members([0b101, 0, 1 << 63]) == {0, 2, 191}


def test_nodes_without_cpus_are_nobodys_nearest(tmp_path: Path) -> None:
    two_nodes(tmp_path, "0-1", "2-3")
    node(tmp_path, 2, "")
    assert nodes(tmp_path) == {0: {0, 1}, 1: {2, 3}}


def test_a_kernel_that_tells_no_nodes_has_none(tmp_path: Path) -> None:
    assert nodes(tmp_path) == {}


def test_this_host_has_its_own_cpus_in_its_nodes() -> None:
    found = nodes(SYSFS)
    assert not found or 0 in frozenset().union(*found.values())


def test_sysfs_says_it_where_the_driver_does_not(tmp_path: Path) -> None:
    two_nodes(tmp_path, "0-15", "16-31")
    slot(tmp_path, SLOT, node="1", cpus="16-31")
    assert nearest(BUS, Nearness(), tmp_path) == Nearness(memory_node=1, cpus="16-31")


def test_the_driver_goes_first(tmp_path: Path) -> None:
    two_nodes(tmp_path, "0-15", "16-31")
    slot(tmp_path, SLOT, node="1", cpus="16-31")
    told = Nearness(memory_node=0, cpus="0-3")
    assert nearest(BUS, told, tmp_path) == told


def test_a_board_that_does_not_say_leaves_it_unknown(tmp_path: Path) -> None:
    two_nodes(tmp_path, "0-15", "16-31")
    slot(tmp_path, SLOT, node="-1", cpus="")
    assert nearest(BUS, Nearness(), tmp_path) == Nearness()
    assert nearest("00000000:99:00.0", Nearness(), tmp_path) == Nearness()
    assert nearest(None, Nearness(), tmp_path) == Nearness()


def test_one_node_leaves_no_choice_of_cpus(tmp_path: Path) -> None:
    node(tmp_path, 0, "0-15")
    slot(tmp_path, SLOT, node="0", cpus="0-15")
    told = Nearness(cpus="0-15")
    assert nearest(BUS, told, tmp_path) == Nearness(memory_node=0, cpus=None)
