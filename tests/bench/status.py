"""S13: what a person waits for `gpuctl status`, from a cold start to its exit."""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.measure import Bar, Result, Unit, percentile
from tests.bench.servers import clean_environment, gpud

# A start takes a tenth of a second and varies by as much: more rounds than for the rest.
RUNS_PER_ROUND = 5
LIMIT_SECONDS = 30.0
GPUCTL = Path(sys.executable).with_name("gpuctl")
S13_PYTHON = Bar(must=13.0, aim=4.0)
S13_NVITOP = Bar(must=1.0, aim=0.3)


async def measure(folder: Path, rounds: int) -> list[Result]:
    """`gpuctl status` against the bare interpreter, and against nvitop where it is installed."""
    others = {"python -c pass": [sys.executable, "-c", "pass"]}
    bars = {"python -c pass": S13_PYTHON, "nvitop -1": S13_NVITOP}
    if importlib.util.find_spec("nvitop") is not None:
        others["nvitop -1"] = [sys.executable, "-m", "nvitop", "-1"]
    async with gpud(folder / "gpud") as server:
        environment = clean_environment() | {"GPUCTL_ADDRESS": f"unix://{server.socket}"}
        commands = {"gpuctl": [str(GPUCTL), "status"], **others}
        runs = _interleaved(commands, environment, rounds * RUNS_PER_ROUND + 1)
    return [
        Result(
            row="S13",
            quantity=f"gpuctl status, cold ÷ {name}",
            unit=Unit.MILLISECONDS,
            rounds=tuple(zip(runs["gpuctl"][1:], runs[name][1:], strict=True)),
            bar=bars[name],
            details={
                "gpuctl_p99_seconds": percentile(runs["gpuctl"][1:], 0.99),
                "other_p99_seconds": percentile(runs[name][1:], 0.99),
                "gpuctl_least_seconds": min(runs["gpuctl"]),
                "gpuctl_mean_seconds": statistics.mean(runs["gpuctl"][1:]),
            },
        )
        for name in others
    ]


def _interleaved(
    commands: Mapping[str, Sequence[str]], environment: Mapping[str, str], count: int
) -> dict[str, list[float]]:
    """Wall seconds of each command's runs; the first of each warms the file cache."""
    spans: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(count):
        for name, argv in commands.items():
            began = time.perf_counter()
            subprocess.run(
                argv,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                check=True,
                timeout=LIMIT_SECONDS,
            )
            spans[name].append(time.perf_counter() - began)
    return spans
