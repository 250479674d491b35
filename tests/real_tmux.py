"""The real tmux, in which tests see what a person would."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
MISSING = "no tmux: run packaging/get_tmux.sh, or set $TMUX_BIN"


def find_tmux() -> Path | None:
    """$TMUX_BIN, else the one on PATH, else the project's own."""
    found = os.environ.get("TMUX_BIN") or shutil.which("tmux")
    path = Path(found) if found else ROOT / ".build" / "tmux" / "tmux"
    return path if path.exists() else None
