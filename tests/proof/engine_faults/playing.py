"""One daemon through the cells: into the phase, the fault, and what is seen of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil

from gpud.v1 import instances_pb2 as pb
from gpud.v1 import reservations_pb2
from tests.end_to_end.driving import PATIENCE_SECONDS, books, event_types, load, reaches, unload
from tests.fakes.stub_engine import write_stub
from tests.models import phantoms
from tests.proof.engine_faults.cells import Expected
from tests.running import Api, Gpud, calling, refusal_of

READY, BACKOFF = pb.INSTANCE_STATE_READY, pb.INSTANCE_STATE_BACKOFF
STOPPED, FAILED = pb.INSTANCE_STATE_STOPPED, pb.INSTANCE_STATE_FAILED
HELD = {
    reservations_pb2.RESERVATION_STATE_GRANTED,
    reservations_pb2.RESERVATION_STATE_RELEASING,
}
# Short spans, so that each verdict comes soon, and none on an engine that waits for a processor;
# a fault in healing comes within one back-off. The breaker after three.
SETTINGS = (
    '[health]\nwatch = "50ms"\nhealth = "100ms"\nprobe = "60s"\nstuck = "5s"\n'
    'breaker_failures = 3\nbackoff_first = "1500ms"\nbackoff_most = "1500ms"\n'
)
STALL = "10s"
# What is told of a start that could not begin: it says nothing against the engine.
BAD_FILE = ("tiny.gguf", "is missing")
REFUSALS = ("not executable", "temporarily unavailable")
FILE_FAULTS = ("file cut short", "file replaced", "file gone")
START_FAULTS = ("cannot be started: fork refused", "cannot be executed")
# The stub's manners where a fault is one of its own, in the phase that it befalls it.
CRASHES = {"loading": "load", "warming": "request"}
LEAVES = "( trap '' TERM; sleep 1000 ) >/dev/null 2>&1 &\n"
MEMORY = "echo 'E ggml_cuda: cudaMalloc failed: out of memory' >&2; exit 1\n"


@dataclass
class Cell:
    """One under play. `waits` is the call whose end is the code."""

    fault: str
    phase: str
    name: str = ""
    pid: int = 0
    waits: asyncio.Task[str] | None = None
    blocker: str = ""


@dataclass
class Stage:
    """A daemon whose engine is a script that each cell writes anew."""

    daemon: Gpud
    engine: Path
    refusal: Path  # while it is there, the daemon starts no program
    held: Path
    model: Path = field(init=False)
    whole: Path = field(init=False)

    def __post_init__(self) -> None:
        self.model = self.daemon.directory / "models" / "tiny.gguf"
        self.whole = self.daemon.directory / "whole.gguf"
        shutil.copy(self.model, self.whole)

    async def play(self, fault: str, phase: str) -> Expected:
        """What is seen; then nothing of it is left."""
        cell = Cell(fault, phase)
        self._set_up(cell)
        async with calling(self.daemon) as api:
            try:
                await self._enter(api, cell)
                await self._befall(api, cell)
                return await self._seen(api, cell)
            finally:
                await self._clear(api)

    # The engine and the file.

    def _set_up(self, cell: Cell) -> None:
        for path in (self.refusal, self.held):
            path.unlink(missing_ok=True)
        self._write_file(self.whole)
        manners: list[str] = []
        if cell.phase in CRASHES and cell.fault == "exits":
            manners += ["--crash-at", CRASHES[cell.phase]]
        if cell.phase == "loading" and cell.fault not in {"exits", "says that memory is out"}:
            manners += ["--hold", str(self.held)]
        if cell.phase == "warming":
            manners += ["--answer-after", str(self.held)]
        if cell.fault == "ignores SIGTERM" or cell.phase == "stopping":
            manners += ["--ignore-term"]
        self._write_engine(manners, before=LEAVES if "descendant" in cell.fault else "")
        if cell.fault == "says that memory is out" and cell.phase == "loading":
            self._spoil_engine(MEMORY)

    def _write_engine(self, manners: list[str], before: str = "") -> None:
        """Executed anew by every start: the daemon looks at the file each time."""
        stub = write_stub(self.engine.parent / "stub", *manners)
        self._write_script(f'case "$*" in *--port*) {before or ":"}\n;; esac\nexec {stub} "$@"\n')

    def _spoil_engine(self, instead: str) -> None:
        """As before to who asks for its help; another when it is to serve."""
        stub = self.engine.parent / "stub" / "llama-server"
        self._write_script(f'case "$*" in *--port*) {instead}\n;; esac\nexec {stub} "$@"\n')

    def _write_script(self, body: str) -> None:
        fresh = self.engine.with_suffix(".new")
        fresh.write_text(f"#!/bin/sh\n{body}")
        fresh.chmod(0o755)
        fresh.replace(self.engine)

    def _write_file(self, source: Path) -> None:
        fresh = self.model.with_suffix(".new")
        shutil.copy(source, fresh)
        fresh.replace(self.model)

    # Into the phase.

    async def _enter(self, api: Api, cell: Cell) -> None:
        if cell.phase == "verifying":
            return
        if cell.phase == "starting":
            await self._wait_for_its_turn(api, cell)
            return
        if cell.phase in {"loading", "warming"}:
            await self._begin(api, cell)
            return
        made = await load(api)
        cell.name, cell.pid = made.name, made.pid
        if cell.phase == "healing":
            os.kill(made.pid, signal.SIGKILL)
            await reaches(api, made.name, BACKOFF)
        elif cell.phase == "stopping":
            cell.waits = asyncio.ensure_future(self._unloaded(api, made.name))
            await reaches(api, made.name, pb.INSTANCE_STATE_STOPPING)
        elif cell.phase == "recovering":
            await asyncio.to_thread(self.daemon.kill)

    async def _wait_for_its_turn(self, api: Api, cell: Cell) -> None:
        """Verified and promised; another load on its device has not come to its end."""
        self._write_engine(["--hold", str(self.held)])
        blocker = await self._begin(api, Cell("", "loading"))
        cell.blocker = blocker
        cell.waits = asyncio.ensure_future(self._loaded(api, cell, owner="bert"))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await asyncio.sleep(0, cell.name) or not await self._waits(api, cell.name):
                pass

    async def _waits(self, api: Api, name: str) -> bool:
        now = await api.instances.GetInstance(pb.GetInstanceRequest(name=name))
        return bool(now.instance.state == pb.INSTANCE_STATE_STARTING)

    async def _begin(self, api: Api, cell: Cell) -> str:
        """A load, until it is in the phase and has a process; its name."""
        wanted = pb.LOAD_PHASE_WARMUP if cell.phase == "warming" else pb.LOAD_PHASE_LOAD
        reached = asyncio.Event()
        cell.waits = asyncio.ensure_future(self._loaded(api, cell, wanted=wanted, reached=reached))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await reached.wait()
        return cell.name

    async def _loaded(
        self,
        api: Api,
        cell: Cell,
        *,
        owner: str = "",
        wanted: int = 0,
        reached: asyncio.Event | None = None,
    ) -> str:
        """How the load ends."""
        request = pb.LoadModelRequest(model="tiny", devices=["host"], owner=owner)
        try:
            async for told in api.instances.LoadModel(request):
                cell.name, cell.pid = told.instance.name, told.instance.pid
                if reached is not None and told.phase >= wanted and cell.pid:
                    reached.set()
        except grpc.aio.AioRpcError as error:
            refusal = refusal_of(error)
            return f"{refusal.code.name} {refusal.reason}"
        finally:
            if reached is not None:
                reached.set()
        return "OK"

    async def _unloaded(self, api: Api, name: str) -> str:
        try:
            await unload(api, instance=name)
        except grpc.aio.AioRpcError as error:
            refusal = refusal_of(error)
            return f"{refusal.code.name} {refusal.reason}"
        return "OK"

    # The fault.

    async def _befall(self, api: Api, cell: Cell) -> None:
        if cell.fault in FILE_FAULTS:
            self._spoil_file(cell.fault)
        elif cell.fault in START_FAULTS:
            await self._refuse_starts(api, cell)
        else:
            self._harm_engine(cell)
        if cell.phase == "verifying":
            cell.waits = asyncio.ensure_future(self._loaded(api, cell))
        if cell.phase == "recovering" and cell.fault not in START_FAULTS:
            await asyncio.to_thread(self.daemon.start)
        if cell.phase not in {"loading", "stopping"} or cell.fault == "is slow":
            self.held.touch()

    def _spoil_file(self, fault: str) -> None:
        if fault == "file gone":
            self.model.unlink()
        elif fault == "file cut short":
            os.truncate(self.model, self.model.stat().st_size // 2)
        else:
            other = self.daemon.directory / "other.gguf"
            phantoms.write_tiny(other, "--layers", "1")
            self._write_file(other)

    async def _refuse_starts(self, api: Api, cell: Cell) -> None:
        """Until its failure is told; where it is healed, the cause goes away then."""
        if "fork" in cell.fault:
            self.refusal.touch()
        else:
            self._spoil_engine("exec /nonexistent/engine")
            self.engine.chmod(0o644)
        if cell.phase == "recovering":
            os.kill(cell.pid, signal.SIGKILL)
            await asyncio.to_thread(self.daemon.start)
        if cell.phase in {"healing", "recovering"}:
            await self._fails_again(cell)
            self.refusal.unlink(missing_ok=True)
            self._write_engine([])

    async def _fails_again(self, cell: Cell) -> None:
        async with calling(self.daemon) as api:
            watch = api.instances.WatchInstance(pb.WatchInstanceRequest(name=cell.name))
            async with asyncio.timeout(PATIENCE_SECONDS):
                async for told in watch:
                    reason = told.instance.health.reason
                    if told.instance.state == BACKOFF and any(w in reason for w in REFUSALS):
                        return

    def _harm_engine(self, cell: Cell) -> None:
        pid = cell.pid
        if cell.fault in {"is killed", "leaves a descendant behind"}:
            kill(pid, signal.SIGKILL)
        elif cell.fault == "is stopped in its tracks":
            stop_tree(pid)
        elif cell.fault == "exits" and cell.phase in {"ready", "recovering"}:
            kill(pid, signal.SIGTERM)  # to which it answers with the code 0
        elif cell.fault == "exits" and cell.phase == "healing":
            self._spoil_engine("exit 3")
        elif cell.fault == "says that memory is out" and cell.phase != "loading":
            self._spoil_engine(MEMORY)
            append(self._output(cell), "E cudaMalloc failed: out of memory\n")
            kill(pid, signal.SIGABRT)

    def _output(self, cell: Cell) -> Path:
        folder = cell.name.removeprefix("instances/")
        return self.daemon.state / "instances" / folder / "output.log"

    # What is seen.

    async def _seen(self, api: Api, cell: Cell) -> Expected:
        code = "OK"
        if cell.waits is not None:
            async with asyncio.timeout(PATIENCE_SECONDS):
                code = await cell.waits
        async with calling(self.daemon) as fresh:
            now = await self._settled(fresh, cell)
            types = await event_types(fresh, cell.name)
            shown = await self._held(fresh, now.reservation)
            leaked = (await books(fresh))["host"][1]
        state = pb.InstanceState.Name(now.state).removeprefix("INSTANCE_STATE_")
        return Expected(
            state=f"{state} {now.failure.reason}".strip(),
            bytes=f"{shown}; {leaked} leaked" if leaked else shown,
            event="instance.ailing" if now.state == BACKOFF else _newest(types),
            code=code,
        )

    async def _held(self, api: Api, reservation: str) -> str:
        """Who holds bytes of its promise; another load's beside it do not count."""
        if not reservation:
            return "nothing"
        asked = reservations_pb2.GetReservationRequest(name=reservation)
        promise = (await api.reservations.GetReservation(asked)).reservation
        is_held = promise.state in HELD
        return "engine" if is_held else "nothing"

    async def _settled(self, api: Api, cell: Cell) -> pb.Instance:
        """It, once it serves for good or has ended."""
        was_harmed = cell.phase in {"ready", "healing", "recovering"}
        is_spared = cell.fault in {"is slow"} or (
            cell.fault in FILE_FAULTS and cell.phase in {"ready", "recovering"}
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            watch = api.instances.WatchInstance(pb.WatchInstanceRequest(name=cell.name))
            async for told in watch:
                now = told.instance
                if now.state == BACKOFF and any(w in now.health.reason for w in BAD_FILE):
                    break
                is_new = is_spared and cell.phase != "healing"
                if now.state == READY and (not was_harmed or is_new or now.pid != cell.pid):
                    break
            asked = pb.GetInstanceRequest(name=cell.name)
            return (await api.instances.GetInstance(asked)).instance

    async def _clear(self, api: Api) -> None:
        self.held.touch()
        self.refusal.unlink(missing_ok=True)
        async with calling(self.daemon) as fresh:
            listed = await fresh.instances.ListInstances(pb.ListInstancesRequest(page_size=1000))
            for each in listed.instances:
                if each.state not in {STOPPED, FAILED}:
                    await unload(fresh, instance=each.name, force=True)
            left = (await books(fresh))["host"], self.daemon.leftovers()
        assert left == ((0, 0), []), f"left behind: {left}"


# Of what is told of an engine, what the matrix speaks of.
_TOLD = (
    "instance.failed", "instance.ended", "instance.healed", "instance.adopted", "instance.ready",
)  # fmt: skip


def _newest(types: list[str]) -> str:
    """The one that says most: a failure is followed by its end."""
    found = [each for each in types if each in _TOLD]
    return (
        next((each for each in _TOLD if each in found and each != "instance.ended"), "")
        if ("instance.failed" in found)
        else (found[-1] if found else f"only {types}")
    )


def kill(pid: int, number: int) -> None:
    if pid:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def stop_tree(pid: int) -> None:
    process = psutil.Process(pid)
    for each in (process, *process.children(recursive=True)):
        each.send_signal(signal.SIGSTOP)


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)
