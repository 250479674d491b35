"""S18: how long a daemon takes to be back, with ten thousand promises and eight engines to find.

From the start of its process, after a SIGKILL, until it says that it serves: by then each engine
is adopted. Beside it, with nothing to find, a daemon that starts anew.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from gpud.v1 import instances_pb2 as pb
from gpud.v1 import instances_pb2_grpc
from tests.bench.loading import ENGINE, LIMIT_SECONDS, ROOT, engine_binary
from tests.bench.measure import Bar, Comparison, Result, Unit
from tests.bench.reserving import reserve
from tests.bench.servers import CARDS, Server, gpud, gpud_again

# Of the whole time: the daemon that starts anew is only told.
S18 = Bar(must=3.0, aim=1.0, comparison=Comparison.DIFFERENCE)
PROMISES = 10_000
ENGINES = 8
CLIENTS = 64


async def measure(folder: Path, rounds: int) -> list[Result]:
    """Fill it, load, then kill it and start it again, round after round."""
    folder.mkdir(parents=True)
    subprocess.run(
        [sys.executable, str(ROOT / "packaging" / "tiny_model.py"), str(folder / "tiny.gguf")],
        check=True,
        timeout=LIMIT_SECONDS,
        stdout=subprocess.DEVNULL,
    )
    engine = ENGINE.format(binary=engine_binary(), root=folder)
    full, anew, began = folder / "full", [], 0.0
    async with gpud(full, CARDS + engine) as server:
        await reserve(server, PROMISES, CLIENTS)
        pids = [await _load(server, number) for number in range(ENGINES)]
        server.process.kill()
        server.process.wait()
    spans = []
    for number in range(rounds):
        began = time.perf_counter()
        async with gpud_again(full) as server:
            spans.append(time.perf_counter() - began)
            await _check(server, pids)
            if number == rounds - 1:
                await _unload(server)
            server.process.kill()
            server.process.wait()
        began = time.perf_counter()
        async with gpud(folder / f"anew-{number}", CARDS):
            anew.append(time.perf_counter() - began)
    return [
        Result(
            row="S18",
            quantity=f"restart to READY, {PROMISES} promises and {ENGINES} engines adopted",
            unit=Unit.MILLISECONDS,
            rounds=tuple((span, 0.0) for span in spans),
            bar=S18,
            details={"anew_seconds": sorted(anew)[len(anew) // 2], "most_seconds": max(spans)},
        )
    ]


async def _load(server: Server, number: int) -> int:
    """The pid of an engine that serves."""
    stub = instances_pb2_grpc.InstanceServiceStub(server.channel)
    request = pb.LoadModelRequest(model="tiny", devices=["host"], owner=f"bench{number}")
    told = [each async for each in stub.LoadModel(request, timeout=LIMIT_SECONDS)]
    return int(told[-1].instance.pid)


async def _check(server: Server, pids: list[int]) -> None:
    """The same processes serve. Raises RuntimeError."""
    stub = instances_pb2_grpc.InstanceServiceStub(server.channel)
    listed = (await stub.ListInstances(pb.ListInstancesRequest())).instances
    ready = sorted(each.pid for each in listed if each.state == pb.INSTANCE_STATE_READY)
    if ready != sorted(pids):
        raise RuntimeError(f"{len(ready)} of {ENGINES} engines were adopted")


async def _unload(server: Server) -> None:
    stub = instances_pb2_grpc.InstanceServiceStub(server.channel)
    listed = (await stub.ListInstances(pb.ListInstancesRequest())).instances

    async def unload(name: str) -> None:
        async for _ in stub.UnloadModel(pb.UnloadModelRequest(instance=name, force=True)):
            pass

    await asyncio.gather(*(unload(each.name) for each in listed))
