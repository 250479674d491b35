"""The real llama-server bound to the CPUs and the memory node nearest its card.

The card and the nodes are the test's own; the CPUs are real ones of this host.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import pytest

from gpud.clock import SystemClock
from gpud.devices.snapshot import DeviceKind
from gpud.devices.topology import Nearness, nearest, nodes
from gpud.engines.llama.engine import LlamaCpp
from gpud.engines.probe import HttpProbe
from gpud.feed import Feed
from gpud.instances.instance import Instance, InstanceState
from gpud.instances.life import House, StopOrder
from gpud.instances.progress import Progress
from gpud.instances.roster import LoadRequest, Roster
from gpud.instances.terms import LoadTerms
from gpud.instances.tree.launcher import ProcessLauncher
from gpud.ledger.admission.policy import LedgerSettings
from gpud.ledger.charge import Reserves
from gpud.ledger.ledger import Ledger
from gpud.models.catalogue import Catalogue
from gpud.models.model import EngineKind, Model, ModelOptions
from gpud.promises.promises import Call, Promises
from gpud.settings import Policy
from gpud.store import SqliteStore
from tests.devices.sysfs import node, slot, two_nodes
from tests.fakes.cards import sample, snapshot

pytestmark = pytest.mark.engine
PATIENCE_SECONDS = 60.0
BUS = "00000000:3B:00.0"
ORDER = StopOrder(actor="anna", grace_seconds=0.0, force=True)
TINY = Model(
    id="tiny",
    engine=EngineKind.LLAMA_CPP,
    kind=None,
    path="tiny.gguf",
    options=ModelOptions(context_length=512),
)


@dataclass
class Place:
    """A roster that runs, on a host with one card whose slot is in a /sys of the test's own."""

    roster: Roster
    details: list[str] = field(default_factory=list)

    async def load(self) -> Instance:
        """To READY; what was told on the way is in `details`."""
        request = LoadRequest(
            model="tiny",
            options=ModelOptions(),
            terms=LoadTerms(devices=("U-gpu0",)),
            owner="anna",
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            name = await self.roster.load(request, Call(method="LoadModel"))
            return (await self._until(name, InstanceState.READY)).instance

    async def unload(self, instance: Instance) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            self.roster.stop(instance.name, ORDER)
            await self._until(instance.name, InstanceState.STOPPED)

    async def _until(self, name: str, state: InstanceState) -> Progress:
        async for progress in self.roster.follow(name, from_start=True):
            self.details.append(progress.detail)
            if progress.instance.state is state:
                return progress
        raise AssertionError(f"{name} ended before it was {state}: {self.roster.error(name)}")


Make = Callable[..., Awaitable[Place]]


@pytest.fixture
async def place(tmp_path: Path, llama_server: Path, tiny_model: Path) -> AsyncIterator[Make]:
    """Makes the place, on the nodes that its /sys has by then; `policy` over the defaults."""
    clock, store = SystemClock(), SqliteStore(tmp_path)
    ledger = Ledger(
        LedgerSettings(
            reserves=Reserves(device_bytes=0, host_bytes=0), release_deadline_seconds=10.0
        )
    )
    (tmp_path / "instances").mkdir()
    promises, feed = Promises(ledger, store, clock), Feed()
    store.start(lambda commits: None, lambda cause: promises.restore())
    promises.restore()
    promises.waiting_for = ""

    def show() -> None:
        """A snapshot as of now: an empty card near what /sys says."""
        near = nearest(BUS, Nearness(), tmp_path)
        now = clock.now().boottime
        card = sample(0, kind=DeviceKind.SIMULATED, boottime=now)
        info = replace(card.info, numa_node=near.memory_node, cpu_affinity=near.cpus)
        seen = snapshot(replace(card, info=info), boottime=now, sequence=feed.sequence + 1)
        promises.observe(seen)
        feed.publish(seen)

    def make(**policy: bool) -> Place:
        show()
        house = House(
            promises=promises,
            catalogue=Catalogue({"tiny": TINY}, [tiny_model.parent]),
            engines={EngineKind.LLAMA_CPP: LlamaCpp(str(llama_server), HttpProbe())},
            launcher=ProcessLauncher(clock, clock.now().boot_id),
            clock=clock,
            snapshots=feed,
            list_soon=show,
            directory=tmp_path / "instances",
            load_stall_seconds=20.0,
            sample_now=show,
            policy=msgspec.structs.replace(Policy(), **policy),
            node_count=len(nodes(tmp_path)) or None,
        )
        return Place(roster=Roster(house, store))

    made: list[Place] = []
    async with asyncio.TaskGroup() as tasks:
        running: list[asyncio.Task[None]] = []

        async def begin(**policy: bool) -> Place:
            made.append(make(**policy))
            recovered = asyncio.Event()
            running.append(tasks.create_task(made[-1].roster.run(recovered)))
            await recovered.wait()
            return made[-1]

        yield begin
        for each in made:
            for instance in each.roster.list():
                if not instance.ended:
                    await each.unload(instance)
        for task in running:
            task.cancel()
    store.close()


def about(instance: Instance, name: str) -> str:
    lines = Path(f"/proc/{instance.pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)[name]


def memory_policies(instance: Instance) -> set[str]:
    areas = Path(f"/proc/{instance.pid}/numa_maps").read_text().splitlines()
    return {line.split()[1] for line in areas}


def here() -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)["Cpus_allowed_list"]


async def test_an_engine_runs_on_the_cpus_nearest_its_card(place: Make, tmp_path: Path) -> None:
    first, last = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
    # Node 0 is a real one, so that memory can be taken from it; its CPU is the last of ours.
    two_nodes(tmp_path, f"{last}", f"{first},900-901")
    slot(tmp_path, "0000:3b:00.0", node="0", cpus=f"{last}")
    town = await place()
    made = await town.load()
    assert about(made, "Cpus_allowed_list") == f"{last}"
    assert memory_policies(made) == {"prefer:0"}
    assert (made.cpu_affinity, made.memory_node) == (f"{last}", 0)
    assert f"pid {made.pid}; CPUs {last}, memory node 0" in town.details
    assert about(made, "Cpus_allowed_list") == f"{last}", "and it stays there"


async def test_cpus_that_the_host_does_not_have_are_left_out(place: Make, tmp_path: Path) -> None:
    first, last = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
    two_nodes(tmp_path, f"{last}", f"{first},900-901")
    slot(tmp_path, "0000:3b:00.0", node="900", cpus=f"{first},900-901")
    town = await place()
    made = await town.load()
    assert about(made, "Cpus_allowed_list") == f"{first}"
    # A node that is not there cannot be preferred: told, and the engine serves all the same.
    assert (made.cpu_affinity, made.memory_node) == (f"{first}", None)
    assert any("memory node 900: " in detail for detail in town.details)
    assert memory_policies(made) == {"default"}


async def test_policy_leaves_it_where_it_is(place: Make, tmp_path: Path) -> None:
    last = max(os.sched_getaffinity(0))
    two_nodes(tmp_path, f"{last}", "900")
    slot(tmp_path, "0000:3b:00.0", node="0", cpus=f"{last}")
    made = await (await place(gpu_affinity=False, numa_aware=False)).load()
    assert about(made, "Cpus_allowed_list") == here()
    assert memory_policies(made) == {"default"}
    assert (made.cpu_affinity, made.memory_node) == ("", None)


async def test_a_host_of_one_node_says_that_there_is_nothing_to_bind(
    place: Make, tmp_path: Path
) -> None:
    node(tmp_path, 0, here())
    slot(tmp_path, "0000:3b:00.0", node="0", cpus=here())
    town = await place()
    made = await town.load()
    assert about(made, "Cpus_allowed_list") == here()
    assert (made.cpu_affinity, made.memory_node) == ("", None)
    assert f"pid {made.pid}; one NUMA node: nothing to bind" in town.details
