"""Engines started again: for the same files, on devices that take them, and counted once."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpud.devices.snapshot import Health, Thermal
from gpud.engines.engine import EngineProgram
from gpud.errors import ModelFileInvalid
from gpud.instances.health.healing import GivenUp
from gpud.instances.instance import Instance, InstanceState
from gpud.instances.roster import LoadRequest
from gpud.instances.tree.launcher import LaunchFailed, LaunchSpec
from gpud.models.catalogue import Catalogue
from gpud.models.footprint import DeviceTraits
from gpud.models.learned import EngineBuild, process_key
from gpud.models.model import EngineKind, ModelOptions
from gpud.models.sources.checksums import Checksums
from gpud.models.sources.fetching import Fetching
from gpud.models.sources.jobs import Jobs
from gpud.promises.requests import Call
from gpud.units import GIB
from tests.fakes.cards import sample
from tests.fakes.launcher import FakeTree
from tests.fakes.threads import none_left
from tests.instances.health.test_keeping import (
    BACKOFF,
    CARD,
    FAILED,
    ON_CARD,
    READY,
    after,
    becomes,
    events,
    fallen,
    now,
    rounds,
    serving,
    up_again,
)
from tests.instances.town import Town, town
from tests.models.sources.downloading import terms


@pytest.fixture
def own_model(tmp_path: Path, tiny_model: Path) -> Path:
    """A file that nobody else reads."""
    (tmp_path / "models").mkdir()
    return Path(shutil.copy(tiny_model, tmp_path / "models"))


@pytest.fixture
async def place(tmp_path: Path, own_model: Path) -> AsyncIterator[Town]:
    async with town(tmp_path, own_model, (CARD,)) as made:
        yield made


def changed(model: Path) -> None:
    """Its last byte is another, its size the same."""
    content = bytearray(model.read_bytes())
    content[-1] ^= 0xFF
    beside = model.with_name("beside.tmp")
    beside.write_bytes(content)
    beside.rename(model)


def rewritten(model: Path, content: bytes) -> None:
    """In place, and as old as it was: only its content, and its inode's time, are others."""
    before = model.stat()
    with model.open("r+b") as file:
        file.write(content)
    os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (model.stat().st_ino, model.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def summed(place: Town, model: Path, directory: Path) -> None:
    """The entry promises the file's sum, which is looked at."""
    jobs = Jobs(place.clock, 1)
    sums = Checksums(jobs, lambda rows: None, lambda: place.clock.now().wall)
    place.house.fetching = Fetching(directory, terms(), jobs, sums)
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    entry = replace(place.house.catalogue.get("tiny"), sha256=digest)
    place.house.catalogue = Catalogue({"tiny": entry}, [model.parent])


async def gave_up(place: Town, made: Instance) -> Instance:
    failed = await becomes(place, made, lambda i: i.state in {READY, FAILED})
    assert failed.failure is not None
    return failed


# The same files.


async def test_what_was_learned_since_keeps_nobody_from_coming_back(place: Town) -> None:
    made = await serving(place)
    assert made.footprint is not None
    build = EngineBuild(kind=place.engine.kind, version="1")
    traits = DeviceTraits(kind=CARD.info.kind, model_name=CARD.info.model_name)
    grown = made.footprint.total_bytes + GIB
    place.house.learned.observe(process_key(build, traits), grown, 1.0)
    await fallen(place, made)
    up = await becomes(place, made, lambda i: i.state is READY and i.restarts == 1)
    assert len(up.healing.failures) == 1


async def test_another_file_of_the_same_size_needs_no_other_promise(
    place: Town, own_model: Path
) -> None:
    made = await serving(place)
    await fallen(place, made)
    changed(own_model)
    await becomes(place, made, lambda i: i.state is READY and i.restarts == 1)


async def test_a_larger_file_is_given_up_at_once_and_a_reset_promises_anew(
    place: Town, own_model: Path
) -> None:
    made = await serving(place)
    await fallen(place, made)
    changed(own_model)
    place.engine.weights = 20 * GIB
    failed = await gave_up(place, made)
    assert failed.failure is not None
    assert failed.failure.reason == "MODEL_FILE_INVALID"
    assert "it is another file now and needs 20 GiB" in failed.failure.message
    assert failed.healing.given_up is GivenUp.FILE_REPLACED
    assert len(failed.healing.failures) == 1
    assert len(place.launcher.trees) == 1
    await place.roster.reset(made.name, "anna", Call(method="ResetInstance"))
    again = await place.until(made.name, READY)
    assert again.footprint is not None
    assert again.footprint.total_bytes >= 20 * GIB


async def test_a_record_of_before_they_were_kept_is_held_to_its_promise(place: Town) -> None:
    made = await serving(place)
    life = place.roster._lives[made.id]
    life.instance = replace(life.instance, files=None, law_bytes=None)
    await fallen(place, made)
    await becomes(place, made, lambda i: i.state is READY and i.restarts == 1)
    life.instance = replace(life.instance, files=None, law_bytes=None)
    await fallen(place, made)
    place.engine.weights = 20 * GIB
    assert (await gave_up(place, made)).healing.given_up is GivenUp.FILE_REPLACED


async def test_a_file_without_its_promised_sum_is_never_served(
    place: Town, own_model: Path, tmp_path: Path
) -> None:
    summed(place, own_model, tmp_path)
    made = await serving(place)
    await fallen(place, made)
    await becomes(place, made, lambda i: i.state is READY and i.restarts == 1)
    await fallen(place, made)
    changed(own_model)
    failed = await gave_up(place, made)
    assert failed.failure is not None
    assert "its checksum is" in failed.failure.message
    assert (failed.restarts, len(place.launcher.trees)) == (1, 2)


async def test_a_file_rewritten_in_place_is_given_up_though_it_looks_the_same(
    place: Town, own_model: Path, tmp_path: Path
) -> None:
    summed(place, own_model, tmp_path)
    made = await serving(place)
    whole = await asyncio.to_thread(own_model.read_bytes)
    rewritten(own_model, whole[:-1] + bytes([whole[-1] ^ 0xFF]))
    await fallen(place, made)
    failed = await gave_up(place, made)
    assert failed.failure is not None
    assert failed.failure.reason == "MODEL_FILE_INVALID"
    assert "its checksum is" in failed.failure.message
    assert failed.healing.given_up is GivenUp.FILE_REPLACED
    assert (failed.restarts, len(place.launcher.trees)) == (0, 1)
    # What is mended, a reset loads.
    rewritten(own_model, whole)
    await place.roster.reset(made.name, "anna", Call(method="ResetInstance"))
    await place.until(made.name, READY)


async def test_a_file_that_is_no_model_any_more_is_not_tried_for_ever(
    place: Town, own_model: Path
) -> None:
    made = await serving(place)
    await asyncio.to_thread(own_model.write_bytes, b"x" * 1000)
    await fallen(place, made)
    failed = await gave_up(place, made)
    assert failed.failure is not None
    assert failed.healing.given_up is GivenUp.RESTART_LOOP
    assert "is not a GGUF file" in failed.failure.message
    assert (failed.restarts, len(place.launcher.trees)) == (0, 1)


# The catalogue.


async def test_an_entry_that_is_taken_away_is_kept_by_what_serves(place: Town) -> None:
    made = await serving(place)
    place.house.catalogue.configure({}, place.house.catalogue.roots)
    await fallen(place, made)
    await becomes(place, made, lambda i: i.state is READY and i.restarts == 1)


async def test_without_an_entry_nothing_is_tried_and_no_failure_of_the_engine_is_told(
    tmp_path: Path, own_model: Path
) -> None:
    async with town(tmp_path, own_model, (CARD,)) as before:
        tiny = before.house.catalogue.get("tiny")
        other = {"other": replace(tiny, id="other")}
        before.house.catalogue.configure(other, before.house.catalogue.roots)
        asked = LoadRequest(model="other", options=ModelOptions(), terms=ON_CARD, owner="anna")
        id_ = await before.roster.load(asked, Call(method="LoadModel"))
        made = await before.until(id_, READY)
    # Another life of the daemon, whose configuration has no such model, finds its engine gone.
    async with town(tmp_path, own_model, (CARD,)) as place:
        failed = await becomes(place, made, lambda i: i.state is FAILED)
        assert failed.failure is not None
        assert failed.failure.reason == "MODEL_GONE"
        assert "models/other is not in the catalogue any more" in failed.failure.message
        assert "the engine ended while the daemon was away" in failed.failure.message
        assert failed.healing.given_up is GivenUp.MODEL_GONE
        assert len(failed.healing.failures) == 1
        assert place.launcher.trees == []
        place.house.catalogue.configure(other, place.house.catalogue.roots)
        await place.roster.reset(made.name, "anna", Call(method="ResetInstance"))
        again = await place.until(made.name, READY)
        assert again.healing.given_up is None


async def test_an_entry_for_another_engine_is_none_for_this_one(
    tmp_path: Path, own_model: Path
) -> None:
    async with town(tmp_path, own_model, (CARD,)) as before:
        made = await serving(before)
    async with town(tmp_path, own_model, (CARD,), entry_engine=EngineKind.COMMAND) as place:
        failed = await becomes(place, made, lambda i: i.state is FAILED)
        assert failed.failure is not None
        assert failed.failure.reason == "MODEL_GONE"
        assert "is an entry for command now, not for llama_cpp any more" in failed.failure.message
        assert failed.healing.given_up is GivenUp.MODEL_GONE
        assert place.launcher.trees == []
        # Nor does a reset make a mixture of both.
        await place.roster.reset(made.name, "anna", Call(method="ResetInstance"))
        again = await place.until(made.name, FAILED)
        assert again.failure is not None
        assert "`gpuctl load tiny` loads what it says now" in again.failure.message


# What is not the engine's doing.


async def test_a_host_that_lets_no_process_start_does_not_count(place: Town) -> None:
    made = await serving(place)
    spawn = place.launcher.spawn

    async def refused(spec: LaunchSpec) -> FakeTree:
        raise LaunchFailed.by(spec.instance, OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)))

    place.launcher.spawn = refused  # type: ignore[method-assign]
    await fallen(place, made)
    down = await becomes(place, made, lambda i: i.healing.put_offs == 3)
    assert down.healing.in_a_row == 1
    assert "the host has no more of something: [Errno 11]" in down.healing.cause
    place.launcher.spawn = spawn  # type: ignore[method-assign]
    await becomes(place, made, lambda i: i.state is READY)


