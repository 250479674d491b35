"""How each fault is made, and how it is known that it has come through."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import grpc

from gpud.v1 import devices_pb2, node_pb2
from gpud.v1 import reservations_pb2 as pb
from tests.proof.faults.neighbour import end, hold
from tests.proof.faults.phases import ALLOCATED_BYTES
from tests.proof.faults.stage import PATIENCE_SECONDS, Stage, span
from tests.proof.test_full_disk import in_small_disk
from tests.running import GIB

MIB = 1024**2
STALE_SECONDS = 10.0
FOREIGN_BYTES = 11 * GIB  # of 12
SHORT_TTL_SECONDS = 4.0
TIMER_SECONDS = 0.05
HOUR_SECONDS = 3600.0
HOT_CELSIUS = 91
RENEWALS_AT_ONCE = 20
RECOVERY_POINT = "adopt.find.after"


class Fault:
    """`is_dead`: the daemon does not run when the fault is made, for its phase is recovering."""

    ends_the_daemon = False

    def __init__(self, *, is_dead: bool, is_stopping: bool) -> None:
        self.is_dead, self.is_stopping = is_dead, is_stopping

    def prepare(self, stage: Stage) -> None:
        """Before the first life of the daemon."""

    async def before(self, stage: Stage) -> None:
        """What must be there for the fault to befall it, before the last step into the phase."""

    async def cause(self, stage: Stage) -> None:
        """Make it."""
        raise NotImplementedError

    async def recover(self, stage: Stage) -> None:
        """The next life of a daemon that is dead."""
        await stage.start()

    async def come_through(self, stage: Stage) -> None:
        """Wait until the daemon shows that the fault is there."""


class DeviceLost(Fault):
    async def cause(self, stage: Stage) -> None:
        stage.script(gpu0={"lost": True})

    async def come_through(self, stage: Stage) -> None:
        await healthy_no_more(stage, devices_pb2.DEVICE_HEALTH_LOST)


class DriverHangs(Fault):
    """The calls for gpu0 do not come back, as with a driver that hangs in the kernel."""

    async def cause(self, stage: Stage) -> None:
        stage.script(gpu0={"hang": True})

    async def recover(self, stage: Stage) -> None:
        """Asked while it still waits for the device, the daemon says so."""
        with stage.gpud.started() as notices:
            await stage.connect()
            stage.is_listening_soon = True
            await stage.probe()
            await asyncio.to_thread(stage.gpud._await_ready, notices)

    async def come_through(self, stage: Stage) -> None:
        await healthy_no_more(stage, devices_pb2.DEVICE_HEALTH_UNRESPONSIVE)


class SamplesStale(DriverHangs):
    """All devices hang, for longer than a sample is good for; the host's memory is no device."""

    def prepare(self, stage: Stage) -> None:
        stage.gpud.devices += "\nhost = false"

    async def cause(self, stage: Stage) -> None:
        stage.script(gpu0={"hang": True}, gpu1={"hang": True})

    async def come_through(self, stage: Stage) -> None:
        async def is_old() -> bool:
            sampled = (await stage.device()).sample.time.ToMicroseconds() / 1e6
            return time.time() - sampled > STALE_SECONDS

        await stage.until(is_old)


class ForeignTakesTheRest(Fault):
    """A process that nobody promised anything takes nearly all of gpu0."""

    async def cause(self, stage: Stage) -> None:
        stage.script(gpu0={"foreign": [{"pid": 4242, "bytes": FOREIGN_BYTES}]})

    async def come_through(self, stage: Stage) -> None:
        async def is_seen() -> bool:
            return (await stage.device()).foreign_bytes >= FOREIGN_BYTES

        await stage.until(is_seen)


class PromiseOverUsed(Fault):
    """A neighbour holds more than it was promised."""

    async def before(self, stage: Stage) -> None:
        await stage.reserve("neighbour", 16 * MIB)

    async def cause(self, stage: Stage) -> None:
        stage.processes.append(hold(ALLOCATED_BYTES, stage.names["neighbour"]))

    async def come_through(self, stage: Stage) -> None:
        await stage.event("reservation.overuse", stage.names["neighbour"])


class FreeLags(Fault):
    """A process is gone, its device goes on showing its bytes: a neighbour's, or the engine's."""

    async def before(self, stage: Stage) -> None:
        stage.script(gpu0={"free_delay_seconds": HOUR_SECONDS})
        if self.is_stopping:
            return
        made = await stage.reserve("neighbour", ALLOCATED_BYTES + 32 * MIB)
        self._process = hold(ALLOCATED_BYTES, made.name)
        stage.processes.append(self._process)

        async def is_listed() -> bool:
            listed = (await stage.reservation("neighbour")).processes
            return sum(each.used_bytes for each in listed) >= ALLOCATED_BYTES

        await stage.until(is_listed)

    async def cause(self, stage: Stage) -> None:
        if self.is_stopping:
            return  # the engine is about to end
        await stage.api.reservations.Release(pb.ReleaseRequest(name=stage.names["neighbour"]))
        stage.processes.remove(self._process)
        end(self._process)

    async def come_through(self, stage: Stage) -> None:
        await stage.event("device.leaked")


