"""What a load was seen to take is known to the next, and to the next life of the daemon."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from gpud.devices.snapshot import DeviceKind, ProcessUse, Sample
from gpud.engines.engine import Covered
from gpud.instances.health.keeping import Keeping
from gpud.instances.health.vital import Signs, Verdict
from gpud.instances.instance import Instance, InstanceState, Sleep
from gpud.instances.load import Load
from gpud.instances.measuring import learning
from gpud.instances.measuring.learning import LOADS, PROCESSES, SETTLED_SECONDS, estimator_of
from gpud.instances.terms import LoadTerms
from gpud.ledger.change import Change
from gpud.models.catalogue import Inspection
from gpud.models.footprint import HOST_PROCESS_LEAST_BYTES, DeviceTraits
from gpud.models.learned import Drift, Learned, Measurement, Overhead
from gpud.models.model import (
    Confidence,
    Footprint,
    FootprintItem,
    FootprintWhat,
    ModelOptions,
)
from gpud.units import GIB, MIB
from tests.fakes import cards
from tests.instances.health.test_keeping import rounds
from tests.instances.town import PATIENCE_SECONDS, ToldEngine, Town, town

ANYWHERE = LoadTerms()
CARD = DeviceTraits(kind=DeviceKind.GPU, model_name="card")


class Telling(ToldEngine):
    """One that says what it allocated."""

    def __init__(self, size: int | None) -> None:
        super().__init__()
        self.size = size

    def measured_bytes(self, output: tuple[str, ...]) -> int | None:
        return self.size


class Heard(Learned):
    """Tells whenever it learns."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: asyncio.Queue[str] = asyncio.Queue()

    def record(self, key: str, told: Measurement) -> Drift | None:
        self.heard.put_nowait(key)
        return super().record(key, told)

    def observe(
        self, key: str, seen_bytes: int, wall: float, before_bytes: int | None = None
    ) -> Overhead:
        self.heard.put_nowait(key)
        return super().observe(key, seen_bytes, wall, before_bytes)


def telling(place: Town, size: int | None) -> Telling:
    engine = Telling(size)
    place.house.learned = Heard()
    place.house.engines = {engine.kind: engine}
    return engine


async def ready(place: Town, terms: LoadTerms = ANYWHERE) -> Instance:
    name = await place.load(terms)
    return await place.until(name, InstanceState.READY)


async def expected(place: Town) -> Footprint:
    model = place.house.catalogue.get("tiny")
    estimator = await estimator_of(place.house, model)
    options = estimator.engine.check_options(ModelOptions())
    return estimator.estimate(await place.house.catalogue.inspect(model), options, CARD)


def shown(place: Town, instance: Instance, *processes: ProcessUse) -> None:
    """The instance's card with these processes, a moment later."""
    place.clock.advance(1.0)
    place.show(
        *(
            replace(card, processes=processes) if card.info.uuid in instance.devices else card
            for card in place.cards
        )
    )


