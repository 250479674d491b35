"""What a daemon holds, and that under an attack it serves others and gives all of it back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import grpc

from gpud.v1 import node_pb2
from tests.access.fleet import Fleet
from tests.proof.record import record
from tests.running import Api

MIB = 1024 * 1024
WARMING_CALLS = 50
SETTLE_SECONDS = 60.0
ANSWER_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Of one process at one moment, read from the kernel."""

    resident_bytes: int
    descriptors: int

    @classmethod
    def of(cls, pid: int) -> Self:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
        return cls(resident_bytes=1024 * kib, descriptors=len(os.listdir(f"/proc/{pid}/fd")))

    def __str__(self) -> str:
        return f"{self.resident_bytes / MIB:.1f} MiB, {self.descriptors} descriptors"


@dataclass(kw_only=True)
class Attack:
    """One run: what is attacked, and what became of it."""

    name: str  # as the table of proofs has it
    asked: int
    most_growth_bytes: int
    done: int = 0
    served: int = 0
    failed: list[str] = field(default_factory=list)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def fail(self, problem: str) -> None:
        self.failed.append(problem)


async def answer(api: Api) -> None:
    await api.node.GetNode(node_pb2.GetNodeRequest(), timeout=ANSWER_SECONDS)


def pid_of(place: Fleet) -> int:
    assert place.gpud.process is not None
    return place.gpud.process.pid


async def settled(api: Api, pid: int, descriptors: int) -> Footprint:
    """What it holds once it has no more open than that; each look is after an answer."""
    async with asyncio.timeout(SETTLE_SECONDS):
        while (now := Footprint.of(pid)).descriptors > descriptors:
            await answer(api)
    return now


@contextlib.asynccontextmanager
async def under(place: Fleet, attack: Attack) -> AsyncIterator[Api]:
    """While it lasts others are served at each way in; afterwards all is given back.

    They share the listeners with whoever attacks. Yields an admin's API.
    """
    pid, began = pid_of(place), time.monotonic()
    async with (
        place.local("admin") as admin,
        place.local("viewer") as viewer,
        place.certified("watcher") as remote,
    ):
        clients = [Api(each) for each in (admin, viewer, remote)]
        for each in clients * WARMING_CALLS:
            await answer(each)
        before = Footprint.of(pid)
        async with asyncio.TaskGroup() as tasks:
            for each in clients:
                tasks.create_task(_be_served(each, attack))
            try:
                yield clients[0]
            finally:
                attack.stopped.set()
        after = await settled(clients[0], pid, before.descriptors)
    _judge(attack, before, after)
    if "Traceback" in place.gpud.log:
        attack.fail("a traceback in the log")
    seconds = time.monotonic() - began
    print(f"{attack.name}: {attack.done} of {attack.asked}, {before} -> {after}, {seconds:.1f} s")
    record(attack.name, attack.asked, attack.done, len(attack.failed), seconds)
    assert not attack.failed, f"{len(attack.failed)} failures, as {attack.failed[:3]}"
    assert attack.done == attack.asked


async def _be_served(api: Api, attack: Attack) -> None:
    while not attack.stopped.is_set():
        try:
            await answer(api)
        except grpc.aio.AioRpcError as error:
            attack.fail(f"another client's call: {error.code()} {error.details()}")
        else:
            attack.served += 1


def _judge(attack: Attack, before: Footprint, after: Footprint) -> None:
    if not attack.served:
        attack.fail("nobody else was served")
    growth = after.resident_bytes - before.resident_bytes
    if growth > attack.most_growth_bytes:
        attack.fail(f"grew from {before} to {after}")
