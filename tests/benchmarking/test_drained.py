"""A run that waits until its instance serves nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gpud.benchmarking.benchmark import Plan
from gpud.benchmarking.benchmarks import Benchmarks
from gpud.benchmarking.run import Run
from gpud.engines.api_key import ApiKey
from gpud.errors import OptionInvalid, WrongState
from gpud.instances.instance import InstanceState, Sleep
from gpud.instances.terms import LoadTerms
from tests.fakes.cards import sample
from tests.fakes.clock import FakeClock
from tests.instances.town import Town, town


class Hasty(FakeClock):
    """Of the run alone: nobody waits."""

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)


@pytest.fixture
async def place(tmp_path: Path, tiny_model: Path) -> AsyncIterator[Town]:
    async with town(tmp_path, tiny_model, (sample(),)) as made:
        yield made


async def looks(place: Town, monkeypatch: pytest.MonkeyPatch, *told: int | None) -> int:
    """How often a run asks an engine that answers so; the last answer from then on."""
    terms = LoadTerms(devices=("U-gpu0",))
    instance = await place.until(await place.load(terms), InstanceState.READY)
    asked: list[int | None] = []

    async def in_flight(endpoint: str, key: ApiKey | None = None) -> int | None:
        asked.append(told[min(len(asked), len(told) - 1)])
        return asked[-1]

    monkeypatch.setattr(place.engine, "in_flight", in_flight)
    house = replace(place.house, clock=Hasty())
    run = Run(house=house, roster=place.roster, instance=instance, plan=Plan(), owner="anna")
    await run._drain(None)
    return len(asked)


async def test_one_that_is_late_with_an_answer_is_asked_again(
    place: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await looks(place, monkeypatch, None, None, 2, None, None, 0) == 6


async def test_one_that_never_tells_is_refused(
    place: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionInvalid, match="does not tell whether requests are in flight"):
        await looks(place, monkeypatch, None)


async def test_one_that_sleeps_is_to_be_woken_first(place: Town) -> None:
    instance = await place.until(
        await place.load(LoadTerms(devices=("U-gpu0",))), InstanceState.READY
    )
    asleep = replace(instance, sleep=Sleep(level=1, wall=1.0))
    benchmarks = Benchmarks(place.house, place.roster)
    with pytest.raises(
        WrongState, match=f"it is asleep; wake it first .*gpuctl wake {asleep.name}"
    ):
        benchmarks.start(asleep, "anna", Plan())
    run = benchmarks.start(instance, "anna", Plan())  # it was not noted as running
    run.stop()
