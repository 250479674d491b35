"""R6: the daemon ends in each way, in each phase of an engine's life, with none, one and three.

The real llama-server is found again by its identity: same process, same endpoint, same bytes, its
token stream never cut. After a reboot nothing runs, and the records say so.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gpud.v1 import instances_pb2 as pb
from tests.bench.compiler import compile_library
from tests.end_to_end.driving import (
    PATIENCE_SECONDS,
    books,
    event_types,
    load,
    reaches,
    streaming,
    unload,
)
from tests.proof.faults.world import World
from tests.proof.record import PROVING, record
from tests.running import Api, Gpud, calling

pytestmark = [
    pytest.mark.engine,
    pytest.mark.proof,
    pytest.mark.timeout(600),
]
MakeGpud = Callable[..., Gpud]

ADOPTED_SECONDS = 2.0  # held against in `make prove` alone: elsewhere the machine is shared
TOKENS = 15_000  # more than come during a restart, on a fast machine too
GOES_ON_PIECES = 50
ENDS = ("restart", "SIGKILL", "watchdog", "stop, then start", "reboot")
PHASES = ("loading", "ready", "stopping")
MODEL = '[models.long]\npath = "tiny.gguf"\ncontext_length = 16384\nparallel = 1\nthreads = 1\n'
READY, LOADING = pb.INSTANCE_STATE_READY, pb.INSTANCE_STATE_LOADING
STOPPED, FAILED = pb.INSTANCE_STATE_STOPPED, pb.INSTANCE_STATE_FAILED

# The real engine, once the file is not there any more. Its pid stays.
HELD = """\
#!/bin/sh
case "$*" in *--port*) while [ -e '{hold}' ]; do sleep 0.01; done ;; esac
exec '{engine}' "$@"
"""


@dataclass(frozen=True)
class Cell:
    end: str
    phase: str  # of all instances; empty where there is none
    count: int

    def __str__(self) -> str:
        return f"{self.end} × {self.phase or 'idle'} × {self.count}"


ALL = (
    *(Cell(end, "", 0) for end in ENDS),
    *(Cell(*cell) for cell in itertools.product(ENDS, PHASES, (1, 3))),
)
IN_TEST = (
    Cell("restart", "ready", 1),
    Cell("SIGKILL", "loading", 3),
    Cell("watchdog", "ready", 3),
    Cell("stop, then start", "stopping", 1),
    Cell("reboot", "ready", 1),
    Cell("reboot", "", 0),
)


@dataclass
class Play:
    """One daemon through the cells, one after the other."""

    daemon: Gpud
    world: World
    hold: Path
    slowest_seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    async def run(self, cell: Cell) -> None:
        """Into the phase, down, up again, and as it should be; then all is unloaded."""
        async with calling(self.daemon) as api, AsyncExitStack() as stack:
            before = await books(api)
            made = await self._bring(api, cell)
            streams = []
            if cell.phase == "ready":
                # Of the first alone: what generates takes a core, and the start is timed.
                streams = [await stack.enter_async_context(told(each)) for each in made[:1]]
            if cell.phase == "stopping":
                await self._begin_stops(api, made)
            held = await books(api)
            await self._go_down(cell)
            if cell.end == "stop, then start":
                for stream in streams:
                    self._need(await stream.goes_on(), cell, "cut while the daemon was away")
            await self._come_up(cell)
            await self._check(api, cell, made)
            if cell.end != "reboot":
                await self._check_kept(api, cell, held, streams)
            await stack.aclose()
            if cell.end != "reboot" and cell.phase != "stopping":
                for each in made:
                    await unload(api, instance=each.name)
            self._need(await books(api) == before, cell, f"bytes left: {await books(api)}")
            self._need(self.daemon.leftovers() == [], cell, "processes left")

    async def _check_kept(
        self, api: Api, cell: Cell, held: dict[str, tuple[int, int]], streams: list[Stream]
    ) -> None:
        if cell.phase in {"ready", "loading"}:
            self._need(await books(api) == held, cell, "its bytes are others")
        for stream in streams:
            self._need(await stream.goes_on(), cell, "a token stream was cut")

    async def _bring(self, api: Api, cell: Cell) -> list[pb.Instance]:
        if cell.phase != "loading":
            return [await load(api, "long", pinned=bool(at)) for at in range(cell.count)]
        self.hold.touch()
        # On a card each: on one device they would wait for each other.
        places = ("host", "gpu0", "gpu1")[: cell.count]
        return [await self._begin_load(api, place) for place in places]

    async def _begin_load(self, api: Api, device: str) -> pb.Instance:
        call = api.instances.LoadModel(pb.LoadModelRequest(model="long", devices=[device]))
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for message in call:
                if message.instance.state == LOADING and message.instance.HasField("pid"):
                    return message.instance
        raise AssertionError("the load ended before its phase LOAD")

    async def _begin_stops(self, api: Api, made: list[pb.Instance]) -> None:
        """An engine that is stopped in its tracks hears no SIGTERM."""
        for each in made:
            os.kill(each.pid, signal.SIGSTOP)
            call = api.instances.UnloadModel(pb.UnloadModelRequest(instance=each.name))
            async with asyncio.timeout(PATIENCE_SECONDS):
                async for message in call:
                    if message.phase == pb.UNLOAD_PHASE_TERMINATE:
                        break

    async def _go_down(self, cell: Cell) -> None:
        process = self.daemon.process
        assert process is not None
        process.send_signal(
            {"SIGKILL": signal.SIGKILL, "reboot": signal.SIGKILL, "watchdog": signal.SIGABRT}.get(
                cell.end, signal.SIGTERM
            )
        )
        await asyncio.to_thread(process.wait, PATIENCE_SECONDS)
        if cell.end == "reboot":
            for pid in self.daemon.leftovers():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.world.reboot()

    async def _come_up(self, cell: Cell) -> None:
        """READY is told once every recorded instance's fate is decided."""
        began = time.monotonic()
        await asyncio.to_thread(self.daemon.start)
        seconds = time.monotonic() - began
        self.slowest_seconds = max(seconds, self.slowest_seconds)
        self._need(not PROVING or seconds <= ADOPTED_SECONDS, cell, f"took {seconds:.2f} s")

    async def _check(self, api: Api, cell: Cell, made: list[pb.Instance]) -> None:
        if cell.phase == "loading" and cell.end != "reboot":
            for each in made:
                now = await reaches(api, each.name, LOADING)
                self._need(now.pid == each.pid, cell, "another process loads")
        self.hold.unlink(missing_ok=True)
        for each in made:
            if cell.phase == "stopping":
                after = await reaches(api, each.name, STOPPED)
                self._need("instance.adopted" not in await self._told(api, each), cell, "adopted")
            elif cell.end == "reboot":
                after = await reaches(api, each.name, FAILED)
                self._need(after.failure.reason == "INSTANCE_LOST", cell, after.failure.reason)
                self._need("started anew" in after.failure.message, cell, after.failure.message)
            else:
                await self._check_adopted(api, cell, each)

    async def _check_adopted(self, api: Api, cell: Cell, before: pb.Instance) -> None:
        after = await reaches(api, before.name, READY)
        self._need(after.pid == before.pid, cell, "it is another process")
        self._need(after.restarts == 0, cell, "it was started again")
        if cell.phase == "ready":
            self._need(after.endpoint == before.endpoint, cell, "its endpoint moved")
        self._need("instance.adopted" in await self._told(api, before), cell, "not told adopted")

    async def _told(self, api: Api, each: pb.Instance) -> list[str]:
        return await event_types(api, each.name)

    def _need(self, holds: bool, cell: Cell, problem: str) -> None:
        if not holds:
            self.wrong.append(f"{cell}: {problem}")


