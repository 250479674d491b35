"""Loads that end in every way there is, again and again on one daemon: nothing may stay behind."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil

from gpud.v1 import instances_pb2 as pb
from tests.end_to_end.driving import books
from tests.running import Api, Gpud, calling

ENDED = {pb.INSTANCE_STATE_STOPPED, pb.INSTANCE_STATE_FAILED}
# Those in which a load is unloaded, or its daemon killed. ALLOCATE may be over before it is told.
PHASES = (
    pb.LOAD_PHASE_DETECT,
    pb.LOAD_PHASE_VERIFY,
    pb.LOAD_PHASE_START,
    pb.LOAD_PHASE_LOAD,
    pb.LOAD_PHASE_WARMUP,
    pb.LOAD_PHASE_CHECK,
    pb.LOAD_PHASE_READY,
)
KINDS = (
    "unload", "unload in a phase", "kill the engine", "kill the engine in its load",
    "kill the shim", "kill the shim in its load", "kill the daemon in a phase",
    "kill the daemon and the engine", "kill the daemon and the shim",
    "kill the daemon in the unload", "two at once",
)  # fmt: skip

# How often, and with what pause, is looked again at what may only be about to end.
MOMENTS, MOMENT_SECONDS = 1000, 0.02


@dataclass
class Cycles:
    """One daemon's: `wrong` is what stayed behind, or was not as it should be."""

    daemon: Gpud
    chance: random.Random
    model: str = "tiny"
    patience_seconds: float = 30.0
    done: int = 0
    wrong: list[str] = field(default_factory=list)
    _open: Counter[str] | None = None

    def kinds(self, count: int) -> list[str]:
        """Each kind once, in any order, and again."""
        found: list[str] = []
        while len(found) < count:
            found += self.chance.sample(KINDS, len(KINDS))
        return found[:count]

    async def run(self, kinds: list[str]) -> None:
        """The cycles; after each all is looked at."""
        for kind in kinds:
            async with asyncio.timeout(10 * self.patience_seconds):
                async with calling(self.daemon) as api:
                    await self._cycle(kind, api)
                async with calling(self.daemon) as api:
                    await self._unload_all(api)
                    for problem in await self._left(api):
                        self.wrong.append(f"{self.done}: {kind}: {problem}")
            self.done += 1

    async def _cycle(self, kind: str, api: Api) -> None:
        phase = self.chance.choice(PHASES)
        if "daemon" in kind:
            await self._kill_daemon(kind, api, phase)
        elif kind == "two at once":
            await asyncio.gather(*(self._load(api, owner=name) for name in ("anna", "bert")))
            kill(self.chance.choice(await living(api)).pid)
        elif "load" in kind.split():
            begun = await self._load_until(api, pb.LOAD_PHASE_LOAD)
            kill(self._victim(kind, begun))
        elif kind == "unload in a phase":
            await self._load_until(api, phase)
        else:
            made = await self._load(api)
            if "kill" in kind and made is not None:
                kill(self._victim(kind, made))
                await self._healed(api, made)

    def _victim(self, kind: str, instance: pb.Instance) -> int:
        """The engine, or the shim that is its parent; 0: it is gone by itself."""
        if "shim" not in kind:
            return instance.pid
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(instance.pid).parent()
            if parent is not None and "shim" in " ".join(parent.cmdline()):
                return int(parent.pid)
        return 0

    async def _kill_daemon(self, kind: str, api: Api, phase: int) -> None:
        begun = await self._load_until(api, phase if "phase" in kind else pb.LOAD_PHASE_READY)
        if kind == "kill the daemon in the unload":
            call = api.instances.UnloadModel(pb.UnloadModelRequest(instance=begun.name))
            wanted = self.chance.choice((pb.UNLOAD_PHASE_DRAIN, pb.UNLOAD_PHASE_TERMINATE))
            async for told in call:
                if told.phase >= wanted:
                    break
            call.cancel()
        victim = self._victim(kind, begun)
        await asyncio.to_thread(self.daemon.kill)
        if "engine" in kind or "shim" in kind:
            kill(victim)
        self._open = None
        await asyncio.to_thread(self.daemon.start)

    async def _load(self, api: Api, **fields: Any) -> pb.Instance | None:
        try:
            told = [each async for each in api.instances.LoadModel(self._request(**fields))]
        except grpc.aio.AioRpcError as error:
            self.wrong.append(f"{self.done}: not loaded: {error.details()}")
            return None
        return told[-1].instance

    async def _load_until(self, api: Api, phase: int) -> pb.Instance:
        """Under way, as first told at or after a phase; from START on with a pid."""
        told, call = None, api.instances.LoadModel(self._request())
        with suppress(grpc.aio.AioRpcError):  # what it ended with is looked at afterwards
            async for told in call:
                has_pid = told.instance.HasField("pid") or phase < pb.LOAD_PHASE_START
                if told.phase >= phase and has_pid:
                    break
        call.cancel()
        assert told is not None, "the load was refused"
        return told.instance

    def _request(self, **fields: Any) -> pb.LoadModelRequest:
        return pb.LoadModelRequest(model=self.model, devices=["host"], **fields)

    async def _healed(self, api: Api, before: pb.Instance) -> None:
        watch = api.instances.WatchInstance(pb.WatchInstanceRequest(name=before.name))
        async for told in watch:
            now = told.instance
            if now.state == pb.INSTANCE_STATE_READY and now.pid != before.pid:
                watch.cancel()
                return
        self.wrong.append(f"{self.done}: it was not healed: {now.failure.message}")

    async def _unload_all(self, api: Api) -> None:
        """Whatever there is, gently or not, and in whatever state it is."""
        while left := await living(api):
            force = self.chance.random() < 0.5
            await asyncio.gather(*(self._unload(api, each.name, force) for each in left))

    async def _unload(self, api: Api, name: str, force: bool) -> None:
        with suppress(grpc.aio.AioRpcError):  # it has ended meanwhile
            request = pb.UnloadModelRequest(instance=name, force=force)
            async for _ in api.instances.UnloadModel(request):
                pass

    async def _left(self, api: Api) -> list[str]:
        """What a cycle has left behind."""
        held = await books(api)
        freed = not any(granted or leaked for granted, leaked in held.values())
        found = [] if freed else [f"bytes: {held}"]
        return found + await self._still_there(api) + await self._descriptors()

    async def _still_there(self, api: Api) -> list[str]:
        """Processes. What is only about to end takes a moment on a busy machine."""
        for _ in range(MOMENTS):
            found = await self._processes(api)
            if not found:
                break
            await asyncio.sleep(MOMENT_SECONDS)
        return found

    async def _processes(self, api: Api) -> list[str]:
        found = []
        if self.daemon.leftovers():
            found.append(f"processes: {self.daemon.leftovers()}")
        answer = await api.instances.ListOrphans(pb.ListOrphansRequest(page_size=1000))
        here = str(self.daemon.directory)
        orphans = [each for each in answer.orphans if each.provable or here in each.command]
        if orphans:
            found.append(f"orphans: {[(each.pid, each.instance) for each in orphans]}")
        assert self.daemon.process is not None
        process = psutil.Process(self.daemon.process.pid)
        dead = [each.pid for each in process.children() if is_zombie(each)]
        if dead:
            found.append(f"zombies: {dead}")
        return found

    async def _descriptors(self) -> list[str]:
        """No more than after this life's first cycle. Connections that close take a moment."""
        if self._open is None:
            self._open = self._opened()
            return []
        more: Counter[str] = Counter()
        for _ in range(MOMENTS):
            more = self._opened() - self._open
            if more.total() <= 0 or self._opened().total() <= self._open.total():
                return []
            await asyncio.sleep(MOMENT_SECONDS)
        return [f"descriptors: {sorted(more)}"]

    def _opened(self) -> Counter[str]:
        """What the daemon has open, but for connections: those to it are its clients' to close."""
        assert self.daemon.process is not None
        clients = client_sockets(str(self.daemon.socket))
        found = []
        for each in os.scandir(f"/proc/{self.daemon.process.pid}/fd"):
            with suppress(FileNotFoundError):
                found.append(os.readlink(each.path))
        return Counter("socket" if link.startswith("socket:") else link for link in found
                       if link not in clients)  # fmt: skip


def client_sockets(path: str) -> set[str]:
    """The connections to a Unix socket, as links in /proc/PID/fd name them."""
    lines = Path("/proc/net/unix").read_text().splitlines()[1:]
    words = (line.split() for line in lines)
    return {f"socket:[{w[6]}]" for w in words if len(w) > 7 and w[7] == path and w[5] == "03"}


async def living(api: Api) -> list[pb.Instance]:
    """Those that have not ended; of the others there are more than a page."""
    states = [number for number in pb.InstanceState.values() if number and number not in ENDED]
    request = pb.ListInstancesRequest(page_size=1000, states=states)
    return list((await api.instances.ListInstances(request)).instances)


def is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def kill(pid: int) -> None:
    if pid:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def folders_gone(daemon: Gpud, step_wall: Callable[[float], None]) -> AsyncIterator[None]:
    """Afterwards the date is 11 minutes on, and the folders of all that ended are removed."""
    yield
    step_wall(660.0)
    async with asyncio.timeout(60):
        while any((daemon.state / "instances").iterdir()):  # noqa: ASYNC110 — the daemon's doing
            await asyncio.sleep(0.1)
