"""S14: how much longer a load through gpud takes than the engine itself, and an unload.

The engine by hand gets the argv and the environment that gpud gave it, on another port, and is
asked for /health without pause; then it is told to end, and waited for. Loads alternate, so both
find the same warm file cache. An unload is over when the device has shown the bytes back.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpud.engines.llama.engine import WARM_UP_TOKENS, _first_request
from gpud.models.model import EngineKind, Model, ModelKind, ModelOptions
from gpud.v1 import instances_pb2 as pb
from gpud.v1 import instances_pb2_grpc
from tests.bench.large_model import write_large
from tests.bench.measure import Bar, Comparison, Result, Unit, percentile
from tests.bench.servers import CARDS, Server, gpud
from tests.real_engine import MISSING, find_server

ROOT = Path(__file__).parent.parent.parent
# The spread of a load is as wide as what is looked for.
EXTRA_ROUNDS = 2
LIMIT_SECONDS = 60.0
HAND_POLL_SECONDS = 0.001
LARGE_MB = 160
S14 = Bar(must=0.150, aim=0.050, comparison=Comparison.DIFFERENCE)
LARGE = Bar(must=0.050, aim=0.025, comparison=Comparison.DIFFERENCE)
UNLOAD = Bar(must=0.200, aim=0.050, comparison=Comparison.DIFFERENCE)

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
LARGE_MODEL = """\
[models.large]
engine = "llama_cpp"
path = "large.gguf"
context_length = 512
parallel = 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """One load through gpud: seconds to READY, and of each phase; what the engine was given.

    `unload_seconds`: from the order to the bytes that are told to be back.
    """

    seconds: float
    unload_seconds: float
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
    write_large(folder / "large.gguf")
    more = CARDS + ENGINE.format(binary=binary, root=folder) + LARGE_MODEL
    async with gpud(folder / "gpud", more) as server:
        tiny = await _pairs(server, "tiny", "host", rounds)
        large = await _pairs(server, "large", "host", rounds)
        card = await _pairs(server, "tiny", "gpu0", rounds)
    to_ready = "load to READY − the engine by hand to /health"
    back = "unload to bytes back − the engine's own exit"
    return [
        _result(to_ready, S14, tiny, _load_sides),
        _result(
            f"load to READY − by hand to the same first tokens, {LARGE_MB} MB",
            LARGE,
            large,
            _token_sides,
        ),
        _result(f"{back}, host", UNLOAD, tiny, _unload_sides),
        _result(f"{back}, a simulated card", UNLOAD, card, _unload_sides),
    ]


async def _pairs(
    server: Server, model: str, device: str, rounds: int
) -> list[tuple[Loaded, ByHand]]:
    """Both in turn; the first round only warms up."""
    pairs = []
    for _ in range(rounds + EXTRA_ROUNDS + 1):
        loaded = await _load(server, model, device)
        pairs.append((loaded, await asyncio.to_thread(_by_hand, loaded)))
    return pairs[1:]


def _load_sides(loaded: Loaded, hand: ByHand) -> tuple[float, float]:
    return loaded.seconds, hand.ready_seconds


def _token_sides(loaded: Loaded, hand: ByHand) -> tuple[float, float]:
    return loaded.seconds, hand.tokens_seconds


def _unload_sides(loaded: Loaded, hand: ByHand) -> tuple[float, float]:
    return loaded.unload_seconds, hand.exit_seconds


def _result(
    quantity: str,
    bar: Bar,
    pairs: list[tuple[Loaded, ByHand]],
    sides: Callable[[Loaded, ByHand], tuple[float, float]],
) -> Result:
    return Result(
        row="S14",
        quantity=quantity,
        unit=Unit.MILLISECONDS,
        rounds=tuple(sides(*pair) for pair in pairs),
        bar=bar,
        details=_details([loaded for loaded, _ in pairs]),
    )


def engine_binary() -> str:
    """The llama-server to use. Raises FileNotFoundError."""
    found = find_server()
    if found is None:
        raise FileNotFoundError(MISSING)
    return str(found)


async def _load(server: Server, model: str, device: str) -> Loaded:
    stub = instances_pb2_grpc.InstanceServiceStub(server.channel)
    request = pb.LoadModelRequest(model=model, devices=[device], owner="bench")
    began, seconds = time.perf_counter(), None
    last = pb.LoadModelResponse()
    async for last in stub.LoadModel(request, timeout=LIMIT_SECONDS):
        if last.phase == pb.LOAD_PHASE_READY:
            seconds = time.perf_counter() - began
    if seconds is None:
        raise RuntimeError(f"the load ended in {pb.LoadPhase.Name(last.phase)}: {last.detail}")
    process = Path(f"/proc/{last.instance.pid}")
    argv, environment = _argv(process), _fields(process / "environ")
    unload_seconds = await _unload(stub, last.instance.name)
    return Loaded(
        seconds=seconds,
        unload_seconds=unload_seconds,
        phases={
            pb.LoadPhase.Name(each.phase).removeprefix("LOAD_PHASE_").lower(): (
                each.duration.ToTimedelta().total_seconds()
            )
            for each in last.instance.phases
        },
        argv=argv,
        environment=dict(each.split("=", 1) for each in environment),
    )


async def _unload(stub: instances_pb2_grpc.InstanceServiceStub, name: str) -> float:
    """Seconds until its bytes are back. Raises RuntimeError when they are not."""
    request, freed = pb.UnloadModelRequest(instance=name), 0
    began = time.perf_counter()
    async for told in stub.UnloadModel(request, timeout=LIMIT_SECONDS):
        freed = told.freed_bytes
    seconds = time.perf_counter() - began
    if not freed:
        raise RuntimeError(f"{name} gave nothing back")
    return seconds


def _argv(process: Path) -> tuple[str, ...]:
    """As it was executed, but for its model: what it inherited open, the file itself here."""
    argv = list(_fields(process / "cmdline"))
    at = argv.index("--model") + 1
    handed = Path(argv[at]).readlink().name
    argv[at] = str((process / "fd" / handed).readlink())
    return tuple(argv)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByHand:
    """From the start of the process to the first 200 of /health, and to the tokens that gpud asks
    for before READY; from SIGTERM to its end.
    """

    ready_seconds: float
    tokens_seconds: float
    exit_seconds: float


def _by_hand(loaded: Loaded) -> ByHand:
    """The engine alone."""
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
        ready_seconds = time.perf_counter() - began
        _ask_first_tokens(port)
        tokens_seconds = time.perf_counter() - began
        began = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        process.wait(LIMIT_SECONDS)
        return ByHand(
            ready_seconds=ready_seconds,
            tokens_seconds=tokens_seconds,
            exit_seconds=time.perf_counter() - began,
        )
    finally:
        process.kill()
        process.wait()


def _ask_first_tokens(port: int) -> None:
    """The very request that warms it up under gpud."""
    path, body = _first_request(
        Model(
            id="x",
            engine=EngineKind.LLAMA_CPP,
            kind=ModelKind.CHAT,
            path="x",
            options=ModelOptions(),
        ),
        embedding=False,
        tokens=WARM_UP_TOKENS,
    )
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_SECONDS)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"no first tokens by hand: {answer.read()[:200]!r}")
        answer.read()
    finally:
        connection.close()


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
