"""What this process has open beneath a folder: what was opened is closed again."""

from __future__ import annotations

import os
from pathlib import Path


def open_under(folder: Path) -> list[str]:
    """Whatever else comes and goes in the process, by a garbage collection for one."""
    return [
        target
        for target in descriptors(os.getpid()).values()
        if target == str(folder) or target.startswith(f"{folder}/")
    ]


def descriptors(pid: int) -> dict[int, str]:
    """What each of a process's descriptors is."""
    found = {}
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(number)] = os.readlink(f"/proc/{pid}/fd/{number}")
        except FileNotFoundError:
            continue  # the listing's own, or closed meanwhile
    return found
