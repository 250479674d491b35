"""More than one call: many clients at once, a full journal, a disk that fails."""

from __future__ import annotations

import asyncio
import itertools
import resource
from collections import Counter
from contextlib import suppress

import grpc

from gpud.v1 import devices_pb2, node_pb2
from gpud.v1 import reservations_pb2 as pb
from tests.proof.operations import Client, Operation, Reserve
from tests.proof.witness import LIMIT_SECONDS, reservations, ticks


class Burst(Operation):
    """Many clients at once; each keeps what it was told, and comes back for the rest."""

    clients = 12

    async def run(self, client: Client) -> None:
        self._begun: dict[str, str] = {}
        labels = [f"{self.label}-{number}" for number in range(self.clients)]
        clients = [self._client(client, label) for label in labels]
        for ended in await asyncio.gather(*clients, return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended

    async def _client(self, client: Client, label: str) -> None:
        for round_ in itertools.count():
            name = f"{label}-{round_}"
            self._begun[name] = ""
            told = await client.reserve(name)
            self._begun[name] = told.name
            if round_ % 2:
                del client.witness.promised[told.name]  # until it is known whether it ended
                end = pb.ReleaseRequest(request_id=f"{name}-end", name=told.name)
                client.witness.keep((await client.api.reservations.Release(end)).reservation)

    async def settle(self, client: Client, *, answered: bool) -> None:
        """Whoever was not answered asks again; nobody holds more than one promise of a label."""
        for label, name in self._begun.items():
            if not name:
                told = await client.reserve(label)
            elif name in client.witness.ended or name in client.witness.promised:
                continue
            else:
                told = pb.Reservation(name=name)
            end = pb.ReleaseRequest(request_id=f"{label}-end", name=told.name)
            client.witness.keep((await client.api.reservations.Release(end)).reservation)
        counted = Counter(each.labels["case"] for each in await reservations(client.api))
        twice = [label for label in self._begun if counted[label] != 1]
        client.witness.need(not twice, f"I7: not there exactly once: {twice}")


class Pruning(Operation):
    """More events than the journal has room for: the daemon dies as the oldest go."""

    most = 2000

    async def prepare(self, client: Client) -> None:
        self.newest = (await _events(client))[0]

    async def run(self, client: Client) -> None:
        reason = "r" * 200
        for number in range(self.most):
            cordon = devices_pb2.CordonDeviceRequest(name="gpu3", reason=f"{number} {reason}")
            await client.api.devices.CordonDevice(cordon)
            uncordon = devices_pb2.UncordonDeviceRequest(name="gpu3")
            await client.api.devices.UncordonDevice(uncordon)

    async def settle(self, client: Client, *, answered: bool) -> None:
        """Whatever went, the newest did not, no number was given twice and none is missing."""
        await client.api.devices.UncordonDevice(devices_pb2.UncordonDeviceRequest(name="gpu3"))
        found = await _events(client)
        need = client.witness.need
        need(found[0] > self.newest, "the newest events are gone")
        need(found == [*range(found[0], found[-1] - 1, -1)], "a number is missing, or twice there")


async def _events(client: Client) -> list[int]:
    asked = node_pb2.ListEventsRequest(page_size=1000)
    return [each.sequence for each in (await client.api.node.ListEvents(asked)).events]


class FullDisk(Reserve):
    """No file may grow, so that a commit fails; then they may again."""

    async def run(self, client: Client) -> None:
        process = client.witness.gpud.process
        assert process is not None
        most = resource.RLIM_INFINITY
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, most))
        with suppress(grpc.aio.AioRpcError):
            await client.reserve(self.label)
        with suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
        async with asyncio.timeout(LIMIT_SECONDS):
            async for _ in ticks(client.api):  # until it recovers, and dies of that
                pass
