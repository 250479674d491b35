"""S10, S11: what a sample of eight cards takes, beside other monitors and beside a busy daemon.

All read the same stand-in for NVML, so that no card is needed: on a real one every call takes
longer, for each of them alike. What is compared is what each of them makes of the same calls. The
program that is run (`spawned.c`) opens no driver, which takes nvidia-smi 14 to 20 ms.
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from gpud.clock import SystemClock
from gpud.devices.sampling.frames import SamplerSettings
from gpud.devices.sampling.sampler import Sampler
from gpud.devices.snapshot import Snapshot
from tests.bench.compiler import COMPILE_LIMIT_SECONDS, compile_library
from tests.bench.measure import Bar, Result, Unit
from tests.bench.servers import clean_environment

ROOT = Path(__file__).parent.parent.parent
NVML = Path(__file__).parent.parent / "devices" / "nvml_standin.c"
SPAWNED = Path(__file__).with_name("spawned.c")
GET_LIMIT_SECONDS = 240.0
S10 = Bar(must=0.25, aim=0.05)
S11 = Bar(must=3.0, aim=1.3)
NO_MORE = Bar(must=1.0)
# How many in a round: gpustat sleeps while it measures, so few.
OURS, NVITOP, GPUSTAT, SPAWNS = 50, 20, 2, 50
S11_INTERVAL_SECONDS = 0.05
S11_SNAPSHOTS = 60


class NoMonitors(Exception):
    """nvitop and gpustat are not here and cannot be got."""


async def measure(folder: Path, rounds: int) -> list[Result]:
    """The monitors in turn; then our own snapshots, the daemon's loop at rest and busy in turn."""
    compile_library(NVML, folder / "nvml" / "libnvidia-ml.so.1")
    environment = {"LD_LIBRARY_PATH": str(folder / "nvml"), "NVML_STANDIN": "healthy"}
    found = await asyncio.to_thread(_beside_monitors, folder, environment, rounds)
    return [*found, await _beside_a_busy_daemon(environment, rounds)]


def _beside_monitors(folder: Path, environment: Mapping[str, str], rounds: int) -> list[Result]:
    program, python = _compiled(folder / "spawned"), _monitors()
    path = {"PYTHONPATH": str(ROOT)}
    with ExitStack() as stack:
        own = {**environment, **path}
        full = stack.enter_context(_monitor("gpud", ".venv/bin/python", own))
        usual = stack.enter_context(_monitor("gpud-each-second", ".venv/bin/python", own))
        nvitop = stack.enter_context(_monitor("nvitop", python, environment))
        gpustat = stack.enter_context(_monitor("gpustat", python, environment))
        taken = [
            (
                full.take(OURS),
                nvitop.take(NVITOP),
                gpustat.take(GPUSTAT),
                usual.take(OURS),
                _spawn(program, environment),
            )
            for _ in range(rounds)
        ]
    return [
        _result("S10", "full sample of 8 cards ÷ nvitop's", [(t[0], t[1]) for t in taken]),
        _result("S10", "full sample of 8 cards ÷ gpustat's", [(t[0], t[2]) for t in taken]),
        _result("S10", "sample each second ÷ run of a program", [(t[3], t[4]) for t in taken]),
        _result("", "CPU of a full sample ÷ nvitop's", [(t[0], t[1]) for t in taken]),
        _result("", "CPU of a full sample ÷ gpustat's", [(t[0], t[2]) for t in taken]),
    ]


def _result(row: str, quantity: str, rounds: list[tuple[Cost, Cost]]) -> Result:
    """Of a row of the targets the time, else the CPU: no more than others take."""
    pairs = tuple(
        (ours.wall, other.wall) if row else (ours.cpu, other.cpu) for ours, other in rounds
    )
    bar = S10 if row else NO_MORE
    return Result(row=row, quantity=quantity, unit=Unit.MILLISECONDS, rounds=pairs, bar=bar)


class Cost(NamedTuple):
    """Seconds of one snapshot: until it was there, and of a processor."""

    wall: float
    cpu: float


class _Monitor:
    """A process that takes snapshots when it is asked."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def take(self, count: int) -> Cost:
        """Of one, the mean of so many."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("no pipes")
        print(count, file=stdin, flush=True)
        wall, cpu = stdout.readline().split()
        return Cost(float(wall), float(cpu))


@contextmanager
def _monitor(name: str, python: str, environment: Mapping[str, str]) -> Iterator[_Monitor]:
    # By its path: the environment of the monitors knows no module of ours.
    script = Path(__file__).with_name("monitors.py")
    process = subprocess.Popen(
        [python, str(script), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=clean_environment() | dict(environment),
        cwd=ROOT,
    )
    try:
        yield _Monitor(process)
    finally:
        process.kill()
        process.communicate()


def _spawn(program: Path, environment: Mapping[str, str]) -> Cost:
    """Of one run whose output is read; the CPU is ours and the program's together."""
    told = clean_environment() | dict(environment)
    began, cpu = time.perf_counter(), _cpu()
    for _ in range(SPAWNS):
        subprocess.run([program], env=told, capture_output=True, text=True, check=True)
    return Cost((time.perf_counter() - began) / SPAWNS, (_cpu() - cpu) / SPAWNS)


def _cpu() -> float:
    """This process's and that of children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _compiled(target: Path) -> Path:
    command = ["cc", "-O2", "-o", str(target), str(SPAWNED), "-ldl"]
    subprocess.run(command, check=True, timeout=COMPILE_LIMIT_SECONDS)
    return target


def _monitors() -> str:
    got = subprocess.run(
        [ROOT / "packaging" / "get_monitors.sh"],
        capture_output=True,
        text=True,
        timeout=GET_LIMIT_SECONDS,
        check=False,
    )
    if got.returncode != 0:
        raise NoMonitors(got.stderr.strip())
    return got.stdout.splitlines()[-1]


async def _beside_a_busy_daemon(environment: Mapping[str, str], rounds: int) -> Result:
    """From the begin of a tick to the last card's turn, by the sampling process's own clock."""
    seen = _Durations()
    settings = SamplerSettings(
        nvml="on", host=False, interval_seconds=S11_INTERVAL_SECONDS, processes_every=5
    )
    os.environ.update(environment)
    sampler = Sampler(settings, SystemClock(), seen.take)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(sampler.run())
        await seen.median()
        taken = []
        for _ in range(rounds):
            idle = await seen.median()
            with _busy():
                taken.append((await seen.median(), idle))
        running.cancel()
    for name in environment:
        del os.environ[name]
    return Result(
        row="S11",
        quantity="sample of 8 cards beside a busy daemon ÷ beside one at rest",
        unit=Unit.MILLISECONDS,
        rounds=tuple(taken),
        bar=S11,
    )


class _Durations:
    """How long the sampling process took for each snapshot from now on."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._enough = asyncio.Event()

    def take(self, snapshot: Snapshot) -> None:
        if snapshot.samples:
            last = max(sample.boottime for sample in snapshot.samples)
            self._seconds.append(last - snapshot.boottime)
        if len(self._seconds) >= S11_SNAPSHOTS:
            self._enough.set()

    async def median(self) -> float:
        self._seconds.clear()
        self._enough.clear()
        await self._enough.wait()
        return statistics.median(self._seconds)


@contextmanager
def _busy() -> Iterator[None]:
    """This process computes all the while, beside its loop, as a daemon does under load."""
    over = threading.Event()

    def compute() -> None:
        while not over.is_set():
            sum(range(1000))

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
