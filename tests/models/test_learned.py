"""What is learned from measured loads, as values."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.devices.snapshot import DeviceKind
from gpud.models import learned
from gpud.models.artifact import Artifact
from gpud.models.catalogue import Inspection
from gpud.models.footprint import DeviceTraits
from gpud.models.learned import (
    Drift,
    EngineBuild,
    Learned,
    Measurement,
    Overhead,
    corrected,
    expected_bytes,
    load_key,
    process_key,
)
from gpud.models.model import (
    Confidence,
    EngineKind,
    Footprint,
    FootprintItem,
    FootprintWhat,
    ModelKind,
    ModelOptions,
)
from gpud.units import MIB

FILE = Artifact(path=Path("/m/a.gguf"), device=1, inode=2, size_bytes=3, mtime_ns=4, ctime_ns=5)
SEEN = Inspection(names=("a.gguf",), artifacts=(FILE,), kind=ModelKind.CHAT)
OPTIONS = ModelOptions(context_length=512, parallel=1)
BUILD = EngineBuild(kind=EngineKind.LLAMA_CPP, version="0.7.0 (build 11669)")
CARD = DeviceTraits(kind=DeviceKind.GPU, model_name="NVIDIA H200")
HOST = DeviceTraits(kind=DeviceKind.HOST, model_name="host")


def footprint(**bytes_by_what: int) -> Footprint:
    items = tuple(
        FootprintItem(what=FootprintWhat[name], bytes=size, source="law")
        for name, size in bytes_by_what.items()
    )
    return Footprint(items=items, confidence=Confidence.LAW)


LAW = footprint(
    WEIGHTS=1000 * MIB, KV_CACHE=200 * MIB, COMPUTE=100 * MIB, CONTEXT=300 * MIB, MARGIN=64 * MIB
)


def measured(size: int, **changes: Any) -> Measurement:
    told = Measurement(
        model="a", measured_bytes=size, estimated_bytes=1300 * MIB, is_whole=False, wall=1.0
    )
    return replace(told, **changes)


def part(told: Footprint, what: FootprintWhat) -> int:
    return sum(item.bytes for item in told.items if item.what is what)


def test_a_key_is_of_all_that_bears_on_the_bytes() -> None:
    key = load_key(SEEN, OPTIONS, BUILD, CARD)
    assert key == load_key(SEEN, OPTIONS, BUILD, replace(CARD))
    others = [
        load_key(replace(SEEN, artifacts=(replace(FILE, **{name: value}),)), OPTIONS, BUILD, CARD)
        for name, value in (("path", Path("/m/b.gguf")), ("size_bytes", 9), ("mtime_ns", 9))
    ]
    others += [
        load_key(replace(SEEN, kind=ModelKind.EMBEDDING), OPTIONS, BUILD, CARD),
        load_key(SEEN, replace(OPTIONS, ubatch=128), BUILD, CARD),
        load_key(SEEN, replace(OPTIONS, tensor_split=(1.0, 1.0)), BUILD, CARD),
        load_key(SEEN, OPTIONS, replace(BUILD, version="0.8.0"), CARD),
        load_key(SEEN, OPTIONS, replace(BUILD, kind=EngineKind.VLLM), CARD),
        load_key(SEEN, OPTIONS, replace(BUILD, arguments=("--swa-full",)), CARD),
        load_key(SEEN, OPTIONS, BUILD, replace(CARD, model_name="RTX 4090")),
        load_key(SEEN, OPTIONS, BUILD, HOST),
    ]
    assert len({key, *others}) == len(others) + 1


def test_what_only_changes_the_speed_is_left_out_of_it() -> None:
    quick = replace(OPTIONS, threads=8, threads_batch=8, cache_reuse=256, sleep_idle_seconds=60)
    assert load_key(SEEN, quick, BUILD, CARD) == load_key(SEEN, OPTIONS, BUILD, CARD)
    names = {field.name for field in fields(ModelOptions)}
    assert names >= learned._WEIGHTLESS


def test_a_process_is_known_by_its_engine_and_its_device_alone() -> None:
    assert process_key(BUILD, CARD) == process_key(replace(BUILD, arguments=("--x",)), CARD)
    assert process_key(BUILD, CARD) != process_key(BUILD, HOST)
    assert process_key(BUILD, CARD) == process_key(BUILD, CARD, 1)
    assert process_key(BUILD, CARD) != process_key(BUILD, CARD, 2)  # ranks speak with each other


def test_the_footprint_sums_up_to_what_was_measured() -> None:
    told = corrected(LAW, measured(1350 * MIB))
    assert told.confidence is Confidence.MEASURED
    assert expected_bytes(told, is_whole=False) == 1350 * MIB
    assert part(told, FootprintWhat.COMPUTE) == 150 * MIB
    assert part(told, FootprintWhat.CONTEXT) == 300 * MIB  # is no buffer of the engine's
    assert told.margin_bytes == int((1350 + 300) * MIB * 0.03)
    assert told.past_error == pytest.approx(50 / 1300)


def test_a_measurement_of_everything_covers_the_process_too() -> None:
    told = corrected(LAW, measured(1700 * MIB, is_whole=True))
    assert told.total_bytes - told.margin_bytes == 1700 * MIB
    assert told.confidence is Confidence.MEASURED


@given(size=st.integers(0, 3000 * MIB))
def test_a_measurement_of_everything_never_lowers_what_is_promised(size: int) -> None:
    """It shows what was touched until then: a server at rest has not taken the rest yet."""
    told = corrected(LAW, measured(size, is_whole=True))
    assert told.total_bytes >= LAW.total_bytes
    if size <= 1600 * MIB:
        error = measured(size, is_whole=True).error
        assert told == replace(LAW, past_error=error, past_of=told.past_of)
        assert told.past_of.endswith(
            "in use by all its processes at most, which may still take the rest"
        )


def test_what_a_measurement_does_not_cover_is_as_the_law_says() -> None:
    covers = frozenset({FootprintWhat.WEIGHTS, FootprintWhat.KV_CACHE})
    law = footprint(
        WEIGHTS=1000 * MIB, KV_CACHE=200 * MIB, COMPUTE=500 * MIB, OUTPUT=90 * MIB, CONTEXT=MIB
    )
    told = corrected(law, measured(1100 * MIB, covers=covers))
    assert part(told, FootprintWhat.COMPUTE) == 500 * MIB
    assert part(told, FootprintWhat.OUTPUT) == 90 * MIB
    assert expected_bytes(told, is_whole=False, covers=covers) == 1100 * MIB
    assert told.total_bytes - told.margin_bytes == (1100 + 500 + 90 + 1) * MIB


def test_of_whole_measurements_the_most_ever_seen_is_kept() -> None:
    book = Learned()
    book.record("k", measured(300 * MIB, is_whole=True))
    assert book.record("k", measured(50 * MIB, is_whole=True, wall=2.0)) is None
    kept = book.load("k")
    assert kept == measured(300 * MIB, is_whole=True, wall=2.0, count=2)
    assert book.record("k", measured(400 * MIB, is_whole=True)) is not None


def test_a_small_model_still_has_a_margin_of_pages() -> None:
    told = corrected(footprint(WEIGHTS=MIB, COMPUTE=MIB), measured(3 * MIB))
    assert told.margin_bytes == 4 * MIB


@given(size=st.integers(0, 1 << 40))
def test_whatever_was_measured_is_what_is_expected_next(size: int) -> None:
    told = corrected(LAW, measured(size))
    assert expected_bytes(told, is_whole=False) == size
    assert all(item.bytes >= 0 for item in told.items)


def test_without_a_law_the_measurement_stands_alone() -> None:
    told = corrected(footprint(), measured(5 * MIB))
    assert expected_bytes(told, is_whole=False) == 5 * MIB


def test_a_measurement_replaces_the_one_before_and_is_counted() -> None:
    book = Learned()
    assert book.load("k") is None
    assert book.footprint("k", LAW) == LAW
    assert book.record("k", measured(100)) is None
    assert book.record("k", measured(104)) is None  # within a twentieth
    assert book.load("k") == measured(104, count=2)
    assert book.footprint("k", LAW).past_error == measured(104).error


def test_what_differs_by_more_than_a_twentieth_has_drifted() -> None:
    book = Learned()
    book.record("k", measured(100 * MIB))
    drift = book.record("k", measured(106 * MIB))
    assert drift == Drift(former_bytes=100 * MIB, measured_bytes=106 * MIB)
    assert "took 106 MiB, +6.0% against the 100 MiB" in drift.reason
    assert book.record("k", measured(100 * MIB)) is not None
    # Another way of measuring is no drift.
    assert book.record("k", measured(300 * MIB, is_whole=True)) is None


def test_of_a_process_the_most_of_its_last_loads_counts() -> None:
    book = Learned()
    assert book.process_bytes("p") is None
    book.observe("p", 300, 1.0)
    found = book.observe("p", 200, 2.0)
    assert found == Overhead(measured_bytes=300, wall=2.0, count=2, seen=(300, 200))
    assert book.process_bytes("p") == 300
    for number in range(learned.SEEN_KEPT - 1):
        assert book.process_bytes("p") == 300
        book.observe("p", 210, 3.0 + number)
    assert book.process_bytes("p") == 210
    assert book.observe("p", 1, 99.0).count == learned.SEEN_KEPT + 2


def test_a_process_that_grew_counts_once() -> None:
    book = Learned()
    book.observe("p", 200, 1.0)
    book.observe("p", 300, 2.0)
    found = book.observe("p", 400, 3.0, 200)
    assert found == Overhead(measured_bytes=400, wall=3.0, count=2, seen=(300, 400))
    # What it had taught may be forgotten by now.
    assert book.observe("p", 500, 4.0, 7).seen == (300, 400, 500)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({}, "5 MiB of the engine's own buffers"),
        ({"covers": frozenset({FootprintWhat.WEIGHTS})}, "own buffers, as far as it tells"),
        ({"is_whole": True}, "5 MiB in use by all its processes at most"),
    ],
)
def test_it_is_told_what_was_measured(told: dict[str, Any], words: str) -> None:
    found = corrected(footprint(WEIGHTS=MIB), measured(5 * MIB, **told))
    assert found.past_of.endswith(words)
    assert found.items[0].source == "law; measured here, +4 MiB against that"


def test_one_that_was_stored_without_its_last_loads_is_one_of_them() -> None:
    book = Learned()
    book.restore({}, {"p": Overhead(measured_bytes=300, wall=1.0, count=7)})
    assert book.observe("p", 200, 2.0).seen == (300, 200)


def test_the_oldest_are_forgotten() -> None:
    book = Learned()
    for number in range(learned.MOST_KEPT + 2):
        book.record(f"k{number}", measured(number))
        book.observe(f"p{number}", number, 1.0)
    book.record("k0", measured(7))  # anew, so the newest
    assert book.forget() == (("k1", "k2"), ("p0", "p1"))
    assert book.load("k0") is not None
    assert book.forget() == ((), ())


@pytest.mark.parametrize(
    "value",
    [
        measured(5, covers=frozenset({FootprintWhat.WEIGHTS})),
        Overhead(measured_bytes=5, wall=1.0, seen=(5, 4)),
    ],
)
def test_they_are_stored_as_they_are(value: Measurement | Overhead) -> None:
    assert msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value


def test_an_error_of_nothing_is_unknown() -> None:
    assert measured(5, estimated_bytes=0).error is None