class DiskFull(Fault):
    """The state lies on a small file system that somebody else's data fills to the last block."""

    def prepare(self, stage: Stage) -> None:
        stage.gpud.state.mkdir()
        stage.gpud.under = in_small_disk(stage.gpud.state)

    async def before(self, stage: Stage) -> None:
        request = pb.ReserveRequest(bytes=MIB, devices=["gpu1"], owner="writer", ttl=span(600))
        self._lease = (await stage.api.reservations.Reserve(request)).reservation.name
        assert stage.gpud.process is not None
        self._inside = stage.gpud.process.pid
        if self.is_dead:  # its file system lives on with the engine
            self._inside = (await stage.instance()).pid

    async def cause(self, stage: Stage) -> None:
        fill(Path(f"/proc/{self._inside}/root{stage.gpud.state}/filler"))
        own = () if os.geteuid() == 0 else ("-U", "--preserve-credentials")
        stage.gpud.under = ("nsenter", "-t", str(self._inside), *own, "-m")

    async def come_through(self, stage: Stage) -> None:
        """What lives is renewed, which writes, until there is no room for it."""
        renew = pb.RenewRequest(name=self._lease)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                node = (await stage.api.node.GetNode(node_pb2.GetNodeRequest())).node
                if node.state == node_pb2.NODE_STATE_DEGRADED:
                    return
                for _ in range(RENEWALS_AT_ONCE):
                    with suppress(grpc.aio.AioRpcError):
                        await stage.api.reservations.Renew(renew)


def fill(filler: Path) -> None:
    """Take what its file system has, to the last block."""
    with filler.open("wb", 0) as file:
        for size in (MIB, 4096):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


class DaemonKilled(Fault):
    ends_the_daemon = True

    async def cause(self, stage: Stage) -> None:
        if self.is_dead:
            await self._kill_in_recovery(stage)
        else:
            await asyncio.to_thread(stage.gpud.kill)
        await stage.probe()
        if not self.is_dead:
            await stage.start()

    async def _kill_in_recovery(self, stage: Stage) -> None:
        armed = stage.gpud.directory / "armed"
        armed.touch()
        stage.gpud.environment |= {
            "GPUD_FAILPOINT": f"{RECOVERY_POINT}:1=kill",
            "GPUD_FAILPOINT_ARMED": os.fspath(armed),
        }
        with stage.gpud.started():
            assert stage.gpud.process is not None
            status = await asyncio.to_thread(stage.gpud.process.wait, PATIENCE_SECONDS)
        assert status == -signal.SIGKILL
        armed.unlink()


class ClockStepped(Fault):
    """Somebody sets the date. A lease made before ends in its time all the same, not earlier."""

    def __init__(self, seconds: float, **where: bool) -> None:
        super().__init__(**where)
        self._seconds = seconds

    def prepare(self, stage: Stage) -> None:
        stage.gpud.environment |= stage.world.environment

    async def before(self, stage: Stage) -> None:
        self._began = time.clock_gettime(time.CLOCK_BOOTTIME)
        request = pb.ReserveRequest(
            bytes=MIB, devices=["gpu1"], owner="short", ttl=span(SHORT_TTL_SECONDS)
        )
        self._short = (await stage.api.reservations.Reserve(request)).reservation.name

    async def cause(self, stage: Stage) -> None:
        stage.world.step_wall(self._seconds)

    async def come_through(self, stage: Stage) -> None:
        ended = await stage.event("reservation.expired", self._short)
        lasted = time.clock_gettime(time.CLOCK_BOOTTIME) - self._began
        assert lasted > SHORT_TTL_SECONDS - TIMER_SECONDS
        moved = ended.time.ToMicroseconds() / 1e6 - time.time()
        assert abs(moved - self._seconds) < HOUR_SECONDS / 2, "the date was not stepped"


class Reboot(Fault):
    """The host dies with all that runs on it; its clock since boot starts anew."""

    ends_the_daemon = True

    def prepare(self, stage: Stage) -> None:
        stage.gpud.environment |= stage.world.environment

    async def cause(self, stage: Stage) -> None:
        if not self.is_dead:
            await asyncio.to_thread(stage.gpud.kill)
        for pid in stage.gpud.leftovers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        stage.world.reboot()
        await stage.probe()
        if not self.is_dead:
            await stage.start()


class ClientVanishes(Fault):
    """The client of the phase is gone, and its connection with it."""

    async def cause(self, stage: Stage) -> None:
        assert self.is_dead or stage.relay.connections
        stage.relay.cut()


class CriticallyHot(Fault):
    async def cause(self, stage: Stage) -> None:
        stage.script(gpu0={"temperature_celsius": HOT_CELSIUS})

    async def come_through(self, stage: Stage) -> None:
        async def is_hot() -> bool:
            return (await stage.device()).thermal == devices_pb2.THERMAL_CRITICAL

        await stage.until(is_hot)


async def healthy_no_more(stage: Stage, health: int) -> None:
    async def is_so() -> bool:
        return (await stage.device()).health == health

    await stage.until(is_so)


def fault_named(name: str, phase: str) -> Fault:
    """A fault, for one cell."""
    where = {"is_dead": phase == "recovering", "is_stopping": phase == "stopping"}
    if name.startswith("clock"):
        return ClockStepped(HOUR_SECONDS if "+" in name else -HOUR_SECONDS, **where)
    kinds: dict[str, type[Fault]] = {
        "device lost": DeviceLost,
        "driver hangs": DriverHangs,
        "samples stale": SamplesStale,
        "foreign takes the rest": ForeignTakesTheRest,
        "promise over-used": PromiseOverUsed,
        "free lags": FreeLags,
        "disk full": DiskFull,
        "daemon killed": DaemonKilled,
        "reboot": Reboot,
        "client vanishes": ClientVanishes,
        "critically hot": CriticallyHot,
    }
    return kinds[name](**where)
