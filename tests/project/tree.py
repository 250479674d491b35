"""The project's own files, as a maintainer sees them."""

from __future__ import annotations

import ast
import subprocess
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"
GENERATED = ROOT / "gpud" / "v1"


def project_files() -> list[Path]:
    """What git tracks, or would: nothing that is ignored. Without git, all but hidden folders."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=60,
    )
    if listed.returncode == 0:
        found = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        found = [
            path
            for path in ROOT.rglob("*")
            if not any(
                part.startswith(".") or part == "__pycache__"
                for part in path.relative_to(ROOT).parts
            )
        ]
    return sorted(path for path in found if path.is_file())


def own_modules() -> list[Path]:
    """Our Python code in gpud/ and gpuctl/; not what is generated."""
    return sorted(
        path
        for package in ("gpud", "gpuctl")
        for path in (ROOT / package).rglob("*.py")
        if GENERATED not in path.parents
    )


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())
