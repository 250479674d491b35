"""`python -m tests.bench [--only S2,S3] [--rounds N]`: speed against floors, side by side.

Every quantity is a comparison of two sides that take turns in one run, so that a slow or busy
machine slows both. Bars are held against medians; 99th percentiles are told in the JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

# As gpud does, before grpc is imported: processes are started beside grpc's threads.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

from tests.bench import (
    against_etcd,
    answering,
    growing,
    idling,
    loading,
    rendering,
    report,
    reserving,
    restarting,
    sampling,
    status,
    watching,
)
from tests.bench.measure import Result

Measure = Callable[[Path, int], Awaitable[list[Result]]]

MEASURES: tuple[tuple[frozenset[str], Measure], ...] = (
    (frozenset({"S1"}), answering.measure),
    (frozenset({"S2", "S3", "S4"}), reserving.measure),
    (frozenset({"S5"}), against_etcd.measure),
    (frozenset({"S6", "S7", "S8", "S9"}), watching.measure),
    (frozenset({"S10", "S11"}), sampling.measure),
    (frozenset({"S12"}), rendering.measure),
    (frozenset({"S13"}), status.measure),
    (frozenset({"S14"}), loading.measure),
    (frozenset({"S15"}), idling.measure),
    (frozenset({"S17"}), growing.measure),
    (frozenset({"S18"}), restarting.measure),
)
ROUNDS = 5
LIMIT_SECONDS = 300.0


def main() -> int:
    """Measure, print, keep; 1 where something could not be measured."""
    arguments = _arguments()
    told = report.circumstances()
    began = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix="gpud-bench.") as folder,
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):
        results, failures = runner.run(_measure(arguments, Path(folder)))
    told |= {"seconds": round(time.perf_counter() - began, 1), "failures": failures}
    report.write(results, told)
    load = told["load_average"][0]
    print(f"{told['cpu']}, {told['cores']} cores, load {load:.2f}, {told['seconds']} s")
    print(report.table(results))
    print(f"medians of {arguments.rounds} rounds or more; all of them are in {report.LATEST}")
    for failure in failures:
        print(f"not measured: {failure}", file=sys.stderr)
    return 1 if failures else 0


async def _measure(arguments: argparse.Namespace, folder: Path) -> tuple[list[Result], list[str]]:
    """One after the other: what does not come off leaves the rest."""
    results: list[Result] = []
    failures: list[str] = []
    for rows, measure in MEASURES:
        wanted = rows & arguments.only if arguments.only else rows
        if not wanted:
            continue
        name = ", ".join(sorted(wanted))
        print(f"measuring {name} …", file=sys.stderr)
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                found = await measure(folder / min(wanted), arguments.rounds)
        except Exception as error:  # noqa: BLE001 — whatever it is, it is told
            traceback.print_exception(error)
            failures.append(f"{name}: {error}")
            continue
        results += [each for each in found if not each.row or each.row in wanted]
    return results, failures


def _arguments() -> argparse.Namespace:
    known = frozenset(row for rows, _ in MEASURES for row in rows)
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--only",
        type=lambda text: frozenset(text.upper().split(",")),
        default=frozenset(),
        metavar="ROWS",
        help=f"some of {', '.join(sorted(known, key=lambda row: int(row[1:])))}, with commas",
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="5 or more to be judged by")
    arguments = parser.parse_args()
    if unknown := arguments.only - known:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    if arguments.rounds < 1:
        parser.error("--rounds is below 1")
    return arguments


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The faster loop for our clients, so that the servers are what is waited for."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


if __name__ == "__main__":
    sys.exit(main())