async def test_a_device_that_is_too_hot_is_waited_for(place: Town) -> None:
    made = await serving(place)
    place.show(replace(CARD, thermal=Thermal.CRITICAL))
    await fallen(place, made)
    told = len(events(place, made))
    await after(place, 200.0)
    down = now(place, made)
    assert (down.state, down.restarts, len(down.healing.failures)) == (BACKOFF, 0, 1)
    assert "critically hot" in down.healing.cause
    assert down.reservation == made.reservation
    assert len(events(place, made)) == told  # nothing was tried
    place.show(CARD)
    await after(place, 1.0)
    await up_again(place, made)


async def test_a_device_that_is_lost_is_waited_for(place: Town) -> None:
    made = await serving(place)
    place.show(replace(CARD, health=Health.LOST))
    await fallen(place, made)
    await after(place, 100.0)
    down = now(place, made)
    assert (down.state, down.healing.in_a_row) == (BACKOFF, 1)


async def test_who_resets_does_not_wait_for_the_device(place: Town) -> None:
    made = await serving(place)
    place.show(replace(CARD, thermal=Thermal.CRITICAL))
    await fallen(place, made)
    await after(place, 5.0)
    before = len(place.launcher.trees)
    await place.roster.reset(made.name, "anna", Call(method="ResetInstance"))
    await rounds(place)
    await becomes(place, made, lambda i: i.state is BACKOFF and len(place.launcher.trees) > before)
    assert now(place, made).healing.failures == ()  # it was tried, and found hot


