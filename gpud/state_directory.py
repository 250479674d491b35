"""The state directory: ours, marked, and locked for as long as a daemon is at work in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from gpud.errors import StateDirectoryRefused
from gpud.failpoints import around

MARKER = "gpud-state"


@contextlib.contextmanager
def state_directory(path: Path) -> Iterator[Path]:
    """The state directory, ours and locked. Raises StateDirectoryRefused.

    Another program of the same name keeps its own files under /var/lib: without our marker a
    folder that holds anything is not ours.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make_ours(path)
        lock = (path / "lock").open("w")
    except OSError as error:
        raise StateDirectoryRefused(
            f"cannot use {path}: {(error.strerror or str(error)).lower()}; set node.state_dir"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StateDirectoryRefused(
                f"cannot use {path}: another gpud holds it; stop that one, or set node.state_dir"
            ) from error
        yield path


def _make_ours(path: Path) -> None:
    """Our marker in the folder, and both safe from a loss of power before anything else is."""
    marker = path / MARKER
    if not marker.exists():
        if any(path.iterdir()):
            raise StateDirectoryRefused(
                f"cannot use {path}: it holds files that are not gpud's; "
                "name an empty folder as node.state_dir"
            )
        for folder in path.resolve().parents:
            with contextlib.suppress(PermissionError):
                _sync(folder)
        with around("state.marker"):
            marker.write_text("The state of gpud. Removing this folder forgets all promises.\n")
    _sync(path)


def _sync(folder: Path) -> None:
    """Make the names in a folder durable; syncing a file promises nothing about its name."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
