"""A /proc of the test's own, and real processes that hold memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

_HOG = """
import sys
held = bytearray(b"x") * int(sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
"""


class ProcTree:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.proc = root / "proc"
        self.proc.mkdir(parents=True)

    def add(
        self,
        pid: int,
        parent: int = 1,
        name: str = "engine",
        started_seconds: float = 0.0,
        resident_kib: int = 0,
        **environment: str,
    ) -> None:
        folder = self.proc / str(pid)
        folder.mkdir()
        rest = " 0" * 17
        start = int(started_seconds * TICKS_PER_SECOND)
        (folder / "stat").write_text(f"{pid} ({name}) S {parent}{rest} {start} 0 0\n")
        self.hold(pid, resident_kib)
        self.exec(pid, **environment)

    def hold(self, pid: int, resident_kib: int, locked_kib: int = 0) -> None:
        figures = {"VmLck": locked_kib, "RssAnon": resident_kib, "RssFile": 999, "RssShmem": 4}
        lines = "".join(f"{name}:\t{kib} kB\n" for name, kib in figures.items())
        status = f"Name:\tx\n{lines}"
        (self.proc / str(pid) / "status").write_text(status)

    def exec(self, pid: int, **environment: str) -> None:
        lines = "".join(f"{name}={value}\0" for name, value in environment.items())
        (self.proc / str(pid) / "environ").write_text(lines)

    def remove(self, pid: int) -> None:
        shutil.rmtree(self.proc / str(pid))

    def meminfo(self, total_kib: int, available_kib: int) -> None:
        self.write(
            "proc/meminfo",
            f"MemTotal: {total_kib} kB\nMemFree: 1 kB\nMemAvailable: {available_kib} kB\n"
            "SwapTotal: 100 kB\nSwapFree: 60 kB\nHugePages_Total: 0\n",
        )

    def write(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


@contextmanager
def hog(size_bytes: int = 0, **environment: str) -> Iterator[int]:
    """A real process that holds so much memory; its pid."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", _HOG, str(size_bytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
        process.kill()
