"""What an engine inherits: the files that were inspected, its key, and nothing else."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from gpud.clock import SystemClock
from gpud.errors import ModelFileInvalid
from gpud.instances.instance import InstanceState
from gpud.instances.terms import LoadTerms
from gpud.instances.tree.launcher import LaunchFailed, LaunchSpec, ProcessLauncher
from gpud.instances.tree.output import tail
from gpud.models.catalogue import Catalogue
from tests.fakes.cards import sample
from tests.fakes.clock import FakeClock
from tests.fakes.launcher import FakeLauncher, FakeTree
from tests.instances.town import PATIENCE_SECONDS, Town, town
from tests.models.opened import descriptors, open_under

CARD = sample(0)
ON_CARD = LoadTerms(devices=("U-gpu0",))
ENDED = (InstanceState.STOPPED, InstanceState.FAILED)
KEY = "canary-0123456789abcdef"


# With real processes.


def spec_of(directory: Path, *argv: str, files: tuple[int, ...] = ()) -> LaunchSpec:
    return LaunchSpec(
        instance="i-7",
        reservation="r-7",
        argv=argv,
        environment={"PATH": "/usr/bin:/bin"},
        directory=directory,
        token=secrets.token_hex(16),
        files=files,
    )


@pytest.mark.parametrize("count", [0, 1, 3, 40])
async def test_an_engine_inherits_its_files_in_their_order_and_no_others(
    count: int, tmp_path: Path
) -> None:
    clock = SystemClock()
    launcher = ProcessLauncher(clock, clock.now().boot_id)
    # It says so once it reads from the FIFO, for while it turns to it the shell has one more open.
    script = "exec < held; echo here; read -r _"
    os.mkfifo(tmp_path / "held")
    with ExitStack() as opened:
        paths = [tmp_path / f"{number}.gguf" for number in range(count)]
        for path in paths:
            path.touch()
        # Numbered backwards: a careless copy would put one in the place of another.
        files = [opened.enter_context(path.open("rb")) for path in reversed(paths)][::-1]
        inherited = tuple(file.fileno() for file in files)
        tree = await launcher.spawn(spec_of(tmp_path, "/bin/sh", "-c", script, files=inherited))
    pid = await tree.go()
    with await asyncio.to_thread((tmp_path / "held").open, "w"):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while "here" not in tail(tmp_path, 1):  # noqa: ASYNC110 — the engine's doing
                await asyncio.sleep(0.002)
            own = descriptors(pid)
            # The shim lets go once it has told the start.
            while set(map(str, paths)) & set(descriptors(tree.identity.pid).values()):  # noqa: ASYNC110
                await asyncio.sleep(0.002)
    await tree.gone()
    assert {number: own[number] for number in range(3, 3 + count)} == {
        number: str(path) for number, path in enumerate(paths, 3)
    }
    assert sorted(own) == [*range(3 + count)]


async def test_a_nul_makes_no_second_argument(tmp_path: Path) -> None:
    clock = SystemClock()
    launcher = ProcessLauncher(clock, clock.now().boot_id)
    with pytest.raises(LaunchFailed, match="a NUL"):
        await launcher.spawn(spec_of(tmp_path, "/bin/echo", "one\0two"))


# In a load.


class Curious(FakeLauncher):
    """Reads what each tree inherits; does something after each spawn, before its gate."""

    def __init__(self, clock: FakeClock, then: Callable[[], object] = lambda: None) -> None:
        super().__init__(clock)
        self.inherited: list[bytes] = []
        self.then = then

    async def spawn(self, spec: LaunchSpec) -> FakeTree:
        for file in spec.files:
            self.inherited.append(os.pread(file, 2**24, 0))
        tree = await super().spawn(spec)
        self.then()
        return tree


def made_of(path: Path) -> int:
    return path.stat().st_size


def keyed(place: Town, model: Path, key: Path) -> None:
    """From now on its model asks for a key."""
    entry = replace(place.house.catalogue.get("tiny"), api_key_file=str(key))
    place.house.catalogue = Catalogue({"tiny": entry}, [model.parent])


async def test_the_engine_is_told_names_that_lead_to_what_it_inherits(
    tmp_path: Path, tiny_model: Path
) -> None:
    key = tmp_path / "key"
    key.write_text(f"{KEY}\n")
    key.chmod(0o600)
    async with town(tmp_path, tiny_model, (CARD,)) as place:
        keyed(place, tiny_model, key)
        place.house.launcher = launcher = Curious(place.clock)
        made = await place.until(await place.load(ON_CARD), InstanceState.READY)
        folder = place.house.folder(made.id)
        assert (folder / "model" / tiny_model.name).readlink() == Path("/proc/self/fd/3")
        assert (folder / "key" / "api-key").readlink() == Path("/proc/self/fd/4")
        weights, key_text = launcher.inherited
        assert (len(weights), key_text) == (made_of(tiny_model), f"{KEY}\n{KEY}\n".encode())
        assert open_under(tiny_model) == []
        assert not any("gpud-api-key" in each for each in descriptors(os.getpid()).values())
        assert made.endpoint_needs_key
        assert KEY not in repr(made)


async def test_a_bad_key_ends_the_load_before_any_memory_is_held(
    tmp_path: Path, tiny_model: Path
) -> None:
    key = tmp_path / "key"
    key.write_text(f"{KEY}\n")
    key.chmod(0o644)
    async with town(tmp_path, tiny_model, (CARD,)) as place:
        keyed(place, tiny_model, key)
        name = await place.load(ON_CARD)
        ended = await place.until(name, *ENDED)
        assert ended.reservation is None
        assert place.launcher.trees == []
        assert str(place.roster.error(name)) == (
            "cannot load models/tiny: api_key_file: is open to others: "
            "set its mode to 0600 or 0640"
        )


async def test_a_file_that_changes_before_the_gate_opens_ends_the_load(
    tmp_path: Path, tiny_model: Path
) -> None:
    model = tmp_path / "own" / "tiny.gguf"
    model.parent.mkdir()
    shutil.copy(tiny_model, model)

    def swap() -> None:
        aside = model.with_name("aside")
        shutil.copy(tiny_model, aside)
        aside.replace(model)

    async with town(tmp_path, model, (CARD,)) as place:
        place.house.launcher = launcher = Curious(place.clock, swap)
        name = await place.load(ON_CARD)
        ended = await place.until(name, *ENDED)
        error = place.roster.error(name)
        assert isinstance(error, ModelFileInvalid)
        assert "changed while it was being loaded" in str(error)
        assert ended.state is InstanceState.FAILED
        (tree,) = launcher.trees
        assert tree.engine_pid() is None
        assert not tree.lives
        assert place.promises.durable.device("U-gpu0").granted_bytes == 0
