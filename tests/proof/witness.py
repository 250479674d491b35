"""What a client was told by a daemon, and whether the daemon stands by it after its death.

The invariants are those of the design: I1 sums within capacity, I2 what was acknowledged is there
and the rest whole or absent, I3 and I4 engines and records match, I6 engines live on, I7 repeats
answer the same, I8 no lease ends early or is filled up again, I10 no grant before READY.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec
import psutil

from gpud.v1 import devices_pb2, instances_pb2, node_pb2, telemetry_pb2
from gpud.v1 import reservations_pb2 as pb
from tests.proof.record import PROVING
from tests.running import Api, Gpud

LIMIT_SECONDS = 60.0
# I4; held against in `make prove` alone: elsewhere the machine is shared.
ORPHAN_SECONDS = 5.0 if PROVING else LIMIT_SECONDS
CLOCK_SECONDS = 0.05  # between the two clocks that a deadline is kept on
BOOKED = {pb.RESERVATION_STATE_GRANTED, pb.RESERVATION_STATE_RELEASING}
ENDED = {
    pb.RESERVATION_STATE_RELEASED,
    pb.RESERVATION_STATE_EXPIRED,
    pb.RESERVATION_STATE_REVOKED,
}
SETTLED = {
    instances_pb2.INSTANCE_STATE_READY,
    instances_pb2.INSTANCE_STATE_STOPPED,
    instances_pb2.INSTANCE_STATE_FAILED,
}


@dataclass(kw_only=True)
class Witness:
    """`promised` and `ended` are what was acknowledged; `wrong` is what was found."""

    gpud: Gpud
    promised: dict[str, pb.Reservation] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def keep(self, told: pb.Reservation) -> pb.Reservation:
        """The daemon acknowledged this."""
        if told.state in ENDED:
            self.promised.pop(told.name, None)
            self.ended.add(told.name)
        else:
            self.promised[told.name] = told
        return told

    def need(self, holds: bool, problem: str) -> None:
        """Note what does not hold."""
        if not holds:
            self.wrong.append(problem)

    async def check(self, api: Api) -> None:
        """All that must hold once a daemon is READY again and instances have settled."""
        node = (await api.node.GetNode(node_pb2.GetNodeRequest())).node
        self.need(node.state == node_pb2.NODE_STATE_READY, f"I10: the node is {node.state}")
        found = {each.name: each for each in await instances(api)}
        await self._engines(api, found)
        listed = {each.name: each for each in await reservations(api)}
        self._promises(listed)
        await self._books(api)
        self._store(set(listed))

    def _promises(self, listed: dict[str, pb.Reservation]) -> None:
        for name, told in self.promised.items():
            now = listed.get(name)
            if now is None or now.state != pb.RESERVATION_STATE_GRANTED:
                self.wrong.append(f"I2: {name} was granted, now {now and now.state}")
                continue
            self.need(shape(now) == shape(told), f"I2: {name} changed: {told} → {now}")
            self.need(now.generation == told.generation, f"I7: {name} has another generation")
            moved = seconds(now.expire_time) - seconds(told.expire_time)
            self.need(abs(moved) < CLOCK_SECONDS, f"I8: {name}'s lease moved by {moved} s")
        for name in self.ended:
            alive = name in listed and listed[name].state not in ENDED
            self.need(not alive, f"I2: {name} had ended and is back")
        known = self.promised.keys() | self.ended
        for name, each in listed.items():
            strange = each.state in BOOKED and not each.instance and name not in known
            self.need(not strange, f"I2: nobody asked for {name}")

    async def _books(self, api: Api) -> None:
        """I1, on what the API tells; the books may be in motion while the last bytes come back."""
        async with asyncio.timeout(LIMIT_SECONDS):
            async for _ in ticks(api):
                sums: Counter[str] = Counter()
                for each in await reservations(api):
                    for grant in each.grants if each.state in BOOKED else ():
                        sums[grant.device] += grant.bytes
                answer = await api.devices.ListDevices(devices_pb2.ListDevicesRequest())
                if all(each.granted_bytes == sums[each.name] for each in answer.devices):
                    break
        for each in answer.devices:
            held = each.granted_bytes + each.leaked_bytes
            room = each.memory_total_bytes - each.reserve_bytes
            self.need(held <= room, f"I1: {each.alias} holds {held} of {room}")
            self.need(each.leaked_bytes == 0, f"I5: {each.alias} leaked {each.leaked_bytes}")

    async def _engines(self, api: Api, found: dict[str, instances_pb2.Instance]) -> None:
        """I3 and I4: each engine has its record, and what has none is gone in time."""
        listed = {each.name: each for each in await reservations(api)}
        expected = set()
        for name, each in found.items():
            self.need(each.state in SETTLED, f"I6: {name} did not settle: {each.state}")
            if each.state == instances_pb2.INSTANCE_STATE_READY:
                expected.add(each.pid)
                inside = listed.get(each.reservation)
                booked = inside is not None and inside.state in BOOKED
                self.need(booked, f"I3: {name} runs outside any promise")
        try:
            async with asyncio.timeout(ORPHAN_SECONDS):
                async for _ in ticks(api):
                    if engines(self.gpud) == expected:
                        return
        except TimeoutError:
            orphans = engines(self.gpud) - expected
            self.wrong.append(f"I4: engines {orphans or 'gone'} beside the records of {expected}")

    def _store(self, listed: set[str]) -> None:
        """The file itself: sound, and no more or less in it than the API tells."""
        uri = f"file:{self.gpud.state / 'state.db'}?mode=ro"
        connection = sqlite3.connect(uri, uri=True)
        try:
            (sound,) = connection.execute("PRAGMA integrity_check").fetchone()
            rows = connection.execute("SELECT id, body FROM rows WHERE kind = 'reservation'")
            stored = {f"reservations/{id_}" for id_, body in rows if msgspec.json.decode(body)}
        finally:
            connection.close()
        self.need(sound == "ok", f"the store is damaged: {sound}")
        self.need(stored == listed, f"stored and listed differ: {sorted(stored ^ listed)}")


def shape(told: pb.Reservation) -> list[tuple[str, int]]:
    """Which devices carry how much."""
    return sorted((grant.device, grant.bytes) for grant in told.grants)


def seconds(moment: Any) -> float:
    return float(moment.seconds + moment.nanos / 1e9)


async def ticks(api: Api) -> Any:
    """Something to wait for: each snapshot that the daemon tells."""
    async for each in api.telemetry.WatchSnapshots(telemetry_pb2.WatchSnapshotsRequest()):
        yield each


async def quiet(api: Api) -> None:
    """This life of the daemon has told how it stands, the last that it writes by itself."""
    request = node_pb2.ListEventsRequest(subject="node", page_size=100)
    async with asyncio.timeout(LIMIT_SECONDS):
        async for _ in ticks(api):
            types = [each.type for each in (await api.node.ListEvents(request)).events]
            if {"node.ready", "node.draining"} & set(types[: types.index("node.started")]):
                return


async def reservations(api: Api) -> list[pb.Reservation]:
    found: list[pb.Reservation] = []
    request = pb.ListReservationsRequest(page_size=1000)
    while True:
        answer = await api.reservations.ListReservations(request)
        found += answer.reservations
        request.page_token = answer.next_page_token
        if not answer.next_page_token:
            return found


async def instances(api: Api) -> list[instances_pb2.Instance]:
    """All of them, each once it runs or has ended."""
    answer = await api.instances.ListInstances(instances_pb2.ListInstancesRequest(page_size=1000))
    return [await settled(api, each) for each in answer.instances]


async def settled(api: Api, found: instances_pb2.Instance) -> instances_pb2.Instance:
    """The instance once it runs or has ended, or after the limit as it is."""
    if found.state in SETTLED:
        return found
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            request = instances_pb2.WatchInstanceRequest(name=found.name)
            async for told in api.instances.WatchInstance(request):
                found = told.instance
                if found.state in SETTLED:
                    break
    except TimeoutError:
        pass
    return found


def engines(gpud: Gpud) -> set[int]:
    """Engines of this daemon that run, its former lives' among them."""
    needle, found = str(gpud.directory), set()
    for process in psutil.process_iter(["cmdline", "status"]):
        said = process.info["cmdline"] or []
        # What listens on a port of its own; the shim and the sampler are told no port.
        if "--port" in said and any(needle in each for each in said):
            found.add(process.pid)
    return found
