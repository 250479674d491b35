"""A daemon, who takes part in a cell of the matrix, and what a client sees of them."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from gpud.v1 import devices_pb2, instances_pb2, node_pb2
from gpud.v1 import reservations_pb2 as pb
from tests.proof.faults.expected import NO_EVENT
from tests.proof.faults.neighbour import end
from tests.proof.faults.relay import Relay
from tests.proof.faults.world import World
from tests.proof.witness import ticks
from tests.running import Api, Gpud, calling, refusal_of

PATIENCE_SECONDS = 60.0
CALL_SECONDS = 60.0


@dataclass(kw_only=True)
class Stage:
    """`names` are those that take part, in order: a reservation or an instance; `sizes` theirs.

    `api` is the test's own connection, `guest` that of the client whose calls bring the phase.
    `codes` is what a Reserve was answered, in order; `since` the journal's end before the fault.
    """

    gpud: Gpud
    world: World
    relay: Relay
    vanishing: bool = False
    api: Api = field(init=False)
    guest: Api = field(init=False)
    names: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    calls: list[Any] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    since: int = 0
    room: int = 0
    # The daemon is about to listen, and a call waits for that; else one to a dead daemon says so.
    is_listening_soon: bool = False
    _script: dict[str, dict[str, Any]] = field(default_factory=dict)
    _channels: AsyncExitStack = field(default_factory=AsyncExitStack)

    # The daemon's lives.

    @property
    def hold(self) -> Path:
        """The stub engine loads until this file is there."""
        return self.gpud.directory / "hold"

    @property
    def answers(self) -> Path:
        """In the phase warming it answers nothing until this file is there."""
        return self.gpud.directory / "answers"

    async def start(self) -> None:
        """A life of the daemon, and connections to it."""
        await asyncio.to_thread(self.gpud.start)
        await self.connect()

    async def connect(self) -> None:
        """Fresh connections: one to a daemon that died waits before it tries again."""
        await self._channels.aclose()
        self.api = await self._channels.enter_async_context(calling(self.gpud))
        channel = grpc.aio.insecure_channel(
            f"unix:{self.relay.path}", options=[("grpc.use_local_subchannel_pool", 1)]
        )
        self.guest = Api(await self._channels.enter_async_context(channel))

    async def end(self) -> None:
        """Nothing of it is left."""
        for process in self.processes:
            end(process)
        await self._channels.aclose()
        await asyncio.to_thread(self.gpud.end)

    # What the test does.

    def script(self, **cards: dict[str, Any]) -> None:
        """What the cards show from now on, beside what they were told before."""
        for alias, shown in cards.items():
            self._script[alias] = {**self._script.get(alias, {}), **shown}
        path = self.gpud.directory / "scenario.json"
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(self._script))
        fresh.rename(path)

    async def reserve(self, name: str, size: int, **fields: Any) -> pb.Reservation:
        """One that takes part from now on."""
        request = pb.ReserveRequest(
            **{"bytes": size, "devices": ["gpu0"], "owner": "anna", "ttl": span(600), **fields}
        )
        made = (await self.api.reservations.Reserve(request)).reservation
        self.names[name], self.sizes[name] = made.name, size
        return made

    async def mark(self) -> None:
        """Remember how things are before the fault."""
        request = node_pb2.ListEventsRequest(page_size=1)
        self.since = (await self.api.node.ListEvents(request)).events[0].sequence
        self.room = (await self.device()).grantable_bytes

    async def probe(self) -> None:
        """Ask for what gpu0 granted before the fault, and keep nothing of it."""
        request = pb.ReserveRequest(bytes=self.room, devices=["gpu0"], owner="prober", ttl=span(1))
        try:
            made = await self.api.reservations.Reserve(
                request, timeout=CALL_SECONDS, wait_for_ready=self.is_listening_soon
            )
        except grpc.aio.AioRpcError as error:
            refusal = refusal_of(error)
            self.codes.append(f"{refusal.code.name} {refusal.reason}".strip())
            return
        await self.api.reservations.Release(pb.ReleaseRequest(name=made.reservation.name))
        self.codes.append("OK")

    # What is seen.

    async def device(self) -> devices_pb2.Device:
        request = devices_pb2.GetDeviceRequest(name="gpu0")
        return (await self.api.devices.GetDevice(request)).device

    async def reservation(self, name: str) -> pb.Reservation:
        request = pb.GetReservationRequest(name=self.names[name])
        return (await self.api.reservations.GetReservation(request)).reservation

    async def instance(self, name: str = "engine") -> instances_pb2.Instance:
        request = instances_pb2.GetInstanceRequest(name=self.names[name])
        return (await self.api.instances.GetInstance(request)).instance

    async def events(self) -> list[node_pb2.Event]:
        """Those told since the mark, oldest first."""
        request = node_pb2.ListEventsRequest(page_size=1000)
        told = (await self.api.node.ListEvents(request)).events
        return [event for event in told if event.sequence > self.since][::-1]

    async def event(self, type_: str, subject: str = "") -> node_pb2.Event:
        """The first of a type since the mark, once it is in the journal."""
        request = node_pb2.WatchEventsRequest(
            type=type_, subject=subject, after_sequence=self.since
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for answer in self.api.node.WatchEvents(request):
                found: node_pb2.Event = answer.event
                return found
        raise AssertionError("the stream ended")

    async def state(self) -> str:
        """The node's, gpu0's, and that of each who takes part."""
        node = (await self.api.node.GetNode(node_pb2.GetNodeRequest())).node
        device = await self.device()
        is_hot = device.thermal == devices_pb2.THERMAL_CRITICAL
        health = devices_pb2.DeviceHealth.Name(device.health)
        shown = "HOT" if is_hot else health.removeprefix("DEVICE_HEALTH_")
        parts = [node_pb2.NodeState.Name(node.state).removeprefix("NODE_STATE_"), f"gpu0 {shown}"]
        for name, resource in self.names.items():
            if resource.startswith("instances/"):
                state = instances_pb2.InstanceState.Name((await self.instance(name)).state)
            else:
                state = pb.ReservationState.Name((await self.reservation(name)).state)
            parts.append(f"{name} {state.rpartition('STATE_')[2]}")
        return ", ".join(parts)

    async def bytes(self) -> str:
        """Who holds bytes of gpu0 by the books, told by their sum."""
        device = await self.device()
        granted = self._holders(device.granted_bytes)
        if not device.leaked_bytes:
            return granted
        told = [event.reason for event in await self.events() if event.type == "device.leaked"]
        promises = {name: await self._promise(name) for name in self.sizes}
        leaked = [name for name, held in promises.items() if any(held in text for text in told)]
        return f"{granted}; {' + '.join(leaked) or device.leaked_bytes} leaked"

    async def _promise(self, name: str) -> str:
        resource = self.names[name]
        if resource.startswith("instances/"):
            return (await self.instance(name)).reservation
        return resource

    def _holders(self, granted: int) -> str:
        for count in range(len(self.sizes) + 1):
            for names in itertools.combinations(self.sizes, count):
                if sum(self.sizes[name] for name in names) == granted:
                    return " + ".join(names) or "nothing"
        return f"{granted} B"

    async def told(self, wanted: str) -> str:
        """The wanted type of event where it was told; else all that were."""
        types = [event.type for event in await self.events()]
        if wanted == NO_EVENT:
            return ", ".join(t for t in types if t.startswith(("node.", "device."))) or NO_EVENT
        return wanted if wanted in types else f"only {types}"

    async def until(self, holds: Any) -> None:
        """Wait until what `holds` finds, asked at each snapshot, is true."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for _ in ticks(self.api):
                if await holds():
                    return


def span(seconds: float) -> Duration:
    made = Duration()
    made.FromMilliseconds(int(seconds * 1000))
    return made


@asynccontextmanager
async def staged(gpud: Gpud, library: Path, **settings: Any) -> AsyncIterator[Stage]:
    """A stage whose daemon is not started yet; ended with all that ran on it."""
    world = World(gpud.directory, library)
    relay = Relay(gpud.directory / "guest.sock", gpud.socket)
    async with relay.open():
        stage = Stage(gpud=gpud, world=world, relay=relay, **settings)
        stage.script()
        try:
            yield stage
        finally:
            await stage.end()
