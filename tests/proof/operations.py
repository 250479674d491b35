"""What clients ask while a daemon is killed, and what they must find when it is back.

Each operation is run until it is answered or cut off; `settle` then looks at what became of it and
asks once more with the same request id, as a client does that got no answer.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import Any

from google.protobuf.duration_pb2 import Duration

from gpud.v1 import devices_pb2, node_pb2
from gpud.v1 import reservations_pb2 as pb
from tests.proof.witness import (
    BOOKED,
    CLOCK_SECONDS,
    ENDED,
    LIMIT_SECONDS,
    Witness,
    quiet,
    reservations,
    seconds,
    ticks,
)
from tests.running import Api


def around(*changes: str) -> list[str]:
    """The two points of each change."""
    return [f"{change}.{side}" for change in changes for side in ("before", "after")]


KIB = 1024
TTL = Duration(seconds=3600)
_numbers = itertools.count(1)
# Where a single change is durable, and where it is not.
DURABLE_AT = {"store.commit.after", "store.transaction.after", *around("store.tell")}
VOID_AT = {"store.transaction.before", "store.commit.before"}


@dataclass(kw_only=True)
class Client:
    """A client of one life of a daemon."""

    api: Api
    witness: Witness

    async def reserve(self, label: str, **fields: Any) -> pb.Reservation:
        """A promise that is acknowledged."""
        request = asking(label, **fields)
        return self.witness.keep((await self.api.reservations.Reserve(request)).reservation)

    async def device(self, alias: str) -> devices_pb2.Device:
        request = devices_pb2.GetDeviceRequest(name=alias)
        return (await self.api.devices.GetDevice(request)).device

    async def labelled(self, label: str) -> list[pb.Reservation]:
        return [each for each in await reservations(self.api) if each.labels["case"] == label]


def asking(
    label: str, *, ttl: Duration = TTL, size: int = 256 * KIB, device: str = "", **fields: Any
) -> pb.ReserveRequest:
    return pb.ReserveRequest(
        request_id=label,
        bytes=size,
        devices=[device] if device else [],
        ttl=ttl,
        owner="prover",
        labels={"case": label},
        **fields,
    )


class Operation:
    """`label` is its request id. `point` is where the daemon dies, `number` at which passing."""

    def __init__(self, point: str, number: int) -> None:
        self.label = f"{type(self).__name__.lower()}-{next(_numbers)}"
        self.point = point if number == 1 else ""

    async def prepare(self, client: Client) -> None:
        """What must be there before."""

    async def run(self, client: Client) -> None:
        """Ask; ends when it is answered, or with the error of a connection that broke."""
        raise NotImplementedError

    async def settle(self, client: Client, *, answered: bool) -> None:
        """Look, compare, ask again."""
        raise NotImplementedError

    def happened(self, client: Client, there: bool, answered: bool) -> None:
        """Whether it is there must agree with the answer and with the place of the kill."""
        need = client.witness.need
        need(there or not answered, f"I2: {self.label} was answered and is not there")
        need(there or self.point not in DURABLE_AT, f"I2: {self.label} was durable, is not there")
        need(not there or self.point not in VOID_AT, f"I2: {self.label} is there without commit")


class Reserve(Operation):
    count = 1

    async def run(self, client: Client) -> None:
        await client.reserve(self.label, device_count=self.count)

    async def settle(self, client: Client, *, answered: bool) -> None:
        need = client.witness.need
        there = await client.labelled(self.label)
        need(len(there) <= 1, f"I7: {self.label} is there {len(there)} times")
        self.happened(client, bool(there), answered)
        for each in there:
            whole = len({grant.device for grant in each.grants}) == self.count
            need(whole and each.state in BOOKED, f"I2: {self.label} is half there: {each}")
        again = await client.reserve(self.label, device_count=self.count)
        need(not there or there[0].name == again.name, f"I7: {self.label} was promised twice")
        need(len(await client.labelled(self.label)) == 1, f"I7: {self.label} is there twice")


class ReserveTwo(Reserve):
    """Two devices: both or none."""

    count = 2


class Renew(Operation):
    async def prepare(self, client: Client) -> None:
        self.before = await client.reserve(f"{self.label}-of")
        self.request = pb.RenewRequest(
            request_id=self.label, name=self.before.name, generation=self.before.generation,
            ttl=Duration(seconds=2 * TTL.seconds),
        )  # fmt: skip

    async def run(self, client: Client) -> None:
        client.witness.keep((await client.api.reservations.Renew(self.request)).reservation)

    async def settle(self, client: Client, *, answered: bool) -> None:
        get = pb.GetReservationRequest(name=self.before.name)
        now = (await client.api.reservations.GetReservation(get)).reservation
        moved = seconds(now.expire_time) - seconds(self.before.expire_time) > 1.0
        self.happened(client, moved, answered)
        client.witness.keep((await client.api.reservations.Renew(self.request)).reservation)


class Release(Operation):
    async def prepare(self, client: Client) -> None:
        self.before = await client.reserve(f"{self.label}-of")
        self.request = pb.ReleaseRequest(request_id=self.label, name=self.before.name)

    async def run(self, client: Client) -> None:
        client.witness.keep((await client.api.reservations.Release(self.request)).reservation)

    async def settle(self, client: Client, *, answered: bool) -> None:
        get = pb.GetReservationRequest(name=self.before.name)
        now = (await client.api.reservations.GetReservation(get)).reservation
        self.happened(client, now.state in ENDED, answered)
        client.witness.keep((await client.api.reservations.Release(self.request)).reservation)


class Expire(Operation):
    async def prepare(self, client: Client) -> None:
        await quiet(client.api)  # what comes until the point is armed has to take less than this
        self.before = await client.reserve(f"{self.label}-of", ttl=Duration(seconds=4))

    async def run(self, client: Client) -> None:
        """Nobody is told; the daemon dies of it."""
        await state_of(client, self.before.name, ENDED)

    async def settle(self, client: Client, *, answered: bool) -> None:
        now = await state_of(client, self.before.name, ENDED)
        early = seconds(self.before.expire_time) - seconds(now.end_time)
        client.witness.need(early < CLOCK_SECONDS, f"I8: {self.label} ended {early} s early")
        expired = now.state == pb.RESERVATION_STATE_EXPIRED
        client.witness.need(expired, f"I8: {self.label} ended otherwise: {now.state}")
        client.witness.keep(now)


class Queued(Operation):
    """A request that waits, while the promise in its way ends: one transaction, or none of it."""

    async def prepare(self, client: Client) -> None:
        device = await client.device("gpu3")
        self.blocker = await client.reserve(
            f"{self.label}-of", size=device.grantable_bytes, device="gpu3"
        )
        self.waiting = asking(self.label, device="gpu3", max_wait=TTL)
        told = (await client.api.reservations.Reserve(self.waiting)).reservation
        client.witness.need(told.state == pb.RESERVATION_STATE_QUEUED, f"{self.label}: {told}")
        self.name = told.name
        self.request = pb.ReleaseRequest(request_id=f"{self.label}-end", name=self.blocker.name)

    async def run(self, client: Client) -> None:
        client.witness.keep((await client.api.reservations.Release(self.request)).reservation)
        await state_of(client, self.name, {pb.RESERVATION_STATE_GRANTED})

    async def settle(self, client: Client, *, answered: bool) -> None:
        need = client.witness.need
        there = {each.name: each.state for each in await reservations(client.api)}
        need(self.name in there, f"I2: {self.label} waited and is gone")
        freed = there.get(self.blocker.name) in ENDED
        granted = there.get(self.name) == pb.RESERVATION_STATE_GRANTED
        need(freed or not granted, f"I1: {self.label} was granted beside what is in its way")
        client.witness.keep((await client.api.reservations.Release(self.request)).reservation)
        now = await state_of(client, self.name, {pb.RESERVATION_STATE_GRANTED})
        again = (await client.api.reservations.Reserve(self.waiting)).reservation
        need(again.name == now.name, f"I7: {self.label} was queued twice")
        end = pb.ReleaseRequest(name=self.name)
        client.witness.keep((await client.api.reservations.Release(end)).reservation)


class Preempt(Operation):
    """A higher class takes the place of a lower one: never both, and the bytes are not lost."""

    async def prepare(self, client: Client) -> None:
        size = (await client.device("gpu3")).grantable_bytes
        self.victim = await client.reserve(
            f"{self.label}-of",
            size=size,
            device="gpu3",
            preemptible=True,
            priority=pb.PRIORITY_BATCH,
        )
        self.request = asking(
            self.label, size=size, device="gpu3", max_wait=TTL, priority=pb.PRIORITY_CRITICAL
        )

    async def run(self, client: Client) -> None:
        del client.witness.promised[self.victim.name]  # from now on it may be revoked
        told = (await client.api.reservations.Reserve(self.request)).reservation
        await state_of(client, told.name, {pb.RESERVATION_STATE_GRANTED})

    async def settle(self, client: Client, *, answered: bool) -> None:
        need = client.witness.need
        there = {each.name: each for each in await reservations(client.api)}
        mine = [each for each in there.values() if each.labels["case"] == self.label]
        need(len(mine) <= 1, f"I7: {self.label} is there {len(mine)} times")
        granted = [each for each in mine if each.state == pb.RESERVATION_STATE_GRANTED]
        revoked = there[self.victim.name].state == pb.RESERVATION_STATE_REVOKED
        need(revoked or not granted, f"I1: {self.label} was granted beside its victim")
        told = (await client.api.reservations.Reserve(self.request)).reservation
        need(not mine or told.name == mine[0].name, f"I7: {self.label} was promised twice")
        await state_of(client, told.name, {pb.RESERVATION_STATE_GRANTED})
        client.witness.keep(await state_of(client, self.victim.name, ENDED))
        end = pb.ReleaseRequest(name=told.name)
        client.witness.keep((await client.api.reservations.Release(end)).reservation)


class Attach(Operation):
    """A process that is the owner's from then on; its promise ends when it has ended."""

    async def prepare(self, client: Client) -> None:
        self.before = await client.reserve(f"{self.label}-of")
        self.process = await asyncio.create_subprocess_exec("sleep", "600")
        self.request = pb.AttachProcessRequest(
            request_id=self.label, name=self.before.name, pid=self.process.pid
        )

    async def run(self, client: Client) -> None:
        client.witness.keep(
            (await client.api.reservations.AttachProcess(self.request)).reservation
        )

    async def settle(self, client: Client, *, answered: bool) -> None:
        get = pb.GetReservationRequest(name=self.before.name)
        now = (await client.api.reservations.GetReservation(get)).reservation
        self.happened(client, bool(now.attachments), answered)
        again = (await client.api.reservations.AttachProcess(self.request)).reservation
        once = [each.pid for each in again.attachments] == [self.process.pid]
        client.witness.need(once, f"I7: {self.label} repeated: {again.attachments}")
        self.process.kill()
        await self.process.wait()
        end = pb.ReleaseRequest(name=self.before.name)
        await client.api.reservations.Release(end)
        client.witness.keep(await state_of(client, self.before.name, ENDED))


