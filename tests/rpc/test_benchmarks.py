"""Who may measure what, and how much is kept; the measuring is in end_to_end/test_bench.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpud.access.identity import CALLER, Caller, Proof, Role
from gpud.access.refusals import NotOwner
from gpud.benchmarking.benchmark import Benchmark, Level, Plan
from gpud.benchmarking.benchmarks import KEPT_PER_MODEL, Benchmarks
from gpud.benchmarking.run import Phase
from gpud.errors import OptionInvalid, WrongState
from gpud.events import Filter, Journal
from gpud.instances.instance import InstanceState
from gpud.instances.terms import LoadTerms
from gpud.ledger.change import Change
from gpud.models.model import EngineKind, ModelOptions
from gpud.rpc.benchmarks import BenchmarkMethods
from gpud.store import Row
from gpud.v1 import benchmarks_pb2 as pb
from tests.fakes.cards import sample
from tests.fakes.store import CrampedStore
from tests.instances.town import Town, town


@pytest.fixture
async def place(tmp_path: Path, tiny_model: Path) -> AsyncIterator[Town]:
    async with town(tmp_path, tiny_model, (sample(),)) as made:
        yield made


def methods(place: Town) -> BenchmarkMethods:
    return BenchmarkMethods(Benchmarks(place.house, place.roster))


def done(number: int, model: str = "tiny") -> Benchmark:
    return Benchmark(
        model=model,
        instance=f"{model}-1",
        owner="anna",
        engine=EngineKind.LLAMA_CPP,
        options=ModelOptions(parallel=2),
        plan=Plan(concurrency=(1, 2)),
        create_wall=1000.0 + number,
        levels=(Level(concurrency=1, requests=1, completed=1, errors=(), duration_seconds=1.0),),
    )


async def ask(place: Town, **fields: Any) -> None:
    async for _ in methods(place).BenchmarkModel(pb.BenchmarkModelRequest(**fields), None):
        pass


@pytest.mark.parametrize("by_model", [False, True])
async def test_an_operator_measures_only_its_own(place: Town, by_model: bool) -> None:
    id_ = await place.load(LoadTerms(), owner="anna")
    await place.until(id_, InstanceState.READY)
    named = {"model": "tiny"} if by_model else {"instance": f"instances/{id_}"}
    CALLER.set(Caller(name="bert", role=Role.OPERATOR, proof=Proof.USER, origin="x"))
    with pytest.raises(NotOwner):
        await ask(place, **named)


async def test_only_what_is_ready_is_measured(place: Town) -> None:
    place.engine.ready = False
    id_ = await place.load(LoadTerms(), owner="anna")
    CALLER.set(Caller(name="anna", role=Role.OPERATOR, proof=Proof.USER, origin="x"))
    with pytest.raises(WrongState, match="one that is READY"):
        await ask(place, instance=f"instances/{id_}")


async def test_a_prompt_beyond_the_context_is_refused_before_anything_is_sent(
    place: Town,
) -> None:
    id_ = await place.load(LoadTerms(), owner="anna")
    made = await place.until(id_, InstanceState.READY)
    CALLER.set(Caller(name="anna", role=Role.OPERATOR, proof=Proof.USER, origin="x"))
    with pytest.raises(OptionInvalid) as refused:
        await ask(place, instance=made.name, prompt_tokens=512, output_tokens=1)
    assert refused.value.field == "prompt_tokens"
    assert not place.house.quiet.is_held(made.devices)


async def test_so_many_of_a_model_are_kept_and_found_again(place: Town) -> None:
    kept = Benchmarks(place.house, place.roster)
    other = (await kept.keep(done(0, "other"))).benchmark
    made = [(await kept.keep(done(number))).benchmark for number in range(KEPT_PER_MODEL + 3)]
    assert kept.kept("tiny") == made[3:]
    assert kept.kept() == [other, *made[3:]]
    assert len({each.id for each in made}) == len(made)
    again = Benchmarks(place.house, place.roster)
    assert again.kept() == [other, *made[3:]]


async def test_what_came_of_it_is_in_the_journal(place: Town) -> None:
    kept = Benchmarks(place.house, place.roster)
    made = (await kept.keep(done(0))).benchmark
    void = (await kept.keep(replace(done(1), void_reasons=("hot", "others")))).benchmark
    await kept.keep(replace(done(2), levels=(), void_reasons=("late",)))
    await place.promises.commit(Change())  # what was posted before is durable with it
    told = await Journal(place.promises._store).page(Filter(type="benchmark"), None, 9)
    assert [(each.type, each.reason, each.details.get("benchmark")) for each in told] == [
        ("benchmark.void", "late; nothing was measured", None),
        ("benchmark.void", "hot; others", void.name),
        ("benchmark.done", "", made.name),
    ]
    assert {(each.subject, each.actor) for each in told} == {("instances/tiny-1", "anna")}
    assert told[2].details["tokens_per_second"] == "-"


async def test_a_record_that_makes_no_sense_keeps_nobody_from_anything(place: Town) -> None:
    kept = Benchmarks(place.house, place.roster)
    row = Row(kind="benchmark", id="old", body=b'{"model": 7}')
    await place.promises.commit(Change(), (row,))
    assert kept.kept() == []
    assert place.promises.unreadable == ""


async def test_what_cannot_be_kept_is_told_all_the_same(place: Town) -> None:
    kept = Benchmarks(place.house, place.roster)
    nothing = await kept.keep(replace(done(1), levels=()))
    assert (nothing.phase, nothing.benchmark.name) == (Phase.DONE, "")
    assert nothing.detail == "not kept: nothing was measured"
    store = place.roster._store
    assert isinstance(store, CrampedStore)
    store.full, store.room_without_ballast = True, False
    told = await kept.keep(replace(done(1), void_reasons=("x" * 10**6,)))  # more than a page
    assert told.benchmark.levels
    assert (told.benchmark.name, told.detail.partition(":")[0]) == ("", "not kept")
    assert kept.kept() == []
