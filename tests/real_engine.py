"""The real llama-server and a model for it, for every test and measurement that runs one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MISSING = "no llama-server: run packaging/get_engine.sh, or set $LLAMA_SERVER"


def find_server() -> Path | None:
    """$LLAMA_SERVER, else the one on PATH, else the project's own."""
    found = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server")
    path = Path(found) if found else ROOT / ".build" / "llama" / "llama-server"
    return path if path.exists() else None


def write_tiny(path: Path) -> Path:
    """A valid model of 1 MB that answers nonsense, with room for long answers."""
    writer = ROOT / "packaging" / "tiny_model.py"
    subprocess.run(
        [sys.executable, str(writer), str(path), "--ctx", "32768"], check=True, timeout=60
    )
    return path
