"""Memory that is locked, so that it is never swapped: how much may be, and how much is."""

from __future__ import annotations

import re
import resource
from pathlib import Path

CAP_IPC_LOCK = 14
_CAPABILITIES = re.compile(r"^Cap(Eff|Bnd|Amb):\s+([0-9a-f]+)$", re.MULTILINE)
_LOCKED = re.compile(r"^VmLck:\s+(\d+) kB$", re.MULTILINE)
_USER = re.compile(r"^Uid:\s+\d+\s+(\d+)", re.MULTILINE)


def limit_bytes(proc: Path = Path("/proc")) -> int | None:
    """How much an engine may lock, by the hard limit: the shim raises the soft one. None: any."""
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if hard == resource.RLIM_INFINITY or _may_lock_all(proc):
        return None
    return hard


def _may_lock_all(proc: Path) -> bool:
    """Whether what is executed by this process has CAP_IPC_LOCK: root's by right, others' if told.

    An execution keeps root's capabilities within the bounding set, and else only ambient ones.
    """
    try:
        status = (proc / "self/status").read_text()
    except OSError:
        return False
    masks = {name: int(mask, 16) for name, mask in _CAPABILITIES.findall(status)}
    user = _USER.search(status)
    is_root = user is not None and user[1] == "0"
    kept = masks.get("Eff", 0) & masks.get("Bnd", 0) if is_root else masks.get("Amb", 0)
    return bool(kept >> CAP_IPC_LOCK & 1)


def locked_bytes(pid: int, proc: Path = Path("/proc")) -> int | None:
    """How much a process has locked; None: it is gone, or hidden from us."""
    try:
        found = _LOCKED.search((proc / str(pid) / "status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
