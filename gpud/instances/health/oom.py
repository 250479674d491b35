"""Whether an engine ended for want of memory: by the kernel's counts, or by its own last words."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path

from gpud.instances.instance import Exit
from gpud.instances.tree.cgroup import Cgroups

# llama.cpp's, CUDA's, PyTorch's and the C library's.
_SAID = re.compile(
    r"out of memory|OutOfMemory|OutOfDeviceMemory|insufficient memory|cudaMalloc failed"
    r"|failed to allocate|unable to allocate|Cannot allocate memory|std::bad_alloc|MemoryError"
    r"|less than requested memory",
    re.IGNORECASE,
)
# Memory that could not be locked is there all the same: a warning of a start that goes on.
_HARMLESS = re.compile(r"mlock|MEMLOCK", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class OomKills:
    """How many processes the kernel has killed for want of memory; None: it does not tell."""

    host: int | None
    own: int | None  # in the instance's own cgroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """Where the kernel counts them. `cgroups` where instances have cgroups of their own."""

    root: Path = Path("/")
    cgroups: Cgroups | None = None

    def oom_kills(self, instance_id: str) -> OomKills:
        """The counts as they are now; reading them takes some 50 µs and never waits."""
        own = None
        if self.cgroups is not None:
            own = _count(self.cgroups.events(instance_id), "oom_kill")
        return OomKills(host=_count(self.root / "proc/vmstat", "oom_kill"), own=own)


def _count(path: Path, name: str) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    found = (line.split() for line in lines)
    return next((int(words[1]) for words in found if len(words) == 2 and words[0] == name), None)


def words(exit_: Exit, before: OomKills | None, after: OomKills, lines: tuple[str, ...]) -> str:
    """How it is known that it ended for want of memory; empty: it is not.

    Of a SIGKILL the kernel's counts tell: by the instance's own cgroup for certain, by the host's
    in all likelihood. Of an end of its own making, an error's code or SIGABRT, its last words do;
    `lines` are those since it served, where it did: what was said of a start is over by then.
    """
    if exit_.signal == signal.SIGKILL and before is not None:
        if _grew(before.own, after.own):
            return "killed by the kernel, its cgroup's memory was used up"
        if _grew(before.host, after.host):
            return "killed by the kernel, the host was out of memory"
    if not exit_.code and exit_.signal != signal.SIGABRT:
        return ""
    said = next((line for line in reversed(lines) if _tells(line)), "")
    return f"it said: {said.strip()[:200]}" if said else ""


def _tells(line: str) -> bool:
    return bool(_SAID.search(line)) and not _HARMLESS.search(line)


def _grew(before: int | None, after: int | None) -> bool:
    return before is not None and after is not None and after > before
