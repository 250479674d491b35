"""S15: what gpud costs a host where nothing happens: eight cards, sampled once a second.

Against a script of a few lines that serves grpc and reads the same eight cards (a stand-in for
NVML, so that no card is needed) with the same calls as often. All sides idle at the same time.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from tests.bench.compiler import compile_library
from tests.bench.measure import Bar, Result, Unit
from tests.bench.servers import Server, bare, cpu_seconds, gpud

SOURCE = Path(__file__).parent.parent / "devices" / "nvml_standin.c"
SETTLE_SECONDS = 5.0
# Whole periods of the slowest thing that either side repeats, the process lists.
WINDOW_SECONDS = 5.0
S15_CPU = Bar(must=3.0, aim=1.5)
S15_MEMORY = Bar(must=4.0, aim=2.5)


async def measure(folder: Path, rounds: int) -> list[Result]:
    """CPU in windows of 5 s, then memory."""
    compile_library(SOURCE, folder / "nvml" / "libnvidia-ml.so.1")
    environment = {"LD_LIBRARY_PATH": str(folder / "nvml"), "NVML_STANDIN": "healthy"}
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        ours = await enter(gpud(folder / "gpud", "", nvml="on", environment=environment))
        script = await enter(bare(folder / "script", "--nvml", environment=environment))
        empty = await enter(bare(folder / "bare"))
        await asyncio.sleep(SETTLE_SECONDS)
        cpu = [await _shares(ours, script) for _ in range(rounds)]
        memory = [(float(_pss(ours.pids())), float(_pss(empty.pids())))]
        parts = {f"process_{i}_pss_bytes": float(_pss([p])) for i, p in enumerate(ours.pids())}
    return [
        Result(
            row="S15",
            quantity="idle CPU per second, 8 cards ÷ grpc + pynvml script",
            unit=Unit.MILLISECONDS,
            rounds=tuple((daemon + children, script) for daemon, children, script in cpu),
            bar=S15_CPU,
            details={
                "daemon_seconds": statistics.median(daemon for daemon, _, _ in cpu),
                "sampler_seconds": statistics.median(children for _, children, _ in cpu),
            },
        ),
        Result(
            row="S15",
            quantity="idle memory (PSS) ÷ grpc server",
            unit=Unit.MEBIBYTES,
            rounds=tuple(memory),
            bar=S15_MEMORY,
            details=parts,
        ),
    ]


async def _shares(ours: Server, script: Server) -> tuple[float, float, float]:
    """CPU seconds per second over one window: of the daemon, of its children, of the script."""
    groups: Sequence[Sequence[int]] = (ours.pids()[:1], ours.pids()[1:], script.pids())
    before, began = [_cpu(group) for group in groups], time.perf_counter()
    await asyncio.sleep(WINDOW_SECONDS)
    spent = [_cpu(group) - cpu for group, cpu in zip(groups, before, strict=True)]
    wall = time.perf_counter() - began
    return spent[0] / wall, spent[1] / wall, spent[2] / wall


def _cpu(pids: Sequence[int]) -> float:
    return sum(cpu_seconds(pid) for pid in pids)


def _pss(pids: Sequence[int]) -> int:
    """Bytes of memory, pages that several processes share divided among them."""
    return sum(
        int(line.split()[1]) * 1024
        for pid in pids
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        if line.startswith("Pss:")
    )