class Drain(Operation):
    """No new grants until it is resumed, also by the daemon's next life."""

    async def run(self, client: Client) -> None:
        await client.api.node.DrainNode(self._request())

    def _request(self) -> node_pb2.DrainNodeRequest:
        return node_pb2.DrainNodeRequest(request_id=self.label, reason="proof", owner="prover")

    async def settle(self, client: Client, *, answered: bool) -> None:
        node = (await client.api.node.GetNode(node_pb2.GetNodeRequest())).node
        self.happened(client, node.state == node_pb2.NODE_STATE_DRAINING, answered)
        node = (await client.api.node.DrainNode(self._request())).node
        draining = node.state == node_pb2.NODE_STATE_DRAINING
        client.witness.need(draining, f"I7: {self.label} repeated did not drain")
        await client.api.node.ResumeNode(node_pb2.ResumeNodeRequest(owner="prover"))
        async with asyncio.timeout(LIMIT_SECONDS):
            seen = 0
            async for _ in ticks(client.api):  # how it stands is told with a snapshot
                seen += 1
                if seen == 3:
                    break


class Cordon(Operation):
    async def run(self, client: Client) -> None:
        await client.api.devices.CordonDevice(self._request())

    def _request(self) -> devices_pb2.CordonDeviceRequest:
        return devices_pb2.CordonDeviceRequest(
            request_id=self.label, name="gpu2", reason="proof", owner="prover"
        )

    async def settle(self, client: Client, *, answered: bool) -> None:
        self.happened(client, (await client.device("gpu2")).cordoned, answered)
        await client.api.devices.CordonDevice(self._request())
        cordoned = (await client.device("gpu2")).cordoned
        client.witness.need(cordoned, f"I7: {self.label} repeated did not cordon")
        await client.api.devices.UncordonDevice(
            devices_pb2.UncordonDeviceRequest(name="gpu2", owner="prover")
        )


async def state_of(client: Client, name: str, states: set[int]) -> pb.Reservation:
    """The reservation once it is in one of the states. Raises TimeoutError."""
    get = pb.GetReservationRequest(name=name)
    async with asyncio.timeout(LIMIT_SECONDS):
        async for _ in ticks(client.api):
            now = (await client.api.reservations.GetReservation(get)).reservation
            if now.state in states:
                return now
    raise TimeoutError
