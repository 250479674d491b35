"""The memory cgroup that this process runs in, v1 or v2."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gpud.devices.machine.kept import KeptFile, figure

# Limits met (high and max; failcnt in v1), and what came of it.
_EVENT_COUNTERS = ("high", "max", "oom", "oom_kill")
# cgroup v1 says "no limit" with the largest number of whole pages that fits 63 bits.
_NO_LIMIT_BYTES = 1 << 62


class Memory(NamedTuple):
    """Bytes."""

    total: int
    available: int


class _Names(NamedTuple):
    """Three files of a memory cgroup, and a field of its memory.stat."""

    limit: str
    usage: str
    events: str
    cold: str


V1 = _Names(
    "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control", "total_inactive_file"
)
V2 = _Names("memory.max", "memory.current", "memory.events", "inactive_file")
# Somebody may set another limit while we run.
LIMITS_EVERY_CALLS = 10


class _Level:
    """One directory of the hierarchy."""

    def __init__(self, folder: Path, names: _Names) -> None:
        self.limit = KeptFile(folder / names.limit)
        self.usage = KeptFile(folder / names.usage)
        self.stat = KeptFile(folder / "memory.stat")


class MemoryCgroup:
    """Its limits and counters; one that cannot be read limits nothing."""

    def __init__(self, root: Path) -> None:
        levels, self._names = _find(root)
        self._levels = [_Level(folder, self._names) for folder in levels]
        # Whose limit was the tightest, and after how many calls the limits are read again.
        self._tightest: tuple[int, _Level] | None = None
        self._calls_left = 0
        self._events = KeptFile(levels[0] / self._names.events) if levels else None
        own = self._names.limit == V1.limit and levels
        self._failures = KeptFile(levels[0] / "memory.failcnt") if own else None

    def memory(self) -> Memory | None:
        """What the tightest limit from here to the top leaves; None: no limit.

        Cold file pages do not count as held: the kernel drops them for who needs the memory, and
        the usual "working set" (kubelet, cAdvisor) leaves them out too.
        """
        if self._calls_left == 0:
            self._tightest, self._calls_left = self._find_tightest(), LIMITS_EVERY_CALLS
        self._calls_left -= 1
        if self._tightest is None:
            return None
        limit, level = self._tightest
        used = _int(level.usage.read()) or 0
        cold = figure(b"\n" + level.stat.read(), b"\n%s " % self._names.cold.encode())
        held = max(0, used - (cold or 0))
        return Memory(limit, max(0, limit - held))

    def events(self) -> dict[str, int] | None:
        """How often this cgroup came up against its limit; None where it does not tell."""
        if self._events is None:
            return None
        told = _fields(self._events.read())
        counted = {name: told[name] for name in _EVENT_COUNTERS if name in told}
        failures = _int(self._failures.read()) if self._failures is not None else None
        if failures is not None:
            counted["failcnt"] = failures
        return counted or None

    def _find_tightest(self) -> tuple[int, _Level] | None:
        tightest: tuple[int, _Level] | None = None
        for level in self._levels:
            limit = _int(level.limit.read())
            if limit is not None and limit < (tightest[0] if tightest else _NO_LIMIT_BYTES):
                tightest = limit, level
        return tightest


def _find(root: Path) -> tuple[tuple[Path, ...], _Names]:
    """The directories from the memory cgroup of this process to the top, and their names."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return (), V2
    memberships = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    for _, controllers, path in memberships:
        if "memory" in controllers.split(","):
            return _levels(root / "sys/fs/cgroup/memory", path), V1
    for hierarchy, _, path in memberships:
        if hierarchy == "0":
            return _levels(root / "sys/fs/cgroup", path), V2
    return (), V2


def _levels(mount: Path, path: str) -> tuple[Path, ...]:
    own = mount / path.lstrip("/")
    # In a container the path may be the host's while the mount already is our own cgroup.
    if ".." in Path(path).parts or not own.is_dir():
        return (mount,)
    return (own, *(level for level in own.parents if level.is_relative_to(mount)))


def _int(text: bytes) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None  # not there, hidden, or "max"


def _fields(text: bytes) -> dict[str, int]:
    """The lines `name value` of a cgroup's file; empty where it is not there."""
    try:
        pairs = [line.partition(" ") for line in text.decode().splitlines()]
        return {name: int(value) for name, _, value in pairs}
    except ValueError:
        return {}
