"""What the kernel says of the daemon's own process. Cheap enough for each page."""

from __future__ import annotations

import os
import resource
from pathlib import Path

_PROC = Path("/proc/self")
_PAGE_BYTES = resource.getpagesize()


def cpu_seconds() -> float:
    """CPU time so far, of the daemon without its children."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def resident_bytes() -> int | None:
    """RAM that it has; None: /proc does not tell."""
    try:
        return int((_PROC / "statm").read_bytes().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return None


def open_files() -> int | None:
    """Files that it has open; None: /proc does not tell."""
    try:
        return len(os.listdir(_PROC / "fd"))  # noqa: PTH208 (a name each, and no more)
    except OSError:
        return None


def max_files() -> int | None:
    """Files that it may have open; None: as many as it likes."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
