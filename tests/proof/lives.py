"""Loads and unloads while the daemon is killed: the engine lives on, or nothing of it is left."""

from __future__ import annotations

from contextlib import suppress

import grpc

from gpud.v1 import instances_pb2 as pb
from tests.end_to_end.driving import PATIENCE_SECONDS, load, unload
from tests.proof.operations import Client, Operation
from tests.proof.witness import instances

READY = pb.INSTANCE_STATE_READY


class Load(Operation):
    """Killed in any transition, it goes on or failed whole; asked again, it is the same."""

    async def run(self, client: Client) -> None:
        self.told = ""
        request = pb.LoadModelRequest(model="tiny", devices=["gpu1"], request_id=self.label)
        async for message in client.api.instances.LoadModel(request, timeout=PATIENCE_SECONDS):
            self.told = message.instance.name

    async def settle(self, client: Client, *, answered: bool) -> None:
        need = client.witness.need
        there = {each.name: each for each in await instances(client.api)}
        need(not self.told or self.told in there, f"I2: {self.label} was begun and is not there")
        if answered:
            need(there[self.told].state == READY, f"I6: {self.label} was READY and is no more")
        before = len(there)
        with suppress(grpc.aio.AioRpcError):  # a load that failed tells so again
            again = await load(client.api, device="gpu1", request_id=self.label)
            need(self.told in {"", again.name}, f"I7: {self.label} was loaded twice")
        there = {each.name: each for each in await instances(client.api)}
        new = len(there) - before
        need(new == 0 or (new == 1 and not self.told), f"I7: {self.label} made {new} more")
        await unload_all(client)


class Unload(Operation):
    """Killed in any of its transitions, it is ended, or the engine was never touched."""

    async def prepare(self, client: Client) -> None:
        self.before = await load(client.api, device="gpu1")

    async def run(self, client: Client) -> None:
        await unload(client.api, instance=self.before.name, request_id=self.label)

    async def settle(self, client: Client, *, answered: bool) -> None:
        need = client.witness.need
        (now,) = [each for each in await instances(client.api) if each.name == self.before.name]
        need(now.state != pb.INSTANCE_STATE_FAILED, f"I6: {self.label} failed: {now.failure}")
        if now.state == READY:
            need(not answered, f"I2: {self.label} was ended and runs")
            need(now.pid == self.before.pid, f"I6: {self.label} runs as another process")
        ends = await unload(client.api, instance=self.before.name, request_id=self.label)
        stopped = ends[-1].instance.state == pb.INSTANCE_STATE_STOPPED
        need(stopped, f"I7: {self.label} repeated did not stop it")


class Adopt(Operation):
    """An engine that runs when its daemon dies, and at each step of the next ones' recovery."""

    async def prepare(self, client: Client) -> None:
        self.before = await load(client.api, device="gpu1")

    async def settle(self, client: Client, *, answered: bool) -> None:
        need = client.witness.need
        (now,) = [each for each in await instances(client.api) if each.name == self.before.name]
        need(now.state == READY, f"I6: {self.label} is {now.state}: {now.failure}")
        need(now.pid == self.before.pid, f"I6: {self.label} runs as another process")
        need(now.endpoint == self.before.endpoint, f"I6: {self.label} has another endpoint")
        await unload_all(client)


async def unload_all(client: Client) -> None:
    for each in await instances(client.api):
        if each.state == READY:
            await unload(client.api, instance=each.name)
