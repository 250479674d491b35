"""What goes on around a benchmark, seen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from gpud.benchmarking.verdict import Scene
from gpud.benchmarking.witness import Witness
from gpud.engines.engine import Pulse
from gpud.instances.instance import InstanceState
from gpud.instances.terms import LoadTerms
from tests.fakes.cards import sample
from tests.instances.town import Town, town

ONE = Pulse(running=1, waiting=0, progress=1.0)


@pytest.fixture
async def place(tmp_path: Path, tiny_model: Path) -> AsyncIterator[Town]:
    async with town(tmp_path, tiny_model, (sample(),)) as made:
        yield made


@pytest.mark.parametrize(
    ("running", "is_ours", "voids"), [(1, True, False), (1, False, True), (2, True, True)]
)
async def test_a_probe_of_gpud_s_own_is_no_work_of_a_neighbour(
    place: Town, running: int, is_ours: bool, voids: bool
) -> None:
    terms = LoadTerms(devices=("U-gpu0",))
    ids = [await place.load(terms, owner=owner) for owner in ("anna", "bert")]
    measured, other = [await place.until(id_, InstanceState.READY) for id_ in ids]
    place.engine.told = replace(ONE, running=running)
    scene = Scene(uuids=measured.devices)
    witness = Witness(
        house=place.house,
        roster=place.roster,
        instance=measured,
        scene=scene,
        key=None,
        concurrency=lambda: 1,
    )
    with place.house.quiet.asking(other.id) if is_ours else nullcontext():
        await witness._see_neighbours()
    assert bool(scene.reasons) is voids