@dataclass
class Stream:
    """A token stream, read as it comes by a task of its own."""

    pieces: list[str] = field(default_factory=list)
    is_cut: bool = False
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self, pieces: AsyncIterator[str]) -> None:
        try:
            async for piece in pieces:
                self.pieces.append(piece)
                self.came.set()
        except (ConnectionError, TimeoutError):
            self.is_cut = True
        self.came.set()

    async def goes_on(self) -> bool:
        """Whether many more come from now on, or it has come to its last token."""
        wanted = len(self.pieces) + GOES_ON_PIECES
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self.is_cut and len(self.pieces) < wanted and not self.is_whole():
                self.came.clear()
                await self.came.wait()
        return not self.is_cut

    def is_whole(self) -> bool:
        last = json.loads(self.pieces[-1]) if self.pieces else {}
        return bool(last.get("timings", {}).get("predicted_n") == TOKENS)


@asynccontextmanager
async def told(instance: pb.Instance) -> AsyncIterator[Stream]:
    """A stream from it that has begun."""
    stream = Stream()
    async with streaming(instance.endpoint, TOKENS) as pieces, asyncio.TaskGroup() as tasks:
        task = tasks.create_task(stream.read(pieces))
        await stream.came.wait()
        yield stream
        task.cancel()


@pytest.fixture
def play(modelled: MakeGpud, llama_server: Path, tmp_path: Path) -> Play:
    library, hold = tmp_path / "world.so", tmp_path / "hold"
    source = Path(__file__).parents[1] / "proof" / "faults" / "world.c"
    compile_library(source, library)
    engine = tmp_path / "llama-server"
    engine.write_text(HELD.format(hold=hold, engine=llama_server))
    engine.chmod(0o755)
    daemon = modelled(engine, models=MODEL)
    world = World(tmp_path, library)
    daemon.environment |= world.environment
    return Play(daemon=daemon.start(), world=world, hold=hold)


async def test_every_end_in_every_phase(play: Play) -> None:
    cells, began, done = (ALL if PROVING else IN_TEST), time.monotonic(), 0
    try:
        for cell in cells:
            await play.run(cell)
            done += 1
    finally:
        bad = {problem.split(":")[0] for problem in play.wrong}
        seconds = time.monotonic() - began
        record("R6 restart matrix: cells", len(cells), done, len(bad), seconds)
        print(f"the slowest start to READY took {play.slowest_seconds:.2f} s")
    assert play.wrong == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGSEGV])
async def test_the_exit_of_an_engine_that_ended_while_the_daemon_was_away(
    modelled: MakeGpud, llama_server: Path, number: int
) -> None:
    """The shim saw it: a code where it ended by itself, a signal where it was killed."""
    once = '[models.once]\npath = "tiny.gguf"\nrestart = "never"\n'
    daemon = modelled(llama_server, models=once).start()
    async with calling(daemon) as api:
        made = await load(api, "once")
        await asyncio.to_thread(daemon.kill)
        death = os.pidfd_open(made.pid)
        os.kill(made.pid, number)
        await until_readable(death)
        os.close(death)
        await asyncio.to_thread(daemon.start)
        failed = await reaches(api, made.name, FAILED)
        assert failed.failure.reason == "INSTANCE_LOST"
        if number == signal.SIGTERM:  # llama-server takes its leave
            assert failed.last_exit.HasField("code")
            assert failed.last_exit.code == 0
        else:
            assert failed.last_exit.signal == number
        assert (await books(api))["host"] == (0, 0)


async def until_readable(descriptor: int) -> None:
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ready.set)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await ready.wait()
    loop.remove_reader(descriptor)
