"""A folder, whose files an engine opens by name: it reads what was inspected, or is no load."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gpud.errors import ModelFileInvalid
from gpud.instances.instance import InstanceState
from gpud.instances.starting.handing import check_read
from gpud.instances.terms import LoadTerms
from gpud.models.model import EngineKind
from gpud.units import GIB
from tests.fakes.cards import sample
from tests.instances.town import PATIENCE_SECONDS, ToldEngine, Town, town
from tests.models.hugging_face.writing import Shape, write_folder

ON_CARD = LoadTerms(devices=("U-gpu0",))
LOADING, READY, FAILED = InstanceState.LOADING, InstanceState.READY, InstanceState.FAILED


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "models" / "llama"
    write_folder(made)
    return made


@pytest.fixture
async def place(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Town]:
    monkeypatch.setattr(ToldEngine, "kind", EngineKind.VLLM)
    monkeypatch.setattr(ToldEngine, "host_bytes", lambda *_: 0)
    async with town(tmp_path, folder, (sample(0),), entry_engine=EngineKind.VLLM) as made:
        made.engine.weights = GIB
        made.engine.ready = False
        yield made


def rewritten(folder: Path) -> str:
    """In place, and made to look as old as it was."""
    path = folder / "model.safetensors"
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return path.name


def replaced(folder: Path) -> str:
    """By another model's, of its name."""
    write_folder(folder / "other", Shape(layers=3))
    (folder / "other" / "config.json").rename(folder / "config.json")
    return "config.json"


def taken_away_and_back(folder: Path) -> str:
    """Another lay there meanwhile, and nothing of it is left."""
    path = folder / "tokenizer.json"
    aside = path.with_name("aside")
    path.rename(aside)
    path.write_text("{}")
    aside.rename(path)
    return path.name


def removed(folder: Path) -> str:
    (folder / "generation_config.json").unlink()
    return "generation_config.json"


async def loading(place: Town) -> str:
    name = await place.load(ON_CARD)
    await place.until(name, LOADING)
    return name


async def goes_on(place: Town, name: str) -> None:
    """Its engine is ready, and time goes by until that is seen."""
    place.engine.ready = True
    async with asyncio.timeout(PATIENCE_SECONDS):
        while place.roster.get(name).state not in {READY, FAILED}:
            place.tick()
            await asyncio.sleep(0)


async def test_a_folder_that_nobody_touches_is_served(place: Town) -> None:
    name = await loading(place)
    await goes_on(place, name)
    assert place.roster.get(name).state is READY


@pytest.mark.parametrize("change", [rewritten, replaced, taken_away_and_back, removed])
async def test_what_changes_while_an_engine_reads_it_is_no_load(
    place: Town, folder: Path, change: Callable[[Path], str]
) -> None:
    name = await loading(place)
    changed = await asyncio.to_thread(change, folder)
    await goes_on(place, name)
    failed = place.roster.get(name)
    assert (failed.state, failed.endpoint) == (FAILED, "")
    assert failed.failure is not None
    assert failed.failure.reason == "MODEL_FILE_INVALID"
    assert f"llama/{changed}" in failed.failure.message
    assert not place.launcher.trees[-1].lives


async def test_after_a_restart_of_the_daemon_its_record_says_what_was_handed_over(
    place: Town, folder: Path
) -> None:
    name = await loading(place)
    life = place.roster._lives[name]
    model = place.house.catalogue.get("tiny")
    await check_read(life, model, None)
    await asyncio.to_thread(replaced, folder)
    with pytest.raises(ModelFileInvalid, match="changed while it was being loaded"):
        await check_read(life, model, None)
