"""The servers under measurement: processes on Unix sockets in a temporary folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

START_LIMIT_SECONDS = 30.0
STOP_LIMIT_SECONDS = 15.0
_POLL_SECONDS = 0.02
_SERVING = health_pb2.HealthCheckResponse.SERVING

CONFIG = """\
[node]
state_dir = "{state}"
[server]
socket = "{socket}"
{listen}[devices]
nvml = "{nvml}"
host = true
"""
CARDS = """\
[[devices.simulated]]
card = "h200"
count = 8
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One that answers on its socket."""

    process: subprocess.Popen[bytes]
    channel: grpc.aio.Channel
    socket: Path
    folder: Path

    def cpu_seconds(self) -> float:
        """What its process has used so far, ended threads included, of its children nothing."""
        return cpu_seconds(self.process.pid)

    def pids(self) -> list[int]:
        """It and all its descendants."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [self.process.pid, *(child.pid for child in children)]


def cpu_seconds(pid: int) -> float:
    """A process's CPU time, to the nanosecond: /proc counts whole ticks of 10 ms."""
    # How the kernel names the CPU clock of another process (clock_getcpuclockid(3)).
    return time.clock_gettime_ns((~pid << 3) | 2) / 1e9


@contextlib.asynccontextmanager
async def gpud(
    folder: Path,
    more: str = CARDS,
    *,
    nvml: str = "off",
    listen: str = "",
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Server]:
    """`gpud run` as a service manager starts it, ready. `listen`: that line of [server]."""
    folder.mkdir(parents=True)
    socket, config = folder / "gpud.sock", folder / "gpud.toml"
    text = CONFIG.format(state=folder / "state", socket=socket, nvml=nvml, listen=listen)
    config.write_text(text + more)
    async with gpud_again(folder, environment) as server:
        yield server


@contextlib.asynccontextmanager
async def gpud_again(
    folder: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Server]:
    """One more life of it, on the state and the configuration of the last."""
    argv = [sys.executable, "-m", "gpud", "run", "--config", str(folder / "gpud.toml")]
    async with running(argv, folder / "gpud.sock", folder, environment or {}) as server:
        yield server


@contextlib.asynccontextmanager
async def bare(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Server]:
    """A minimal grpc.aio server: the floor that grpc itself sets."""
    folder.mkdir(parents=True)
    socket = folder / "bare.sock"
    argv = [sys.executable, "-m", "tests.bench.bare", str(socket), *arguments]
    async with running(argv, socket, folder, environment or {}) as server:
        yield server


@contextlib.asynccontextmanager
async def running(
    argv: list[str], socket: Path, folder: Path, environment: Mapping[str, str]
) -> AsyncIterator[Server]:
    """A program that answers grpc.health.v1 on its socket; its output is in `folder/log`."""
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=clean_environment() | dict(environment),
        )
    try:
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            await _serving(channel, process, log)
            yield Server(process=process, channel=channel, socket=socket, folder=folder)
    finally:
        _stop(process)


@contextlib.contextmanager
def on_first_core() -> Iterator[None]:
    """Who is started in here runs on the first core; who measures, `on_other_cores`.

    A server and its client on one core would take turns, in an order that no measurement repeats.
    """
    with _on(sorted(os.sched_getaffinity(0))[:1]):
        yield


@contextlib.contextmanager
def on_other_cores() -> Iterator[None]:
    """Away from the first core, where there is another."""
    cores = sorted(os.sched_getaffinity(0))
    with _on(cores[1:] or cores):
        yield


@contextlib.contextmanager
def _on(cores: list[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def clean_environment() -> dict[str, str]:
    """Ours without what would lead a program of ours elsewhere."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GPUD_", "GPUCTL_", "NOTIFY_", "WATCHDOG_"))
    }


async def _serving(channel: grpc.aio.Channel, process: subprocess.Popen[bytes], log: Path) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    deadline = time.monotonic() + START_LIMIT_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"it ended with {process.returncode}: {log.read_text()[-2000:]}")
        with contextlib.suppress(grpc.aio.AioRpcError):
            answer = await stub.Check(  # type: ignore[attr-defined]
                health_pb2.HealthCheckRequest(), timeout=1
            )
            if answer.status == _SERVING:
                return
        await asyncio.sleep(_POLL_SECONDS)
    raise RuntimeError(f"not ready in {START_LIMIT_SECONDS:g} s: {log.read_text()[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
