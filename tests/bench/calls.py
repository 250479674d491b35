"""Calls in bursts: so many by so many clients at a time, each timed."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.bench.measure import percentile

Call = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """What came of it. Times in seconds; `answers` in the order in which they came."""

    wall_seconds: float
    latencies: tuple[float, ...]
    answers: tuple[Any, ...]

    @property
    def p50(self) -> float:
        """Median latency."""
        return statistics.median(self.latencies)

    @property
    def p99(self) -> float:
        """99th percentile of latency."""
        return percentile(self.latencies, 0.99)

    @property
    def per_second(self) -> float:
        """Calls answered per second."""
        return len(self.latencies) / self.wall_seconds


async def burst(call: Call, count: int, clients: int = 1) -> Burst:
    """Call `count` times; each client waits for its answer before it calls again."""
    latencies: list[float] = []
    answers: list[Any] = []
    left = iter(range(count))

    async def client() -> None:
        for _ in left:
            began = time.perf_counter()
            answers.append(await call())
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(client())
    return Burst(
        wall_seconds=time.perf_counter() - began,
        latencies=tuple(latencies),
        answers=tuple(answers),
    )
