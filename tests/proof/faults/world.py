"""The date, the time since boot and the boot that a daemon sees, set by world.c."""

from __future__ import annotations

import mmap
import struct
import time
import uuid
from pathlib import Path

AFTER_BOOT_SECONDS = 5.0


class World:
    """What the daemon sees of time; all is as it is until it is set."""

    def __init__(self, directory: Path, library: Path) -> None:
        self._boot_id = directory / "boot_id"
        offsets = directory / "world"
        offsets.write_bytes(struct.pack("dd", 0.0, 0.0))
        with offsets.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._wall = self._boottime = 0.0
        self._new_boot()
        self.environment = {
            "LD_PRELOAD": str(library),
            "WORLD": str(offsets),
            "WORLD_BOOT_ID": str(self._boot_id),
        }

    def step_wall(self, seconds: float) -> None:
        """Somebody sets the date; no other clock moves."""
        self._wall += seconds
        self._write()

    def reboot(self) -> None:
        """Another boot, and its clock starts anew; the date goes on."""
        self._boottime = AFTER_BOOT_SECONDS - time.clock_gettime(time.CLOCK_BOOTTIME)
        self._write()
        self._new_boot()

    def _new_boot(self) -> None:
        self._boot_id.write_text(f"{uuid.uuid4()}\n")

    def _write(self) -> None:
        self._map[:] = struct.pack("dd", self._wall, self._boottime)
