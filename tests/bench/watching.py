"""S6 to S9: what it costs to be followed, and what it does to whoever follows or calls.

The followers are a process of their own on the other core, so that theirs is not the time that is
measured. Lags are of the sampler's own moment, so they hold what it takes to the daemon too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.bench.answering import empty_call
from tests.bench.calls import Burst, burst
from tests.bench.measure import Bar, Result, Unit
from tests.bench.servers import (
    CARDS,
    Server,
    clean_environment,
    cpu_seconds,
    gpud,
    on_first_core,
    on_other_cores,
)

SLOW = '[sampling]\ninterval = "100ms"\n'
FAST = '[sampling]\ninterval = "10ms"\n'
S6 = Bar(must=14, aim=9)
S7 = Bar(must=5, aim=1.5)
S7_FAIR = Bar(must=1.2, aim=1.05)
S8_BYTES = 5 * 2**20
S8_AIM_BYTES = 3 * 2**20
S9 = Bar(must=3, aim=1.5)
SECONDS = 4.0
STALL_SECONDS = 60.0
CALLS = 1500


@dataclass(frozen=True, slots=True)
class Followers:
    """A process that follows."""

    process: asyncio.subprocess.Process

    async def done(self) -> dict[str, Any]:
        """What they saw."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        await self.process.wait()
        return dict(json.loads(line))


