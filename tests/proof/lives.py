"""Loads and unloads while the daemon is killed: the engine lives on, or nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress

import grpc

from gpud.v1 import instances_pb2 as pb
from tests.end_to_end.driving import PATIENCE_SECONDS, load, unload
from tests.proof.operations import Client, Operation
from tests.proof.witness import SETTLED, instances

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


class Move(Load):
    """A load whose engine finds its port taken, and is started with another one."""

    async def run(self, client: Client) -> None:
        (client.witness.gpud.directory / "lose-port").touch()
        await super().run(client)


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


class Heal(Operation):
    """An engine that ends while it serves, its daemon killed at each step of what follows."""

    async def prepare(self, client: Client) -> None:
        self.before = await load(client.api, device="gpu1")

    async def run(self, client: Client) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.before.pid, signal.SIGKILL)
        await self._healed(client)

    async def _healed(self, client: Client) -> pb.Instance:
        """It, once it serves again with another process."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            request = pb.WatchInstanceRequest(name=self.before.name)
            async for told in client.api.instances.WatchInstance(request):
                if told.instance.state == READY and told.instance.pid != self.before.pid:
                    return told.instance
        raise ValueError(f"{self.before.name} ended: {told.instance.failure}")

    async def settle(self, client: Client, *, answered: bool) -> None:
        need = client.witness.need
        now = await self._healed(client)
        need(now.reservation == self.before.reservation, f"{self.label} has another promise")
        # A start that the daemon's death cut short is one of them.
        need(1 <= now.restarts <= 3, f"{self.label} was started again {now.restarts} times")
        await unload_all(client)


class Reset(Operation):
    """One that was given up is loaded anew: wholly, or it is given up still."""

    async def prepare(self, client: Client) -> None:
        """Its engine is killed whenever it serves, until that is too much."""
        self.before = await load(client.api, device="gpu1")
        async with asyncio.timeout(PATIENCE_SECONDS):
            request = pb.WatchInstanceRequest(name=self.before.name)
            async for told in client.api.instances.WatchInstance(request):
                if told.instance.state == READY:
                    with suppress(ProcessLookupError):
                        os.kill(told.instance.pid, signal.SIGKILL)

    async def run(self, client: Client) -> None:
        await client.api.instances.ResetInstance(self._request)

    @property
    def _request(self) -> pb.ResetInstanceRequest:
        return pb.ResetInstanceRequest(name=self.before.name, request_id=self.label)

    async def settle(self, client: Client, *, answered: bool) -> None:
        need = client.witness.need
        (now,) = [each for each in await instances(client.api) if each.name == self.before.name]
        need(now.state in SETTLED, f"{self.label} is {now.state}")
        again = (await client.api.instances.ResetInstance(self._request)).instance
        need(again.name == now.name, f"I7: {self.label} is another")
        await instances(client.api)
        await unload_all(client)


async def unload_all(client: Client) -> None:
    for each in await instances(client.api):
        if each.state == READY:
            await unload(client.api, instance=each.name)
