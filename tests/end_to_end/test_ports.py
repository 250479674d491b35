"""Somebody takes the engine's port between its choice and the real llama-server's bind."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gpud.v1 import instances_pb2 as pb
from tests.end_to_end.driving import books, event_types, instances, load, unload
from tests.running import Gpud, calling, refused_stream

pytestmark = pytest.mark.engine
MakeGpud = Callable[..., Gpud]

# What is run as the engine: tells its port to whoever is faster, then becomes the engine.
SLOW = """\
#!{python} -IS
import os, socket, sys
if "--port" in sys.argv:
    faster = socket.socket(socket.AF_UNIX)
    faster.connect("{thief}")
    faster.sendall(sys.argv[sys.argv.index("--port") + 1].encode())
    faster.recv(1)
os.execv("{engine}", ["{engine}", *sys.argv[1:]])
"""


# Leaves a child behind that has inherited its listening socket.
FORKER = """\
#!{python} -IS
import os, socket, sys, time
listener = socket.socket()
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen()
if os.fork() == 0:
    time.sleep(300)  # holds the port until it is ended
    os._exit(0)
print("the weights are damaged", flush=True)
sys.exit(3)
"""
FORKER_ENTRY = """
[models.forker]
engine = "command"
argv = ["{program}", "${{PORT}}"]
health = "/health"
device_bytes = "16MiB"
"""


@dataclass
class Thief:
    """Takes the next `times` ports; `shared`: as llama-server does, so that its bind succeeds."""

    path: Path
    times: int = 0
    shared: bool = False
    taken: list[int] = field(default_factory=list)
    held: list[socket.socket] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = int(await reader.read(16))
        if self.times > 0:
            self.times -= 1
            self.take(port)
        writer.write(b".")
        await writer.drain()
        writer.close()

    def take(self, port: int) -> None:
        listener = socket.socket()
        option = socket.SO_REUSEPORT if self.shared else socket.SO_REUSEADDR
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
        listener.bind(("127.0.0.1", port))
        # Of the connections that come to it none is answered: half of the engine's would be lost.
        listener.listen(64)
        self.taken.append(port)
        self.held.append(listener)


@asynccontextmanager
async def thieving(path: Path) -> AsyncIterator[Thief]:
    thief = Thief(path)
    server = await asyncio.start_unix_server(thief.serve, path)
    try:
        yield thief
    finally:
        server.close()
        for listener in thief.held:
            listener.close()


async def test_an_engine_whose_port_is_taken_gets_another(
    modelled: MakeGpud, llama_server: Path, tmp_path: Path
) -> None:
    slow = tmp_path / "llama-server"
    thief_at = tmp_path / "thief"
    slow.write_text(SLOW.format(python=sys.executable, thief=thief_at, engine=llama_server))
    slow.chmod(0o755)
    async with thieving(thief_at) as thief, calling(modelled(slow).start()) as api:
        for shared, times in ((False, 1), (True, 1), (False, 2)):
            thief.shared, thief.times = shared, times
            thief.taken.clear()
            made = await load(api)
            assert made.state == pb.INSTANCE_STATE_READY
            assert len(thief.taken) == times
            assert int(made.endpoint.rpartition(":")[2]) not in thief.taken
            assert [each.phase for each in made.phases] == [*range(1, 9)]
            types = await event_types(api, made.name)
            assert types.count("instance.port_taken") == times
            assert types.count("instance.ready") == 1
            await unload(api, instance=made.name)

        thief.times = 100
        thief.taken.clear()
        request = pb.LoadModelRequest(model="tiny", devices=["host"])
        refusal = await refused_stream(api.instances.LoadModel(request))
        assert refusal.reason == "PORT_TAKEN"
        assert len(set(thief.taken)) == 3
        assert refusal.metadata["port"] == str(thief.taken[-1])
        failed = (await instances(api))[-1]
        assert (failed.state, failed.failure.phase) == (
            pb.INSTANCE_STATE_FAILED,
            pb.LOAD_PHASE_LOAD,
        )
        assert (await books(api))["host"] == (0, 0)


async def test_a_socket_that_its_own_child_inherited_is_not_another_process_s(
    gpud: MakeGpud, tmp_path: Path
) -> None:
    forker = tmp_path / "forker"
    forker.write_text(FORKER.format(python=sys.executable))
    forker.chmod(0o755)
    daemon = gpud(cards=0)
    daemon.extra += FORKER_ENTRY.format(program=forker)
    daemon.config.touch()
    daemon.config.chmod(0o644)
    async with calling(daemon.start()) as api:
        request = pb.LoadModelRequest(model="forker", devices=["host"])
        refusal = await refused_stream(api.instances.LoadModel(request))
        assert refusal.reason == "ENGINE_EXITED"
        assert "exited with code 3" in refusal.message
        assert "the weights are damaged" in refusal.message
        (failed,) = await instances(api)
        assert "instance.port_taken" not in await event_types(api, failed.name)
