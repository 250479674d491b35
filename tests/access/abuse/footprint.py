"""What a daemon holds: memory and file descriptors, read from the kernel."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Of one process at one moment."""

    resident_bytes: int
    descriptors: int

    @classmethod
    def of(cls, pid: int) -> Self:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
        return cls(resident_bytes=1024 * kib, descriptors=len(os.listdir(f"/proc/{pid}/fd")))

    def __str__(self) -> str:
        return f"{self.resident_bytes / MIB:.1f} MiB, {self.descriptors} descriptors"
