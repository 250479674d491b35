"""What a launcher promises: one suite, on the fake and on real processes."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from gpud.clock import SystemClock
from gpud.instances.instance import Exit, ProcessIdentity
from gpud.instances.tree.launcher import Launcher, LaunchFailed, LaunchSpec, ProcessLauncher, Tree
from tests.fakes.launcher import Behaviour, FakeHost, FakeLauncher
from tests.instances import unruly

# What each behaviour is to the fake, and which program shows it for real.
FAKES = {
    "obey": Behaviour(),
    "exit_3": Behaviour(at_start=3),
    "killed": Behaviour(at_start=-11),
    "ignore_term": Behaviour(at_terminate=None),
    "leave_behind": Behaviour(at_start=0, leaves_descendants=True),
    "missing": Behaviour(executable=False),
}
REALS = {
    "exit_3": ("/bin/sh", "-c", "exit 3"),
    "killed": ("/bin/sh", "-c", "kill -SEGV $$"),
    "missing": ("/nonexistent/engine",),
}


@dataclass
class World:
    """A host on which launchers, lives of the daemon, follow each other."""

    real: bool
    folder: Path
    clock: SystemClock = field(default_factory=SystemClock)
    host: FakeHost = field(default_factory=FakeHost)
    trees: list[Tree] = field(default_factory=list)

    def launcher(self, behaviour: str = "obey") -> Launcher:
        if self.real:
            return ProcessLauncher(self.clock, self.clock.now().boot_id)
        fake = FakeLauncher(self.clock, self.host)
        fake.behaviour = FAKES[behaviour]
        return fake

    def spec(self, behaviour: str = "obey") -> LaunchSpec:
        directory = self.folder / secrets.token_hex(4)
        directory.mkdir()
        program = (sys.executable, unruly.__file__, behaviour, str(directory / "pids"))
        return LaunchSpec(
            instance="i-1",
            reservation="r-1",
            argv=REALS.get(behaviour, program),
            environment={"PATH": "/usr/bin:/bin"},
            directory=directory,
            token=secrets.token_hex(16),
        )

    async def spawn(self, behaviour: str = "obey") -> tuple[Tree, LaunchSpec]:
        spec = self.spec(behaviour)
        tree = await self.launcher(behaviour).spawn(spec)
        self.trees.append(tree)
        return tree, spec

    async def running(self, behaviour: str = "obey") -> tuple[Tree, LaunchSpec]:
        """Started, and far enough to have said so (for real programs)."""
        tree, spec = await self.spawn(behaviour)
        await tree.go()
        while self.real and b"up\n" not in output(spec.directory):  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        return tree, spec

    async def end(self) -> None:
        for tree in self.trees:
            tree.kill()
            await tree.gone()


def output(directory: Path) -> bytes:
    path = directory / "output.log"
    return path.read_bytes() if path.exists() else b""


@pytest.fixture(params=["fake", "real"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    world = World(real=request.param == "real", folder=tmp_path)
    async with asyncio.timeout(60):
        yield world
        await world.end()


async def test_nothing_runs_before_the_gate_opens(world: World) -> None:
    tree, _ = await world.spawn()
    assert tree.engine_pid() is None
    assert await tree.go() == tree.engine_pid() != tree.identity.pid
    assert tree.engine_exit() is None


@pytest.mark.parametrize(
    ("behaviour", "code", "signal"), [("exit_3", 3, None), ("killed", None, 11)]
)
async def test_the_exit_is_told(
    world: World, behaviour: str, code: int | None, signal: int | None
) -> None:
    tree, _ = await world.spawn(behaviour)
    await tree.go()
    exit_ = await tree.engine_gone()
    assert (exit_.code, exit_.signal) == (code, signal)
    assert tree.engine_exit() == exit_
    await tree.gone()


async def test_terminate_ends_an_engine_that_obeys(world: World) -> None:
    tree, _ = await world.running()
    tree.terminate()
    assert (await tree.engine_gone()).signal == 15
    await tree.gone()


async def test_kill_ends_an_engine_that_ignores_sigterm(world: World) -> None:
    tree, _ = await world.running("ignore_term")
    tree.terminate()
    assert tree.engine_exit() is None
    tree.kill()
    assert (await tree.engine_gone()).signal == 9
    await tree.gone()


@pytest.mark.parametrize("stop", ["terminate", "kill"])
async def test_a_tree_that_never_went_ends_unseen(world: World, stop: str) -> None:
    tree, _ = await world.spawn()
    getattr(tree, stop)()
    exit_ = await tree.engine_gone()
    assert (exit_.code, exit_.signal) == (None, None)
    await tree.gone()
    assert tree.engine_pid() is None


async def test_signals_to_a_tree_that_is_gone_do_nothing(world: World) -> None:
    tree, _ = await world.spawn("exit_3")
    await tree.go()
    await tree.gone()
    tree.terminate()
    tree.kill()
    assert (await tree.engine_gone()).code == 3


async def test_what_cannot_be_executed_fails_and_leaves_nothing(world: World) -> None:
    tree, _ = await world.spawn("missing")
    with pytest.raises(LaunchFailed, match="cannot execute"):
        await tree.go()
    assert tree.engine_pid() is None
    await tree.engine_gone()
    await tree.gone()


async def test_the_end_of_the_engine_is_not_the_end_of_its_tree(world: World) -> None:
    tree, _ = await world.spawn("leave_behind")
    await tree.go()
    assert (await tree.engine_gone()).code == 0
    gone = asyncio.ensure_future(tree.gone())
    await asyncio.wait([gone], timeout=0.02)
    assert not gone.done()
    tree.kill()
    await gone


async def test_the_next_life_adopts_what_runs(world: World) -> None:
    tree, spec = await world.running()
    adopted = await world.launcher().adopt(tree.identity, spec.directory)
    assert adopted is not None
    assert adopted.engine_pid() == tree.engine_pid()
    assert adopted.engine_exit() is None
    adopted.terminate()
    assert (await adopted.engine_gone()).signal == 15
    await adopted.gone()
    assert tree.engine_exit() == adopted.engine_exit(), "both lives were told"


async def test_the_next_life_sees_how_it_ends_by_itself(world: World) -> None:
    tree, spec = await world.running("leave_behind")
    await tree.engine_gone()
    adopted = await world.launcher().adopt(tree.identity, spec.directory)
    assert adopted is not None
    assert (await adopted.engine_gone()).code == 0
    adopted.kill()
    await adopted.gone()


async def test_what_has_ended_is_not_adopted(world: World) -> None:
    tree, spec = await world.spawn("exit_3")
    await tree.go()
    await tree.gone()
    assert await world.launcher().adopt(tree.identity, spec.directory) is None


def others(identity: ProcessIdentity) -> list[ProcessIdentity]:
    return [
        replace(identity, token="another"),
        replace(identity, start_time=identity.start_time + 1),
        replace(identity, boot_id="another boot"),
    ]


async def test_another_process_of_that_pid_is_neither_adopted_nor_harmed(world: World) -> None:
    tree, spec = await world.running()
    for other in others(tree.identity):
        if world.real and other.token == tree.identity.token and "another" not in other.boot_id:
            continue  # same token: that is a survivor, and dies (tests/instances)
        assert await world.launcher().adopt(other, spec.directory) is None
    assert tree.engine_exit() is None
    tree.kill()
    assert isinstance(await tree.engine_gone(), Exit)
