"""How full the file systems under our folders are, asked on threads that may be left behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpud.devices.snapshot import Disk

# Disks fill up over minutes.
EVERY_SECONDS = 10.0
# A file system that has not answered for so long is unknown: its server is gone, say.
FORGOTTEN_SECONDS = 60.0


@dataclass(slots=True, eq=False)
class _Watched:
    """One folder: since when it is being asked (None: it is not), and what it said last."""

    what: str
    path: str
    asked: float | None = None
    told: Disk | None = None
    told_at: float = 0.0


class DiskWatch:
    """Asks each of (what, path) every 10 s, and never waits for one.

    A network's file system may not answer for ever: then its thread stays behind, one for each
    such folder, and the others go on. `measure` blocks and raises OSError.
    """

    def __init__(
        self,
        folders: Sequence[tuple[str, str]],
        measure: Callable[[str], tuple[int, int, str]] | None = None,
    ) -> None:
        self._folders = [_Watched(what=what, path=path) for what, path in folders]
        self._measure = measure or sizes_of
        self._due = float("-inf")

    def read(self, boottime: float) -> tuple[Disk, ...]:
        """What is known at `boottime` seconds; what is due is asked for the next time."""
        if boottime >= self._due:
            self._due = boottime + EVERY_SECONDS
            for each in self._folders:
                if each.asked is None:
                    each.asked = boottime
                    threading.Thread(target=self._ask, args=(each,), daemon=True).start()
        return tuple(
            each.told
            for each in self._folders
            if each.told is not None and boottime - each.told_at < FORGOTTEN_SECONDS
        )

    def _ask(self, watched: _Watched) -> None:
        try:
            total, free, disk = self._measure(watched.path)
        except OSError:
            watched.told = None
        else:
            watched.told = Disk(
                what=watched.what,
                path=watched.path,
                total_bytes=total,
                free_bytes=free,
                disk=disk,
            )
            watched.told_at = watched.asked or 0.0
        watched.asked = None


def sizes_of(path: str) -> tuple[int, int, str]:
    """Bytes that its file system has, those free for us, who may not be root, and its device.

    Of a folder that is yet to be made, those of the nearest one above it. Raises OSError.
    """
    at = Path(path)
    while not at.exists() and at != at.parent:
        at = at.parent
    state = os.statvfs(at)
    device = at.stat().st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    return state.f_blocks * state.f_frsize, state.f_bavail * state.f_frsize, name
