"""S14: how much longer a load through gpud takes than the engine itself.

The engine by hand gets the argv and the environment that gpud gave it, on another port, and is
asked for /health without pause. Loads alternate, so both find the same warm file cache.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from gpud.v1 import instances_pb2 as pb
from gpud.v1 import instances_pb2_grpc
from tests.bench.measure import Bar, Comparison, Result, Unit, percentile
from tests.bench.servers import Server, gpud
from tests.real_engine import MISSING, find_server

ROOT = Path(__file__).parent.parent.parent
# The spread of a load is as wide as what is looked for.
EXTRA_ROUNDS = 2
LIMIT_SECONDS = 60.0
HAND_POLL_SECONDS = 0.001
S14 = Bar(must=0.150, aim=0.050, comparison=Comparison.DIFFERENCE)

ENGINE = """\
[engines.llama_cpp]
binary = "{binary}"
[models]
roots = ["{root}"]
[models.tiny]
engine = "llama_cpp"
path = "tiny.gguf"
context_length = 512
parallel = 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """One load through gpud: seconds to READY, and of each phase; what the engine was given."""

    seconds: float
    phases: dict[str, float]
    argv: tuple[str, ...]
    environment: dict[str, str]


async def measure(folder: Path, rounds: int) -> list[Result]:
    """Load and unload through gpud, then the same engine by hand."""
    binary = engine_binary()
    folder.mkdir(parents=True)
    subprocess.run(
        [sys.executable, str(ROOT / "packaging" / "tiny_model.py"), str(folder / "tiny.gguf")],
        check=True,
        timeout=LIMIT_SECONDS,
        stdout=subprocess.DEVNULL,
    )
    more = ENGINE.format(binary=binary, root=folder)
    pairs = []
    async with gpud(folder / "gpud", more) as server:
        for _ in range(rounds + EXTRA_ROUNDS + 1):
            loaded = await _load(server)
            pairs.append((loaded, await asyncio.to_thread(_by_hand, loaded)))
    pairs = pairs[1:]
    return [
        Result(
            row="S14",
            quantity="load to READY − the engine by hand to /health",
            unit=Unit.MILLISECONDS,
            rounds=tuple((loaded.seconds, hand) for loaded, hand in pairs),
            bar=S14,
            details=_details([loaded for loaded, _ in pairs]),
        )
    ]


def engine_binary() -> str:
    """The llama-server to use. Raises FileNotFoundError."""
    found = find_server()
    if found is None:
        raise FileNotFoundError(MISSING)
    return str(found)


async def _load(server: Server) -> Loaded:
    stub = instances_pb2_grpc.InstanceServiceStub(server.channel)
    request = pb.LoadModelRequest(model="models/tiny", devices=["host"], owner="bench")
    began, seconds = time.perf_counter(), None
    last = pb.LoadModelResponse()
    async for last in stub.LoadModel(request, timeout=LIMIT_SECONDS):
        if last.phase == pb.LOAD_PHASE_READY:
            seconds = time.perf_counter() - began
    if seconds is None:
        raise RuntimeError(f"the load ended in {pb.LoadPhase.Name(last.phase)}: {last.detail}")
    process = Path(f"/proc/{last.instance.pid}")
    loaded = Loaded(
        seconds=seconds,
        phases={
            pb.LoadPhase.Name(each.phase).removeprefix("LOAD_PHASE_").lower(): (
                each.duration.ToTimedelta().total_seconds()
            )
            for each in last.instance.phases
        },
        argv=_argv(process),
        environment=dict(each.split("=", 1) for each in _fields(process / "environ")),
    )
    unload = pb.UnloadModelRequest(instance=last.instance.name)
    async for _ in stub.UnloadModel(unload, timeout=LIMIT_SECONDS):
        pass
    return loaded


def _argv(process: Path) -> tuple[str, ...]:
    """As it was executed, but for its model: what it inherited open, the file itself here."""
    argv = list(_fields(process / "cmdline"))
    at = argv.index("--model") + 1
    handed = Path(argv[at]).readlink().name
    argv[at] = str((process / "fd" / handed).readlink())
    return tuple(argv)


def _by_hand(loaded: Loaded) -> float:
    """Seconds from the start of the process to the first 200 of /health."""
    port = _free_port()
    argv = list(loaded.argv)
    argv[argv.index("--port") + 1] = str(port)
    began = time.perf_counter()
    process = subprocess.Popen(
        argv,
        env=loaded.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _is_healthy(port):
            if process.poll() is not None or time.perf_counter() - began > LIMIT_SECONDS:
                raise RuntimeError(f"{argv[0]} by hand does not become healthy")
            time.sleep(HAND_POLL_SECONDS)
        return time.perf_counter() - began
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _fields(path: Path) -> tuple[str, ...]:
    return tuple(os.fsdecode(each) for each in path.read_bytes().split(b"\0") if each)


def _details(loads: list[Loaded]) -> dict[str, float]:
    phases = {
        f"{name}_seconds": statistics.median(load.phases.get(name, 0.0) for load in loads)
        for name in loads[0].phases
    }
    return phases | {"load_p99_seconds": percentile([load.seconds for load in loads], 0.99)}
