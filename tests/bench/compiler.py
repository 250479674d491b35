"""C libraries that stand in for what a machine does or lacks."""

from __future__ import annotations

import subprocess
from pathlib import Path

COMPILE_LIMIT_SECONDS = 60.0


def compile_library(source: Path, target: Path) -> None:
    """Compile one file of C into a shared library. Raises CalledProcessError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["cc", "-O2", "-shared", "-fPIC", "-o", str(target), str(source)],
        check=True,
        timeout=COMPILE_LIMIT_SECONDS,
    )
