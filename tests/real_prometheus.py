"""The real Prometheus, for the tests that ask it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
MISSING = "no prometheus and promtool: run packaging/get_prometheus.sh, or set $PROMETHEUS_BIN"


def find_prometheus() -> Path | None:
    """$PROMETHEUS_BIN, else the folder of the one on PATH, else the project's own."""
    program = shutil.which("prometheus")
    named = os.environ.get("PROMETHEUS_BIN") or (str(Path(program).parent) if program else "")
    folder = Path(named) if named else ROOT / ".build" / "prometheus"
    programs = (folder / "prometheus", folder / "promtool")
    return folder if all(each.exists() for each in programs) else None