async def test_memory_that_is_not_back_yet_is_waited_for_without_a_start(place: Town) -> None:
    made = await serving(place)
    place.show(sample(0, used=24 * GIB))
    await fallen(place, made)
    told = len(events(place, made))
    await after(place, 8.0)
    assert (now(place, made).restarts, len(place.launcher.trees)) == (0, 1)
    assert len(events(place, made)) == told
    place.show(CARD)
    await after(place, 1.0)
    up = await up_again(place, made)
    assert len(up.healing.failures) == 1


async def test_a_program_that_is_missing_is_waited_for_ever_longer(place: Town) -> None:
    made = await serving(place)
    place.engine.missing = True
    await fallen(place, made)
    await becomes(place, made, lambda i: i.healing.put_offs == 6)
    down = now(place, made)
    assert (down.state, down.restarts, down.healing.in_a_row) == (BACKOFF, 0, 1)
    assert "/bin/engine: gone" in down.healing.cause
    assert down.healing.retry is not None
    assert down.healing.retry.boottime - place.clock.boottime == pytest.approx(14.0, abs=2.0)
    assert events(place, made).count("instance.ailing") == 2  # its fall, and why it waits
    place.engine.missing = False
    up = await becomes(place, made, lambda i: i.state is READY)
    assert (up.restarts, up.healing.put_offs) == (1, 0)


