"""A memory cgroup for each instance, where one was delegated to gpud: in it nothing may swap.

Only v2 counts. A v1 hierarchy is the system's to manage, and has no way to hand out a part of it
(systemd: "Delegation"). The kernel wants processes in leaves alone, so a daemon that was given a
cgroup with the memory controller below it lives in a leaf of it as well, by systemd's custom in
one that DelegateSubgroup= names.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from gpud.models.model import Limits

MOUNT = "sys/fs/cgroup"
# What marks a cgroup as handed out: set by systemd with Delegate=yes, for root and for others.
DELEGATED_MARKS = ("trusted.delegate", "user.delegate")
PREFIX = "instance-"
# The kernel's own default of cpu.max: quotas count within so many microseconds.
PERIOD_MICROSECONDS = 100_000
NO_LIMITS = Limits()


class Cgroups:
    """Makes and removes the cgroups of instances below the delegated one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self, instance: str, limits: Limits = NO_LIMITS, *, swaps: bool = False) -> str:
        """A cgroup of its own, which may not swap unless it `swaps`; its folder. Raises OSError.

        Its limit of memory counts what it maps as well, which the kernel drops before it ends
        anything. That of time on the cores holds only where `has_quota` says so.
        """
        own = self._own(instance)
        own.mkdir(exist_ok=True)
        try:
            if limits.memory_bytes is not None:
                (own / "memory.max").write_text(f"{limits.memory_bytes}\n")
            if not swaps:
                (own / "memory.swap.max").write_text("0\n")
        except OSError:
            self.remove(instance)
            raise
        if limits.cpus is not None:
            self._bound_time(own, limits.cpus)
        return str(own)

    def _bound_time(self, own: Path, cpus: float) -> None:
        """As far as the controller is there, or is ours to switch on."""
        quota = own / "cpu.max"
        with suppress(OSError):
            if not quota.exists():
                (self._folder / "cgroup.subtree_control").write_text("+cpu")
            if quota.exists():
                quota.write_text(f"{round(cpus * PERIOD_MICROSECONDS)} {PERIOD_MICROSECONDS}\n")

    def has_quota(self, instance: str) -> bool:
        """Whether its time on the cores can be bounded: the controller was delegated too."""
        return (self._own(instance) / "cpu.max").exists()

    def remove(self, instance: str) -> None:
        """Once nothing of it runs any more; no error when it is not there."""
        with suppress(OSError):
            self._own(instance).rmdir()

    def events(self, instance: str) -> Path:
        """Where the kernel counts what befell its memory: high, max, oom, oom_kill."""
        return self._own(instance) / "memory.events"

    def _own(self, instance: str) -> Path:
        return self._folder / f"{PREFIX}{instance}"


def find(root: Path = Path("/")) -> Cgroups | None:
    """The cgroup below which instances may have theirs; None: none was delegated to us."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    path = next((line[3:] for line in lines if line.startswith("0::/")), None)
    if path is None or ".." in Path(path).parts:
        return None
    own = root / MOUNT / path.lstrip("/")
    for folder in (own, own.parent) if _is_delegated(own.parent) else (own,):
        if os.access(folder, os.W_OK) and _gives_memory(folder):
            return Cgroups(folder)
    return None


def _is_delegated(folder: Path) -> bool:
    for mark in DELEGATED_MARKS:
        with suppress(OSError):
            if os.getxattr(folder, mark) == b"1":
                return True
    return False


def _gives_memory(folder: Path) -> bool:
    """Whether cgroups below this one have the memory controller, switched on if it is ours to."""
    control = folder / "cgroup.subtree_control"
    try:
        if "memory" in control.read_text().split():
            return True
        if not _is_delegated(folder):
            return False
        # The kernel refuses it where processes live beside the cgroups below.
        control.write_text("+memory")
        return "memory" in control.read_text()
    except OSError:
        return False