async def learned(place: Town) -> None:
    """Once something more was learned, and is durable."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert isinstance(place.house.learned, Heard)
        await place.house.learned.heard.get()
        await place.promises.commit(Change())


def rows(place: Town, kind: str) -> list[dict[str, object]]:
    return [msgspec.json.decode(body) for _, body in place.promises._store.read_rows(kind)]


def types(place: Town) -> list[str]:
    found = place.promises._store.read_entries("1", (), 1000, newest_first=False)
    return [entry[2] for entry in found]


def part(told: Footprint, what: FootprintWhat) -> int:
    return sum(item.bytes for item in told.items if item.what is what)


def process(instance: Instance, size: int | None) -> ProcessUse:
    return cards.process(7, size, claim=instance.reservation)


async def test_what_an_engine_says_is_what_its_next_load_is_promised(
    tmp_path: Path, tiny_model: Path
) -> None:
    async with town(tmp_path, tiny_model, (cards.sample(),)) as place:
        engine = telling(place, 20 * MIB)
        law = await expected(place)
        first = await ready(place)
        assert first.footprint is not None
        assert first.footprint.confidence is Confidence.LAW
        told = await expected(place)
        assert told.confidence is Confidence.MEASURED
        assert told.total_bytes - told.margin_bytes == 20 * MIB + part(law, FootprintWhat.CONTEXT)
        second = await ready(place)
        assert second.footprint == replace(told, device_uuid=second.devices[0])
        engine.size = 22 * MIB
        await ready(place)
        for _ in range(3):
            await learned(place)
        assert types(place).count("footprint.drift") == 1
        last = await expected(place)
        assert last.past_error == pytest.approx(0.1)
        assert [row["count"] for row in rows(place, LOADS)] == [3]


async def test_after_a_load_that_took_too_much_the_next_is_promised_enough(
    tmp_path: Path, tiny_model: Path
) -> None:
    async with town(tmp_path, tiny_model, (cards.sample(),)) as place:
        telling(place, 2 * GIB)
        name = await place.load(ANYWHERE)
        failed = await place.until(name, InstanceState.FAILED)
        assert failed.failure is not None
        assert failed.failure.reason == "FOOTPRINT_EXCEEDED"
        instance = await ready(place)
        assert instance.footprint is not None
        assert 2 * GIB < instance.footprint.total_bytes < 3 * GIB
        assert instance.footprint.past_error is not None
        assert instance.footprint.past_error > 1


async def test_what_a_process_takes_beside_its_buffers_is_learned_from_the_driver(
    tmp_path: Path, tiny_model: Path
) -> None:
    async with town(tmp_path, tiny_model, (cards.sample(),)) as place:
        telling(place, 20 * MIB)
        instance = await ready(place)
        shown(place, instance, process(instance, None))  # refused: nothing is learned
        assert rows(place, PROCESSES) == []
        await learned(place)
        shown(place, instance, process(instance, 330 * MIB))
        await learned(place)
        assert [row["measured_bytes"] for row in rows(place, PROCESSES)] == [310 * MIB]
        assert part(await expected(place), FootprintWhat.CONTEXT) == 310 * MIB
        restored = Learned()
        learning.restore(restored, place.promises._store)
        assert restored._processes == place.house.learned._processes
        assert restored._loads == place.house.learned._loads


async def test_where_the_engine_says_nothing_the_devices_do_once_it_has_settled(
    tmp_path: Path, tiny_model: Path
) -> None:
    async with town(tmp_path, tiny_model, (cards.sample(),)) as place:
        telling(place, None).weights = 150 * MIB
        law = await expected(place)
        instance = await ready(place)
        shown(place, instance, process(instance, 100 * MIB))
        await asyncio.sleep(0)
        assert await expected(place) == law
        place.clock.advance(SETTLED_SECONDS)
        shown(place, instance, process(instance, 90 * MIB))
        await learned(place)
        (row,) = rows(place, LOADS)
        assert (row["is_whole"], row["measured_bytes"]) == (True, 100 * MIB)  # the most seen
        # At rest it took less than was declared: it may still take the rest.
        told = await expected(place)
        assert told == replace(law, past_error=100 / 150 - 1, past_of=told.past_of)
        assert told.past_of.startswith("100 MiB in use by all its processes")
        shown(place, instance, process(instance, 200 * MIB))
        await learned(place)
        assert "footprint.drift" in types(place)
        told = await expected(place)
        assert told.total_bytes - told.margin_bytes == 200 * MIB
        second = await ready(place)
        shown(place, second, process(second, 50 * MIB))
        place.clock.advance(SETTLED_SECONDS)
        shown(place, second, process(second, 50 * MIB))
        await learned(place)
        told = await expected(place)
        assert told.total_bytes - told.margin_bytes == 200 * MIB


@pytest.mark.parametrize("verdict", [Verdict.DEGRADED, Verdict.SLEEPING, Verdict.STUCK, None])
async def test_nothing_is_learned_from_one_that_is_not_itself(
    tmp_path: Path, tiny_model: Path, verdict: Verdict | None
) -> None:
    async with town(tmp_path, tiny_model, (cards.sample(),)) as place:
        telling(place, None)
        instance = await ready(place)
        life = place.roster._lives[instance.id]
        life.signs = Signs(verdict=verdict or Verdict.IDLE)
        if verdict is None:
            life.instance = replace(life.instance, sleep=Sleep(level=1, wall=1.0))
        place.clock.advance(SETTLED_SECONDS)
        snapshot = place.house.snapshots.latest
        assert life.watched is not None
        assert snapshot is not None
        used = replace(cards.sample(), processes=(process(instance, 9 * GIB),))
        seen = replace(used, boottime=place.clock.boottime, listed_boottime=place.clock.boottime)
        shown_once = replace(snapshot, samples=(seen,), boottime=place.clock.boottime)
        learning._look(life, life.watched, shown_once)
        assert (rows(place, LOADS), life.watched.most_bytes) == ([], 0)
        life.signs = Signs(verdict=Verdict.BUSY)
        life.instance = replace(life.instance, sleep=None)
        learning._look(life, life.watched, shown_once)
        assert life.watched.most_bytes == 9 * GIB


def on_host(used: int) -> Sample:
    return cards.sample(kind=DeviceKind.HOST, used=used)


async def test_touched_pages_of_the_host_never_make_a_process_smaller(
    tmp_path: Path, tiny_model: Path
) -> None:
    async with town(tmp_path, tiny_model, (on_host(0),)) as place:
        telling(place, 20 * MIB)
        instance = await ready(place, LoadTerms(devices=("U-host",)))
        life = place.roster._lives[instance.id]
        assert life.watched is not None
        shown(place, instance, process(instance, 21 * MIB))
        await rounds(place)
        assert life.watched.most_bytes == 21 * MIB  # it was looked at
        assert place.house.learned._processes == {}


async def test_one_that_uses_little_of_the_host_is_known_to_need_little(
    tmp_path: Path, tiny_model: Path
) -> None:
    async with town(tmp_path, tiny_model, (on_host(0),)) as place:
        telling(place, 4 * MIB)
        instance = await ready(place, LoadTerms(devices=("U-host",)))
        await learned(place)
        shown(place, instance, process(instance, 6 * MIB))
        await learned(place)
        assert [row["seen"] for row in rows(place, PROCESSES)] == [[HOST_PROCESS_LEAST_BYTES]]
        # It grows as it is used; what it had taught before is no load of its own.
        shown(place, instance, process(instance, 24 * MIB))
        await learned(place)
        ((grown,),) = [row["seen"] for row in rows(place, PROCESSES)]  # type: ignore[misc]
        assert 19 * MIB < grown < 20 * MIB  # beside its buffers and its vocabulary
        shown(place, instance, process(instance, 9 * MIB))
        await rounds(place)
        assert [row["seen"] for row in rows(place, PROCESSES)] == [[grown]]


async def test_what_ends_before_it_settled_teaches_the_most_that_was_seen(
    tmp_path: Path, tiny_model: Path
) -> None:
    async with town(tmp_path, tiny_model, (cards.sample(),)) as place:
        telling(place, None).weights = 150 * MIB
        instance = await ready(place)
        for size in (90, 100, 80):
            shown(place, instance, process(instance, size * MIB))
            await rounds(place)
        assert rows(place, LOADS) == []
        life = place.roster._lives[instance.id]
        assert life.watched is not None
        life.instance = replace(life.instance, state=InstanceState.STOPPING)
        shown(place, instance)
        await learned(place)
        assert [row["measured_bytes"] for row in rows(place, LOADS)] == [100 * MIB]
        assert life.watched is None
        life.instance = replace(life.instance, state=InstanceState.READY)


async def test_on_the_host_a_vocabulary_is_counted_once(tmp_path: Path, tiny_model: Path) -> None:
    async with town(tmp_path, tiny_model, (on_host(0),)) as place:
        telling(place, 20 * MIB)
        instance = await ready(place, LoadTerms(devices=("U-host",)))
        model = place.house.catalogue.get("tiny")
        estimator = await estimator_of(place.house, model)
        inspection = await place.house.catalogue.inspect(model)
        host = DeviceTraits(kind=DeviceKind.HOST, model_name="host")
        own = estimator.beside(inspection, instance.options, host).own_bytes
        assert own > 0
        shown(place, instance, process(instance, 20 * MIB + own + 100 * MIB))
        await learned(place)
        await learned(place)
        assert [row["measured_bytes"] for row in rows(place, PROCESSES)] == [100 * MIB]
        told = estimator.estimate(inspection, instance.options, host)
        assert part(told, FootprintWhat.CONTEXT) == 100 * MIB + own


class Partly(Telling):
    """One that tells its weights and cache, over two cards."""

    def devices_needed(self, options: ModelOptions) -> int:
        return 2

    def covered(self, output: tuple[str, ...]) -> Covered | None:
        return Covered(what=frozenset({FootprintWhat.WEIGHTS}), bytes=15 * MIB)

    def estimate(
        self, inspection: Inspection, options: ModelOptions, device: DeviceTraits
    ) -> Footprint:
        known = device.context_bytes
        sizes = {
            FootprintWhat.WEIGHTS: 16 * MIB,
            FootprintWhat.COMPUTE: 500 * MIB,
            FootprintWhat.CONTEXT: 300 * MIB if known is None else known,
        }
        items = tuple(FootprintItem(what=w, bytes=size, source="") for w, size in sizes.items())
        return Footprint(items=items, confidence=Confidence.GUESS)


@pytest.mark.parametrize(("beside", "context"), [(400, 400), (200, 300)])
async def test_what_an_engine_does_not_tell_is_as_the_law_says_over_several_devices_too(
    tmp_path: Path, tiny_model: Path, beside: int, context: int
) -> None:
    pair = (cards.sample(0), cards.sample(1))
    async with town(tmp_path, tiny_model, pair) as place:
        engine = Partly(20 * MIB)  # 5 of them of something that it tells in part
        place.house.learned = Heard()
        place.house.engines = {engine.kind: engine}
        instance = await ready(place)
        assert len(instance.devices) == 2
        await learned(place)
        shown(place, instance, process(instance, (15 + 500 + beside) * MIB))
        await rounds(place)
        told = await expected(place)
        assert part(told, FootprintWhat.WEIGHTS) == 15 * MIB
        assert part(told, FootprintWhat.COMPUTE) == 500 * MIB
        assert part(told, FootprintWhat.CONTEXT) == context * MIB


@pytest.mark.parametrize(
    ("told", "kind", "goes_on"),
    [
        (None, DeviceKind.GPU, True),
        (20 * MIB, DeviceKind.HOST, True),
        (20 * MIB, DeviceKind.GPU, False),  # of which buffers is forgotten
    ],
)
async def test_one_that_outlived_the_daemon_is_learned_from_as_before(
    tmp_path: Path, tiny_model: Path, told: int | None, kind: DeviceKind, *, goes_on: bool
) -> None:
    async with town(tmp_path, tiny_model, (cards.sample(kind=kind),)) as place:
        telling(place, told)
        terms = LoadTerms(devices=("U-host",)) if kind is DeviceKind.HOST else ANYWHERE
        instance = await ready(place, terms)
        life = place.roster._lives[instance.id]
        before, life.watched = life.watched, None
        assert before is not None
        await Keeping(life, Load(life, terms))._bring_up()
        assert (life.watched is not None) is goes_on
        if life.watched is not None:
            assert (life.watched.key, life.watched.told) == (before.key, before.told)
        # Other files than were promised are another load's.
        life.watched = None
        life.instance = replace(life.instance, files=())
        await Keeping(life, Load(life, terms))._bring_up()
        assert life.watched is None


async def test_rows_that_make_no_sense_cost_nothing_but_themselves(
    tmp_path: Path, tiny_model: Path
) -> None:
    async with town(tmp_path, tiny_model, (cards.sample(),)) as place:
        telling(place, 20 * MIB)
        await ready(place)
        await learned(place)
        store = place.promises._store
        ((key, body),) = store.read_rows(LOADS)
        good = msgspec.json.decode(body, type=Measurement)

        class Odd:
            def read_rows(self, kind: str) -> list[tuple[str, bytes]]:
                return [("bad", b"{}"), (key, body)] if kind == LOADS else []

        restored = Learned()
        learning.restore(restored, Odd())  # type: ignore[arg-type]
        assert restored._loads == {key: good}
