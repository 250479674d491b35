"""What an instance is bound to, and the words for how it is kept from swap."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from gpud.devices.snapshot import DeviceInfo, DeviceKind
from gpud.instances.starting.confinement import (
    ONE_NODE,
    LockTerms,
    Nearby,
    binding_words,
    nearby,
    swap_words,
)
from gpud.settings import Policy
from tests.fakes.cards import sample

MIB = 1024**2
ALL = Policy()
LOCKABLE = LockTerms(engine_can=True, needed_bytes=1200 * MIB, limit_bytes=None)


def card(index: int, node: int | None, cpus: str | None) -> DeviceInfo:
    return replace(sample(index).info, numa_node=node, cpu_affinity=cpus)


NEAR_0, NEAR_1 = card(0, 0, "0-3"), card(1, 1, "4-7")
HOST = sample(kind=DeviceKind.HOST).info


def test_a_card_binds_to_what_is_nearest() -> None:
    assert nearby([NEAR_1], 2, ALL) == Nearby(cpus=frozenset({4, 5, 6, 7}), memory_node=1)


def test_the_host_beside_a_card_changes_nothing() -> None:
    assert nearby([NEAR_1, HOST], 2, ALL) == nearby([NEAR_1], 2, ALL)
    assert nearby([HOST], 2, ALL) == Nearby()


def test_cards_on_two_nodes_add_their_cpus_and_prefer_no_memory() -> None:
    assert nearby([NEAR_0, NEAR_1], 2, ALL) == Nearby(cpus=frozenset(range(8)))


def test_a_card_that_does_not_tell_its_cpus_leaves_all_of_them() -> None:
    told = nearby([NEAR_0, card(1, 0, None)], 2, ALL)
    assert told == Nearby(cpus=frozenset(), memory_node=0)


def test_a_host_of_one_node_has_nothing_to_bind_and_says_so() -> None:
    assert nearby([card(0, 0, None)], 1, ALL) == Nearby(words=ONE_NODE)


def test_what_nobody_tells_is_said_to_be_unknown() -> None:
    assert "do not tell" in nearby([card(0, None, None)], None, ALL).words


@pytest.mark.parametrize(
    ("policy", "bound"),
    [
        ({"gpu_affinity": False}, Nearby(memory_node=1)),
        ({"numa_aware": False}, Nearby(cpus=frozenset({4, 5, 6, 7}))),
        ({"gpu_affinity": False, "numa_aware": False}, Nearby()),
    ],
)
def test_policy_switches_either_off(policy: dict[str, bool], bound: Nearby) -> None:
    assert nearby([NEAR_1], 2, msgspec.structs.replace(ALL, **policy)) == bound


def test_bindings_in_words() -> None:
    assert binding_words((0, 1, 2, 9), 1) == "CPUs 0-2,9, memory node 1"
    assert binding_words((), 0) == "memory node 0"
    assert binding_words((3,), None) == "CPUs 3"
    assert binding_words((), None) == ""


def test_a_cgroup_is_better_than_locking() -> None:
    assert swap_words(ALL, LOCKABLE, in_cgroup=True) == "cgroup"


@pytest.mark.parametrize("limit", [None, 1200 * MIB])
def test_memory_is_locked_where_there_is_no_cgroup(limit: int | None) -> None:
    assert swap_words(ALL, replace(LOCKABLE, limit_bytes=limit), in_cgroup=False) == "mlock"


def test_why_neither_is_said_with_numbers() -> None:
    short = replace(LOCKABLE, limit_bytes=8 * MIB)
    words = swap_words(ALL, short, in_cgroup=False)
    assert words == "not enforced: RLIMIT_MEMLOCK 8 MiB < 1.17 GiB"
    unable = swap_words(ALL, replace(LOCKABLE, engine_can=False), in_cgroup=False)
    assert unable.startswith("not enforced: no memory cgroup is delegated, and the engine")
    off = msgspec.structs.replace(ALL, swap_disabled=False)
    assert swap_words(off, LOCKABLE, in_cgroup=True) == "not enforced: policy.swap_disabled is off"
