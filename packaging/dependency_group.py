"""Prints a dependency group of pyproject.toml, one requirement a line.

Usage: python packaging/dependency_group.py NAME

For `pip install --requirement /dev/stdin`: the pip of Debian 12 knows no `--group`.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def main(name: str) -> None:
    groups: dict[str, list[str]] = tomllib.loads(PYPROJECT.read_text())["dependency-groups"]
    if name not in groups:
        raise SystemExit(f"cannot find the group {name!r}; there are {', '.join(groups)}")
    print(*groups[name], sep="\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python packaging/dependency_group.py NAME")
    main(sys.argv[1])
