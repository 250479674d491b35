"""Disks: one that does not answer holds up nobody."""

from __future__ import annotations

import os
import queue
import threading
from pathlib import Path

from gpud.devices.machine.disks import EVERY_SECONDS, FORGOTTEN_SECONDS, DiskWatch, sizes_of
from gpud.devices.snapshot import Disk


class Disks:
    """What folders hold, and which of them do not answer for now."""

    def __init__(self) -> None:
        self.sizes: dict[str, tuple[int, int]] = {}
        self.hanging: set[str] = set()
        self.asked: list[str] = []
        self.go = threading.Event()
        self.answered: queue.SimpleQueue[threading.Thread] = queue.SimpleQueue()

    def measure(self, path: str) -> tuple[int, int, str]:
        self.asked.append(path)
        try:
            if path in self.hanging:
                self.go.wait(30)
            if path not in self.sizes:
                raise OSError(path)
            return *self.sizes[path], "8:1"
        finally:
            self.answered.put(threading.current_thread())


def settle(disks: Disks, count: int) -> None:
    """Wait until so many calls have come back, and their threads ended."""
    for _ in range(count):
        disks.answered.get(timeout=60).join(60)


def told(watch: DiskWatch, boottime: float) -> dict[str, int]:
    return {f"{disk.what} {disk.path}": disk.free_bytes for disk in watch.read(boottime)}


def test_the_others_are_told_while_one_hangs_and_it_again_once_it_answers() -> None:
    disks = Disks()
    disks.sizes = {"/s": (100, 40), "/m": (1000, 400)}
    watch = DiskWatch((("state", "/s"), ("models", "/m")), disks.measure)
    watch.read(0.0)  # asked, and never waited for
    settle(disks, 2)
    assert told(watch, 1.0) == {"state /s": 40, "models /m": 400}
    assert len(disks.asked) == 2
    disks.hanging = {"/m"}
    disks.sizes["/s"] = (100, 30)
    watch.read(EVERY_SECONDS)
    settle(disks, 1)
    assert told(watch, EVERY_SECONDS + 1) == {"state /s": 30, "models /m": 400}
    # It is not asked a second time while it hangs, and unknown at last.
    for turn in range(2, 9):
        watch.read(turn * EVERY_SECONDS)
        settle(disks, 1)
    assert disks.asked.count("/m") == 2
    assert told(watch, FORGOTTEN_SECONDS + EVERY_SECONDS) == {"state /s": 30}
    disks.go.set()
    settle(disks, 1)
    disks.hanging.clear()
    watch.read(20 * EVERY_SECONDS)
    settle(disks, 2)
    assert told(watch, 20 * EVERY_SECONDS + 1) == {"state /s": 30, "models /m": 400}


def test_one_that_cannot_be_read_is_unknown() -> None:
    disks = Disks()
    watch = DiskWatch((("state", "/gone"),), disks.measure)
    watch.read(0.0)
    settle(disks, 1)
    assert watch.read(1.0) == ()


def test_a_folder_that_is_yet_to_be_made_lies_where_it_will(tmp_path: Path) -> None:
    total, free, disk = sizes_of(str(tmp_path / "a" / "b"))
    state, device = os.statvfs(tmp_path), tmp_path.stat().st_dev
    assert disk == f"{os.major(device)}:{os.minor(device)}"
    assert total == state.f_blocks * state.f_frsize
    assert 0 < free <= total


def test_a_real_disk(tmp_path: Path) -> None:
    disks = Disks()
    total, free, _ = sizes_of(str(tmp_path))
    disks.sizes = {str(tmp_path): (total, free)}
    watch = DiskWatch((("state", str(tmp_path)),), disks.measure)
    watch.read(0.0)
    settle(disks, 1)
    (found,) = watch.read(1.0)
    assert found == Disk(
        what="state", path=str(tmp_path), total_bytes=total, free_bytes=free, disk="8:1"
    )
