"""A download as a job's thread makes it, and what it leaves in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpud.clock import SystemClock
from gpud.models.sources.jobs import Control, Step
from gpud.models.sources.transfer.download import Got, Terms, Wanted, download
from gpud.models.sources.transfer.room import Room
from gpud.units import MIB
from tests.models.sources.origin import Origin


def terms(**changed: Any) -> Terms:
    said: dict[str, Any] = {
        "room": Room(0),
        "max_bytes": 64 * MIB,
        "stall_seconds": 10.0,
        "back_off_seconds": 0.001,
        "attempts": 3,
    }
    return Terms(**{**said, **changed})


def control(steps: list[Step] | None = None) -> Control:
    return Control(SystemClock(), (steps if steps is not None else []).append)


def wanted(origin: Origin, folder: Path, **changed: Any) -> Wanted:
    said: dict[str, Any] = {
        "url": origin.url, "place": folder / "tiny.gguf", "sha256": origin.sha256
    }  # fmt: skip
    return Wanted(**{**said, **changed})


def fetch(origin: Origin, folder: Path, **changed: Any) -> Got:
    """Bring the file; `changed` are terms."""
    told: list[int] = []
    return download(
        wanted(origin, folder), terms(**changed), control(), lambda done, _: told.append(done)
    )


def left(folder: Path) -> list[str]:
    """The names of what lies in a folder."""
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []
