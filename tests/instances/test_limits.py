"""Cores and memory of one instance: which it gets, what is refused, how it is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gpud.devices.topology import format_cpus
from gpud.errors import OptionInvalid
from gpud.instances.instance import Instance, InstanceState
from gpud.instances.limits.limits import (
    NO_CONTROLLER,
    Kept,
    check_memory,
    choose,
    with_threads,
    words,
)
from gpud.instances.needs import Need
from gpud.instances.tree import cgroup
from gpud.models.model import (
    Confidence,
    EngineKind,
    Footprint,
    FootprintItem,
    FootprintWhat,
    Limits,
    ModelOptions,
)
from gpud.units import MIB

NOTHING = ModelOptions()
KEPT = Kept(in_cgroup=True, has_quota=True, cpus=(0, 1))


def instance(limits: Limits, cpus: tuple[int, ...] = (), **changes: object) -> Instance:
    made = Instance(
        id="tiny-1",
        model="tiny",
        engine=EngineKind.LLAMA_CPP,
        owner="anna",
        state=InstanceState.READY,
        options=NOTHING,
        create_wall=0.0,
        limits=limits,
        cpu_affinity=format_cpus(cpus),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def footprint(size: int, margin: int) -> Footprint:
    return Footprint(
        items=(
            FootprintItem(what=FootprintWhat.WEIGHTS, bytes=size, source="told"),
            FootprintItem(what=FootprintWhat.MARGIN, bytes=margin, source="told"),
        ),
        confidence=Confidence.LAW,
    )


def need(on_host: int | None, beside: int = 0, on_card: int | None = None) -> Need:
    return Need(
        cards=(),
        hosts=(),
        on_card=None if on_card is None else footprint(on_card, 0),
        on_host=None if on_host is None else footprint(on_host, 100 * MIB),
        beside_bytes=beside,
    )


@pytest.mark.parametrize(("cpus", "threads"), [(4.0, 4), (2.5, 3), (0.1, 1)])
def test_threads_follow_the_cores(cpus: float, threads: int) -> None:
    limits = Limits(cpus=cpus)
    assert with_threads(NOTHING, EngineKind.LLAMA_CPP, limits).threads == threads
    said = ModelOptions(threads=9)
    assert with_threads(said, EngineKind.LLAMA_CPP, limits).threads == 9
    assert with_threads(NOTHING, EngineKind.VLLM, limits).threads is None
    assert with_threads(NOTHING, EngineKind.LLAMA_CPP, Limits()).threads is None


def test_cores_are_its_own_then_near() -> None:
    other = instance(Limits(cpus=2.0), (4, 5))
    assert choose(2.0, {4, 5, 6, 7}, range(8), ()) == (4, 5)
    assert choose(2.0, {4, 5, 6, 7}, range(8), (other,)) == (6, 7)
    assert choose(4.0, {4, 5, 6, 7}, range(8), (other,)) == (0, 1, 6, 7)
    assert choose(7.0, {4, 5, 6, 7}, range(8), (other,)) == (0, 1, 2, 3, 4, 6, 7)
    assert choose(64.0, (), range(8), (other,)) == tuple(range(8))
    # Neither what has ended nor what has no share of its own is in the way.
    ended = replace(other, state=InstanceState.STOPPED)
    free = instance(Limits(), (4, 5))
    assert choose(2.0, {4, 5}, range(8), (ended, free)) == (4, 5)


def test_what_cannot_be_loaded_within_its_memory_is_refused() -> None:
    limited = instance(Limits(memory_bytes=512 * MIB))
    check_memory(limited, need(on_host=512 * MIB))
    check_memory(instance(Limits()), need(on_host=2**50))
    with pytest.raises(OptionInvalid, match=r"512 MiB .* less than the 513 MiB that models/tiny"):
        check_memory(limited, need(on_host=513 * MIB))
    # On a card what counts is what it needs of the host beside it.
    check_memory(limited, need(on_host=None, beside=512 * MIB, on_card=2**40))
    with pytest.raises(OptionInvalid):
        check_memory(limited, need(on_host=0, beside=513 * MIB, on_card=2**40))


@pytest.mark.parametrize(
    ("limits", "kept", "told"),
    [
        (Limits(), KEPT, ""),
        (
            Limits(cpus=2.0, memory_bytes=1),
            KEPT,
            "cpus: cgroup, bound to CPUs 0-1; memory: cgroup",
        ),
        (Limits(cpus=2.0), replace(KEPT, has_quota=False), "cpus: bound to CPUs 0-1"),
        (
            Limits(cpus=1.5),
            replace(KEPT, has_quota=False),
            "cpus: bound to CPUs 0-1, the whole of 2 instead of 1.5",
        ),
        (
            Limits(cpus=1.0),
            Kept(in_cgroup=False, has_quota=False, cpus=()),
            "cpus: not enforced: it could not be bound to CPUs of its own",
        ),
        (Limits(memory_bytes=1), replace(KEPT, in_cgroup=False), f"memory: {NO_CONTROLLER}"),
        (
            Limits(memory_bytes=1),
            replace(KEPT, in_cgroup=False, problems=("cgroup /x: Permission denied",)),
            "memory: not enforced: cgroup /x: Permission denied",
        ),
    ],
)
def test_how_it_is_kept_is_told(limits: Limits, kept: Kept, told: str) -> None:
    assert words(limits, kept) == told


def test_a_cgroup_has_the_limits(tmp_path: Path) -> None:
    cgroups = cgroup.Cgroups(tmp_path)
    (tmp_path / "cgroup.subtree_control").write_text("memory\n")
    (tmp_path / "instance-a").mkdir()
    (tmp_path / "instance-a/cpu.max").write_text("max 100000\n")
    own = Path(cgroups.make("a", Limits(cpus=1.5, memory_bytes=64 * MIB)))
    assert (own / "memory.max").read_text() == f"{64 * MIB}\n"
    assert (own / "memory.swap.max").read_text() == "0\n"
    assert (own / "cpu.max").read_text() == "150000 100000\n"
    assert cgroups.has_quota("a")
    # Without the controller nothing is written: the kernel makes such files, not we.
    other = Path(cgroups.make("b", Limits(cpus=1.5), swaps=True))
    assert list(other.iterdir()) == []
    assert not cgroups.has_quota("b")
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu"
