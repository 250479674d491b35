"""SIGKILL of the whole daemon around every durable change, also while it recovers from another."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable

import pytest

from gpud.failpoints import POINTS
from tests.proof.killing import Case, Chain
from tests.proof.lives import Adopt, Heal, Load, Move, Reset, Unload
from tests.proof.operations import (
    Attach,
    Client,
    Cordon,
    Drain,
    Expire,
    Preempt,
    Queued,
    Release,
    Renew,
    Reserve,
    ReserveTwo,
    around,
)
from tests.proof.record import PROVING, asked, record
from tests.proof.storms import Burst, FullDisk, Pruning
from tests.proof.witness import Witness
from tests.running import Gpud, calling

pytestmark = [pytest.mark.proof, pytest.mark.timeout(1800)]

CHAINS = 2  # at a time: a start is bound by the processor
KILLS = asked(100, 1000)
SEED = 11


COMMIT = around("store.transaction", "store.commit", "store.tell")
STEPS = ("intent", "spawn", "spawned", "go", "gate", "ready")
LAUNCH = around(*(f"launch.{step}" for step in STEPS))
STOP = around("stop.intent", "stop.tree", "stop.free", "stop.record")
HEAL = around("heal.intent", "heal.tree", "heal.start")
RESET = around("heal.reset")
RECOVERY = around("restore.books", "restore.instances", "adopt.find", "adopt.record")
SINGLE = (Reserve, ReserveTwo, Renew, Release, Expire, Queued, Preempt, Attach, Cordon, Drain)
FULL = around("store.relief", "store.recovery")
FIRST_START = around("state.marker", "store.schema", "store.ballast")


def cases() -> list[Case]:
    """Each operation at each point that it passes."""
    return [
        *(Case(operation=each, point=point) for each in SINGLE for point in COMMIT),
        *(Case(operation=Burst, point=point, number=5) for point in COMMIT),
        *(Case(operation=Load, point=point) for point in LAUNCH),
        *(Case(operation=Load, point=point, number=n) for point in COMMIT[1:4] for n in (2, 4)),
        *(Case(operation=Move, point=point) for point in around("launch.elsewhere")),
        *(Case(operation=Unload, point=point) for point in STOP),
        *(Case(operation=Heal, point=point) for point in [*HEAL, *LAUNCH[2:]]),
        *(Case(operation=Reset, point=point) for point in [*RESET, *LAUNCH[:2]]),
        *(Case(operation=Unload, point=point, number=2) for point in COMMIT[1:4]),
        *(Case(operation=Adopt, second=point) for point in [*RECOVERY, *COMMIT]),
        *(Case(operation=FullDisk, point=point) for point in FULL),
        *(Case(operation=Pruning, point=point) for point in around("store.prune")),
        # Half started or half stopped, and then killed again.
        *(
            Case(operation=Load, point="launch.spawned.after", second=point)
            for point in RECOVERY[:6]
        ),
        Case(operation=Load, point="launch.gate.before", second="adopt.find.after"),
        Case(operation=Load, point="launch.gate.after", second="adopt.record.before"),
        Case(operation=Heal, point="heal.intent.after", second="adopt.find.before"),
        Case(operation=Heal, point="heal.start.after", second="adopt.find.after"),
        Case(operation=Unload, point="stop.tree.before", second="stop.tree.after"),
        Case(operation=Unload, point="stop.free.before", second="stop.record.after"),
        Case(operation=Reserve, point="store.commit.after", second="store.commit.before"),
    ]


def test_each_point_kills_somebody() -> None:
    used = {case.point for case in cases()} | {case.second for case in cases()}
    assert used - {""} | set(FIRST_START) == POINTS


async def test_a_daemon_killed_anywhere_stands_by_what_it_said(
    killable: Callable[[int], Gpud],
) -> None:
    chains = [Chain(gpud=killable(number)) for number in range(CHAINS)]
    await prove(chains, chosen(), "R1 SIGKILL at failpoints × operations, also in recovery: kills")


@pytest.mark.engine
async def test_a_daemon_with_a_real_engine_killed_anywhere(real: Gpud) -> None:
    lives = [case for case in cases() if case.operation in (Load, Unload, Adopt, Heal)]
    picked = random.Random(SEED).sample(lives, asked(6, len(lives)))
    await prove([Chain(gpud=real)], picked, "R1 the same with the real llama-server: kills")


async def prove(chains: list[Chain], wanted: list[Case], name: str) -> None:
    """The cases in chains side by side; 0 violations."""
    began = time.monotonic()
    try:
        async with asyncio.TaskGroup() as tasks:
            for number, chain in enumerate(chains):
                tasks.create_task(chain.run(wanted[number :: len(chains)]))
    finally:
        for chain in chains:
            chain.gpud.end()
    wrong = [problem for chain in chains for problem in chain.wrong]
    wrong += [f"never passed: {case}" for chain in chains for case in chain.missed]
    kills = sum(chain.kills for chain in chains)
    record(name, len(wanted), min(kills, len(wanted)), len(wrong), time.monotonic() - began)
    assert not wrong, "\n".join(wrong)
    assert kills >= len(wanted)


def chosen() -> list[Case]:
    """All of them some times over, or a part in which each operation still comes."""
    chance, found = random.Random(SEED), []
    while len(found) < KILLS:
        found += chance.sample(cases(), len(cases()))
    return found if PROVING else found[:KILLS]


@pytest.mark.parametrize("point", FIRST_START)
async def test_a_first_start_that_is_killed_is_a_first_start_again(
    killable: Callable[[int], Gpud], point: str
) -> None:
    gpud = killable(0)
    gpud.environment = {"GPUD_FAILPOINT": f"{point}=kill"}
    try:
        with gpud.started():
            assert gpud.process is not None
            assert await asyncio.to_thread(gpud.process.wait, 60) == -signal.SIGKILL
        gpud.environment = {}
        await asyncio.to_thread(gpud.start)
        async with calling(gpud) as api:
            client = Client(api=api, witness=Witness(gpud=gpud))
            await client.reserve("first")
            await client.witness.check(api)
            assert client.witness.wrong == []
    finally:
        gpud.end()
