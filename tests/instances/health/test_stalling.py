"""What counts as progress of a load, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gpud.engines.engine import LoadStep, Readiness
from gpud.instances.health.stalling import WEAK_LIMITS, Look, Stall, device_bytes, words_of
from gpud.instances.instance import InstanceState
from gpud.instances.terms import LoadTerms
from gpud.instances.tree.output import OUTPUT_NAME
from gpud.units import MIB
from tests.fakes.cards import process, sample, snapshot
from tests.instances.town import ToldEngine, town

LIMIT = 10.0
STILL = Look(readiness=Readiness.LOADING, step=LoadStep())
FAR_SECONDS = 1000


def stalled_after(look: Callable[[int], Look]) -> int | None:
    """The second at which one that is heard each second counts as stalled."""
    stall = Stall(LIMIT, 0.0)
    for second in range(FAR_SECONDS):
        stall.heard(look(second), second)
        if stall.is_over(second):
            return second
    return None


def printing(line: Callable[[int], str]) -> Callable[[int], Look]:
    return lambda second: replace(STILL, lines=(line(second),))


def test_one_that_says_nothing_new_is_stalled() -> None:
    assert stalled_after(lambda _: STILL) == LIMIT + 1


@pytest.mark.parametrize(
    "line",
    [
        lambda n: f"still waiting for workers, try {n}",
        lambda n: f"INFO 11-21 10:{n:02}:07 [shm_broadcast.py:681] No available block found",
        lambda n: f"0.{n:02}.044.221 W [0x7f{n:x}a] waits {'#' * n}",
        lambda n: ("one thing", "another")[n % 2],
    ],
)
def test_a_line_that_is_said_again_is_no_progress(line: Callable[[int], str]) -> None:
    assert stalled_after(printing(line)) in {LIMIT + 1, LIMIT + 2}


def test_new_lines_are_progress_for_a_while() -> None:
    words = [f"{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(26 * 26)]
    found = stalled_after(printing(lambda n: words[n % len(words)]))
    assert found == (WEAK_LIMITS + 1) * LIMIT + 1


@pytest.mark.parametrize(
    "look",
    [
        lambda n: replace(STILL, readiness=(Readiness.LOADING, Readiness.REFUSED)[n % 2]),
        lambda n: replace(STILL, step=LoadStep(fraction=0.5 + n % 2 / 10)),
    ],
)
def test_to_go_to_and_fro_is_no_progress(look: Callable[[int], Look]) -> None:
    assert stalled_after(look) == LIMIT + 2


def test_further_steps_are_progress_however_long_they_take() -> None:
    assert stalled_after(lambda n: replace(STILL, step=LoadStep(fraction=n // 9 / 200))) is None


def used_until_stalled(taken: Callable[[int], tuple[int | None, float | None]]) -> int | None:
    stall = Stall(LIMIT, 0.0)
    for second in range(FAR_SECONDS):
        stall.grew(*taken(second), second)
        if stall.is_over(second):
            return second
    return None


def test_bytes_that_come_are_progress_as_long_as_they_come() -> None:
    assert used_until_stalled(lambda n: (n * MIB, None)) is None
    assert used_until_stalled(lambda n: (min(n, 100) * MIB, None)) == 100 + LIMIT + 1
    assert used_until_stalled(lambda n: (n % 2 * 500 * MIB, None)) == LIMIT + 2
    assert used_until_stalled(lambda n: (n, None)) == LIMIT + 1  # a few bytes are none


def test_work_is_progress_for_a_while_and_a_look_at_the_clock_is_none() -> None:
    whole_core = used_until_stalled(lambda n: (None, float(n)))
    assert whole_core == (WEAK_LIMITS + 1) * LIMIT + 1
    assert used_until_stalled(lambda n: (None, n * 0.01)) == LIMIT + 1
    assert used_until_stalled(lambda _: (None, None)) == LIMIT + 1


def test_the_words_of_a_line_are_what_is_left_without_numbers() -> None:
    assert words_of("0.00.044 I load: try 7 of 9, 45% |###--| 3.2it/s") == "I load try of"
    assert words_of("....") == ""


def test_the_bytes_of_a_promise_are_those_of_its_processes_on_all_devices() -> None:
    own, other = process(1, 5 * MIB, claim="r-1"), process(2, 9 * MIB, claim="r-2")
    first = replace(sample(0), processes=(own, other))
    second = replace(sample(1), processes=(own, process(3, None, claim="r-1")))
    seen = snapshot(first, second)
    assert device_bytes(seen, "r-1") == 10 * MIB
    assert device_bytes(seen, "r-3") is None
    assert device_bytes(None, "r-1") is None
    assert device_bytes(seen, None) is None


class Printing(ToldEngine):
    """One that is never ready, and prints whenever it is asked."""

    def __init__(self, output: Callable[[], Path]) -> None:
        super().__init__()
        self.asked = 0
        self._output = output

    async def readiness(self, endpoint: str) -> Readiness:
        self.asked += 1
        with self._output().open("a") as file:
            file.write(f"still waiting for workers, try {self.asked}\n")
        return Readiness.LOADING


async def test_a_load_that_prints_for_ever_ends(tmp_path: Path, tiny_model: Path) -> None:
    async with town(tmp_path, tiny_model, (sample(),)) as place:
        engine = Printing(lambda: place.house.directory / name / OUTPUT_NAME)
        place.house.engines = {engine.kind: engine}

        async def time_passes() -> None:
            while True:
                if engine.asked:
                    place.clock.advance(0.5)
                await asyncio.sleep(0)

        name = await place.load(LoadTerms())
        passing = asyncio.ensure_future(time_passes())
        try:
            ended = await place.until(name, InstanceState.FAILED)
        finally:
            passing.cancel()
        assert ended.failure is not None
        assert "no progress" in ended.failure.message
        assert engine.asked > 1