async def test_a_program_that_cannot_be_executed_does_not_count_either(place: Town) -> None:
    made = await serving(place)
    behaviour = place.launcher.behaviour
    place.launcher.behaviour = replace(behaviour, executable=False)
    await fallen(place, made)
    await becomes(place, made, lambda i: i.healing.put_offs == 3)
    place.launcher.behaviour = behaviour
    await becomes(place, made, lambda i: i.state is READY)
    assert now(place, made).healing.in_a_row == 1


async def test_a_file_that_cannot_be_read_now_is_waited_for(place: Town, own_model: Path) -> None:
    made = await serving(place)
    away = own_model.with_name("away")
    await asyncio.to_thread(own_model.rename, away)
    await fallen(place, made)
    await becomes(place, made, lambda i: i.healing.put_offs == 5)
    assert now(place, made).healing.in_a_row == 1
    await asyncio.to_thread(away.rename, own_model)
    await becomes(place, made, lambda i: i.state is READY)


@pytest.mark.parametrize("is_other", [False, True])
async def test_a_read_of_the_sum_that_hangs_is_waited_for(
    place: Town, own_model: Path, *, is_other: bool
) -> None:
    made = await serving(place)
    if is_other:
        changed(own_model)

    async def hangs(*_: object) -> None:
        raise ModelFileInvalid(model="tiny", path="tiny.gguf", problem="its disk hangs")

    place.house.fetching = SimpleNamespace(check=hangs)  # type: ignore[assignment]
    await fallen(place, made)
    await becomes(place, made, lambda i: i.healing.put_offs == 5)
    place.house.fetching = None
    await becomes(place, made, lambda i: i.state is READY)
    assert now(place, made).healing.in_a_row == 1


# What is counted.


async def test_a_start_that_never_let_its_engine_go_is_no_restart(place: Town) -> None:
    made = await serving(place)
    engine, asked = place.engine, place.engine.program

    async def meanwhile() -> EngineProgram:
        # Between the look at its devices and the start.
        place.show(replace(CARD, thermal=Thermal.CRITICAL))
        return await asked()

    engine.program = meanwhile  # type: ignore[method-assign]
    await fallen(place, made)
    down = await becomes(place, made, lambda i: "critically hot" in i.healing.cause)
    assert (down.restarts, down.healing.in_a_row) == (0, 1)
    assert len(place.launcher.trees) == 2
    engine.program = asked  # type: ignore[method-assign]
    place.show(CARD)
    await becomes(place, made, lambda i: i.state is READY and i.restarts == 1)


# Its last words.


async def test_what_a_start_warned_of_is_not_why_it_ended(place: Town) -> None:
    place.engine.ready = False
    name = await place.load(ON_CARD)
    await place.until(name, InstanceState.LOADING)
    with (place.house.folder(name) / "output.log").open("a") as output:
        output.write("W pinned memory: cudaMalloc failed: out of memory, goes on without\n")
    place.engine.ready = True
    await after(place, 1.0)
    made = await place.until(name, READY)
    await rounds(place)
    down = await fallen(place, made, 1)
    assert (down.healing.ooms, down.exit_meaning) == (0, "")
    await after(place, 1.0)
    await up_again(place, made)
    with (place.house.folder(name) / "output.log").open("a") as output:
        output.write("E CUDA error: out of memory\n")
    down = await fallen(place, made, 1)
    assert down.healing.ooms == 1
    assert "CUDA error: out of memory" in down.exit_meaning


async def test_a_host_that_lets_no_thread_start_says_nothing_against_an_engine(
    tmp_path: Path, own_model: Path
) -> None:
    async with town(tmp_path, own_model, (CARD,)) as place:
        made = await serving(place)
        with none_left("inspect "):
            await fallen(place, made)
            down = await becomes(place, made, lambda i: i.healing.put_offs == 3)
        assert down.state is BACKOFF
        assert "start no thread" in down.healing.cause
        assert len(down.healing.failures) == 1  # the fall itself
        up = await becomes(place, made, lambda i: i.state is READY)
        assert up.restarts == 1