@contextlib.asynccontextmanager
async def following(socket: Path, *words: str) -> AsyncIterator[Followers]:
    """Followers of a server, once each has had its first message."""
    with on_other_cores():
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.followers", str(socket), *words,
            stdout=asyncio.subprocess.PIPE, env=clean_environment(),
        )  # fmt: skip
    try:
        assert process.stdout is not None
        said = await process.stdout.readline()
        if said != b"following\n":
            raise RuntimeError(f"the followers said {said!r}")
        yield Followers(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def measure(folder: Path, rounds: int) -> list[Result]:
    """Each with a daemon of its own: they sample at different rates."""
    folder.mkdir(parents=True)
    return [
        await _cost(folder / "s6", rounds),
        *await _overload(folder / "s7", rounds),
        await _stopped(folder / "s8"),
        await _calls_meanwhile(folder / "s9", rounds),
    ]


async def _cost(folder: Path, rounds: int) -> Result:
    """S6: server CPU per delivery."""
    pairs, details = [], {}
    async with contextlib.AsyncExitStack() as stack:
        with on_first_core():
            ours = await stack.enter_async_context(gpud(folder, CARDS + SLOW))
            size = (await _watch(ours.socket, ours.process.pid, "--streams", "1"))[1]["bytes"]
            floor = stack.enter_context(_frames(folder / "frames.sock", size))
        for _ in range(rounds):
            words = ("--streams", "100", "--seconds", str(SECONDS))
            mine, told = await _watch(ours.socket, ours.process.pid, *words)
            other, _ = await _watch(folder / "frames.sock", floor.pid, *words, "--frames")
            pairs.append((mine, other))
            details = {f"ours_{name}": told[name] for name in ("lag_p50", "lag_p99", "messages")}
    return Result(
        row="S6",
        quantity="a snapshot to each of 100 followers × 10 Hz, CPU ÷ raw frame",
        unit=Unit.MICROSECONDS,
        rounds=tuple(pairs),
        bar=S6,
        details=details,
    )


async def _watch(socket: Path, pid: int, *words: str) -> tuple[float, dict[str, Any]]:
    """The server's CPU seconds per delivery, and what the followers saw."""
    async with following(socket, "--settle", "1", *words) as followers:
        await asyncio.sleep(1.0)
        before, began = cpu_seconds(pid), time.perf_counter()
        told = await followers.done()
        # The followers' process ends some time after they have: the rest is the server's idling.
        spent = (cpu_seconds(pid) - before) * told["seconds"] / (time.perf_counter() - began)
    return spent / max(1, told["messages"]), told


@contextlib.contextmanager
def _frames(socket: Path, size: int) -> Any:
    argv = [sys.executable, "-m", "tests.bench.frames", str(socket), "--size", str(size)]
    process = subprocess.Popen(argv, env=clean_environment())
    try:
        while not socket.exists():
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        process.wait()


async def _overload(folder: Path, rounds: int) -> list[Result]:
    """S7: 1000 followers at 100 Hz against 100 of them."""
    lags, shares, details = [], [], {}
    with on_first_core():
        server = gpud(folder, CARDS + FAST)
    async with contextlib.AsyncExitStack() as stack:
        with on_first_core():
            ours = await stack.enter_async_context(server)
        for _ in range(rounds):
            few = (await _watch(ours.socket, ours.process.pid, "--streams", "100"))[1]
            many = (
                await _watch(ours.socket, ours.process.pid, "--streams", "1000", "--settle", "3")
            )[1]
            lags.append((many["lag_p99"], few["lag_p99"]))
            shares.append((float(many["most"]), float(many["least"])))
            details = {
                f"{side}_{name}": seen[name]
                for side, seen in (("many", many), ("few", few))
                for name in ("lag_p50", "lag_p99", "messages", "dropped")
            }
    return [
        Result(
            row="S7",
            quantity="1000 × 100 Hz: p99 lag ÷ that of 100 × 100 Hz",
            unit=Unit.MILLISECONDS,
            rounds=tuple(lags),
            bar=S7,
            details=details,
        ),
        Result(
            row="S7",
            quantity="  messages of one: most ÷ least",
            unit=Unit.CALLS,
            rounds=tuple(shares),
            bar=S7_FAIR,
        ),
    ]


async def _stopped(folder: Path) -> Result:
    """S8: what 50 of 100 that take no more cost; against what is allowed."""
    seconds = float(os.environ.get("GPUD_BENCH_STALL_SECONDS", STALL_SECONDS))
    words = ("--streams", "100", "--stopped", "50", "--settle", "0", "--seconds", str(seconds))
    async with contextlib.AsyncExitStack() as stack:
        with on_first_core():
            ours = await stack.enter_async_context(gpud(folder, CARDS + FAST))
        # Once before, with nobody who stops: what any hundred followers take for ever.
        await _watch(ours.socket, ours.process.pid, "--streams", "100", "--seconds", "5")
        async with following(ours.socket, *words) as followers:
            before = _resident(ours)
            half = await _after(seconds / 2, ours)
            told = await followers.done()
            after = _resident(ours)
    return Result(
        row="S8",
        quantity=f"50 of 100 stop, {seconds:g} s at 100 Hz: growth ÷ 5 MiB",
        unit=Unit.MEBIBYTES,
        rounds=((max(1.0, after - before), float(S8_BYTES)),),
        bar=Bar(must=1.0, aim=S8_AIM_BYTES / S8_BYTES),
        details={
            "second_half_bytes": float(after - half),
            "lag_p99": told["lag_p99"],
            "seconds": seconds,
        },
    )


async def _after(seconds: float, server: Server) -> int:
    await asyncio.sleep(seconds)
    return _resident(server)


def _resident(server: Server) -> int:
    return int(psutil.Process(server.process.pid).memory_info().rss)


async def _calls_meanwhile(folder: Path, rounds: int) -> Result:
    """S9: the 99th percentile of an empty call while 100 × 10 Hz are served, and while not."""
    pairs = []
    async with contextlib.AsyncExitStack() as stack:
        with on_first_core():
            ours = await stack.enter_async_context(gpud(folder, CARDS + SLOW))
        call = empty_call(ours)
        await burst(call, CALLS // 4)
        for _ in range(rounds):
            alone = await _paced(ours)
            async with following(ours.socket, "--streams", "100", "--seconds", "600"):
                beside = await _paced(ours)
            pairs.append((beside.p99, alone.p99))
    return Result(
        row="S9",
        quantity="p99 of an empty call beside 100 × 10 Hz ÷ alone",
        unit=Unit.MILLISECONDS,
        rounds=tuple(pairs),
        bar=S9,
    )


async def _paced(server: Server) -> Burst:
    """One caller that never rests: the other core is shared with the followers alike."""
    with on_other_cores():
        return await burst(empty_call(server), CALLS)
