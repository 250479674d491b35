"""The table that people read, and the JSON that is kept."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.bench.measure import Bar, Comparison, Result, Unit

LATEST = Path(".build/bench/latest.json")
_PACKAGES = ("gpud", "grpcio", "protobuf", "uvloop", "msgspec", "nvidia-ml-py", "nvitop")
_HEADINGS = ("", "quantity", "ours", "other", "ratio", "must", "aim", "met")


def table(results: Iterable[Result]) -> str:
    """One line a quantity."""
    rows = [_HEADINGS, *(_cells(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def write(results: Sequence[Result], circumstances: dict[str, Any], path: Path = LATEST) -> None:
    """Everything, every round too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {**circumstances, "results": [_told(result) for result in results]}
    path.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n")


def circumstances() -> dict[str, Any]:
    """When, on what and with which versions."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "load_average": os.getloadavg(),
        "versions": {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
        | {name: version for name in _PACKAGES if (version := _version(name))},
    }


def _cells(result: Result) -> tuple[str, ...]:
    bar, unit = result.bar, result.unit
    return (
        result.row,
        result.quantity,
        _figure(result.ours, unit),
        _figure(result.other, unit),
        _compared(result.compared, bar, unit),
        _bound(bar.must, bar, unit),
        _bound(bar.aim, bar, unit),
        result.met,
    )


def _figure(value: float, unit: Unit) -> str:
    shown = unit.of(value)
    digits = 0 if shown >= 1000 else 1 if shown >= 10 else 2
    return f"{shown:.{digits}f} {unit.sign}".rstrip()


def _compared(value: float, bar: Bar, unit: Unit) -> str:
    is_difference = bar.comparison is Comparison.DIFFERENCE
    return _figure(value, unit) if is_difference else f"{value:.2f}"


def _bound(value: float | None, bar: Bar, unit: Unit) -> str:
    if value is None:
        return ""
    return f"{'≥' if bar.at_least else '≤'} {_compared(value, bar, unit)}"


def _told(result: Result) -> dict[str, Any]:
    return {
        "row": result.row,
        "quantity": result.quantity,
        "unit": "SI",
        "ours": result.ours,
        "other": result.other,
        "compared": result.compared,
        "comparison": result.bar.comparison.value,
        "must": result.bar.must,
        "aim": result.bar.aim,
        "at_least": result.bar.at_least,
        "met": result.met,
        "rounds": result.rounds,
        "details": dict(result.details),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
