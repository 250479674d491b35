"""How a daemon is brought into each phase, kept there, and let go on."""

from __future__ import annotations

import asyncio

from gpud.v1 import instances_pb2, node_pb2
from gpud.v1 import reservations_pb2 as pb
from tests.proof.faults.stage import PATIENCE_SECONDS, Stage, span
from tests.running import GIB

LEASE_BYTES = GIB
BLOCKING_BYTES = 8 * GIB
WAITING_BYTES = 6 * GIB
ALLOCATED_BYTES = 96 * 1024**2
VANISHED_SECONDS = 6.0  # what somebody holds who is never heard of again


class Phase:
    """idle: nobody is there. The others build on it."""

    # The stub engine's.
    manners: tuple[str, ...] = ()
    # Whether it answers nothing until it is let go.
    keeps_answers = False

    async def bring(self, stage: Stage) -> None:
        """All but the last step, the daemon running."""

    async def enter(self, stage: Stage) -> None:
        """The last step."""

    async def check(self, stage: Stage) -> None:
        """It is in the phase, before the fault and while it comes through."""

    def let_go(self, stage: Stage) -> None:
        """The fault has come through: what was kept in the phase may go on."""


class Reserving(Phase):
    """A lease has most of gpu0, and a request waits for more than the rest."""

    async def bring(self, stage: Stage) -> None:
        await stage.reserve("lease", BLOCKING_BYTES)
        wait = span(VANISHED_SECONDS if stage.vanishing else 600)
        made = await stage.reserve("waiting", WAITING_BYTES, max_wait=wait)
        assert made.state == pb.RESERVATION_STATE_QUEUED
        watch = stage.guest.reservations.WatchReservation(
            pb.WatchReservationRequest(name=made.name)
        )
        await watch.read()
        stage.calls.append(watch)


class Loading(Phase):
    """A load whose engine answers that it loads."""

    state = instances_pb2.INSTANCE_STATE_LOADING
    is_held = True

    async def bring(self, stage: Stage) -> None:
        if not self.is_held:
            stage.hold.touch()
        request = instances_pb2.LoadModelRequest(model="tiny", devices=["gpu0"], owner="anna")
        call = stage.guest.instances.LoadModel(request)
        stage.calls.append(call)
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for told in call:
                if told.instance.state == self.state and told.instance.HasField("pid"):
                    break
        stage.names["engine"] = told.instance.name
        stage.sizes["engine"] = told.instance.footprint.total_bytes

    async def check(self, stage: Stage) -> None:
        assert (await stage.instance()).state == self.state

    def let_go(self, stage: Stage) -> None:
        stage.hold.touch()


class Warming(Loading):
    """A load whose engine keeps its first answer to itself."""

    state = instances_pb2.INSTANCE_STATE_WARMING
    is_held = False
    keeps_answers = True

    def let_go(self, stage: Stage) -> None:
        stage.answers.touch()


class Ready(Loading):
    """An engine serves, and beside it a client keeps a lease alive."""

    state = instances_pb2.INSTANCE_STATE_READY
    is_held = False

    async def bring(self, stage: Stage) -> None:
        name = await lease(stage)
        await super().bring(stage)
        await keep_alive(stage, name)


class Stopping(Loading):
    """An engine that takes no notice of SIGTERM is being stopped."""

    state = instances_pb2.INSTANCE_STATE_READY
    manners = ("--ignore-term",)
    is_held = False

    async def check(self, stage: Stage) -> None:
        """A fault that takes its time may come through after the end."""

    async def enter(self, stage: Stage) -> None:
        request = instances_pb2.UnloadModelRequest(instance=stage.names["engine"])
        call = stage.guest.instances.UnloadModel(request)
        stage.calls.append(call)
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for told in call:
                if told.phase == instances_pb2.UNLOAD_PHASE_TERMINATE:
                    return
        raise AssertionError("it ended before it was told to")


class Recovering(Ready):
    """The daemon died beside an engine and a lease; its next life begins with the fault there."""

    async def enter(self, stage: Stage) -> None:
        await asyncio.to_thread(stage.gpud.kill)


class Draining(Phase):
    """The node is being drained of a lease."""

    async def bring(self, stage: Stage) -> None:
        await keep_alive(stage, await lease(stage))

    async def enter(self, stage: Stage) -> None:
        await stage.api.node.DrainNode(node_pb2.DrainNodeRequest(reason="move", owner="anna"))


async def lease(stage: Stage) -> str:
    """A lease that takes part; its name."""
    return (await stage.reserve("lease", LEASE_BYTES)).name


async def keep_alive(stage: Stage, name: str) -> None:
    """A client that said once that it lives."""
    ttl = span(VANISHED_SECONDS if stage.vanishing else 600)
    call = stage.guest.reservations.KeepAlive()
    await call.write(pb.KeepAliveRequest(name=name, ttl=ttl))
    answer = await call.read()
    assert answer.state == pb.RESERVATION_STATE_GRANTED
    stage.calls.append(call)


def phase_named(name: str) -> Phase:
    """A phase, for one cell."""
    kinds: dict[str, type[Phase]] = {
        "idle": Phase,
        "reserving": Reserving,
        "loading": Loading,
        "warming": Warming,
        "ready": Ready,
        "stopping": Stopping,
        "recovering": Recovering,
        "draining": Draining,
    }
    return kinds[name]()
