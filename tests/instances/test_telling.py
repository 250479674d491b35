"""How far an engine's word of its buffers is believed, and what is learned of half a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpud.engines.engine import Covered
from gpud.engines.llama.output import covered, parse_buffers
from gpud.instances.measuring.telling import SLACK_BYTES, UNTOLD, Told, believed
from gpud.models.model import Confidence, Footprint, FootprintItem, FootprintWhat
from gpud.units import MIB
from tests.fakes import cards
from tests.instances.test_measuring import Telling, expected, ready, telling
from tests.instances.town import Town, town

LINES = {
    FootprintWhat.WEIGHTS: "load_tensors:        CUDA0 model buffer size =    10.00 MiB",
    FootprintWhat.KV_CACHE: "llama_kv_cache:      CUDA0 KV buffer size =     8.00 MiB",
    FootprintWhat.COMPUTE: "sched_reserve:      CUDA0 compute buffer size =     2.00 MiB",
}
FILE_BYTES = 10 * MIB


def law(**sizes: int) -> Footprint:
    items = tuple(
        FootprintItem(what=FootprintWhat[name], bytes=size * MIB, source="")
        for name, size in {**sizes, "CONTEXT": 300, "MARGIN": 20}.items()
    )
    return Footprint(items=items, confidence=Confidence.LAW)


LAW = law(WEIGHTS=10, KV_CACHE=8, COMPUTE=3)


def said(*what: FootprintWhat) -> Told:
    found = covered(parse_buffers(tuple(LINES[each] for each in what)))
    assert found is not None
    return Told(engine_bytes=found.bytes, covered=found)


def test_a_word_of_all_buffers_is_exact() -> None:
    assert believed(said(*LINES), LAW, FILE_BYTES) == Told(engine_bytes=20 * MIB)


@pytest.mark.parametrize("lost", [FootprintWhat.WEIGHTS, FootprintWhat.KV_CACHE])
def test_a_word_without_weights_or_cache_is_none(lost: FootprintWhat) -> None:
    told = said(*(each for each in LINES if each is not lost))
    assert believed(told, LAW, FILE_BYTES) == UNTOLD


def test_what_the_law_does_not_have_is_not_missed() -> None:
    told = said(FootprintWhat.WEIGHTS, FootprintWhat.COMPUTE)
    assert believed(told, law(WEIGHTS=10, COMPUTE=3), FILE_BYTES).engine_bytes == 12 * MIB


def test_a_word_without_the_compute_buffers_is_of_the_rest() -> None:
    told = said(FootprintWhat.WEIGHTS, FootprintWhat.KV_CACHE)
    assert believed(told, LAW, FILE_BYTES) == told


def test_weights_that_the_files_do_not_hold_are_not_believed() -> None:
    most = 2 * FILE_BYTES + SLACK_BYTES
    for size, is_believed in ((most, True), (most + 1, False)):
        what = frozenset({FootprintWhat.WEIGHTS, FootprintWhat.KV_CACHE})
        told = Told(engine_bytes=size, covered=Covered(what=what, bytes=size, weights_bytes=size))
        assert (believed(told, LAW, FILE_BYTES) == told) is is_believed
        assert believed(told, LAW, None) == told


class Printing(Telling):
    """One whose word is of what it printed."""

    def __init__(self, *what: FootprintWhat) -> None:
        self._told = said(*what)
        super().__init__(self._told.engine_bytes)

    def covered(self, output: tuple[str, ...]) -> Covered | None:
        return self._told.covered


def printing(place: Town, *what: FootprintWhat) -> None:
    telling(place, None)
    engine = Printing(*what)
    place.house.engines = {engine.kind: engine}


async def test_a_cache_that_was_not_told_is_promised_all_the_same(
    tmp_path: Path, tiny_model: Path
) -> None:
    async with town(tmp_path, tiny_model, (cards.sample(),)) as place:
        printing(place, FootprintWhat.WEIGHTS, FootprintWhat.COMPUTE)
        before = await expected(place)
        instance = await ready(place)
        assert await expected(place) == before
        assert instance.engine_bytes is None
