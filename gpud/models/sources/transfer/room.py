"""Whether a disk has the room for a download, what others are on their way to fill left out."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpud.models.sources.refusals import DiskInsufficient


class Room:
    """The bytes that downloads under way are still to bring; from any thread."""

    def __init__(self, keep_free_bytes: int) -> None:
        """`keep_free_bytes` no download may take: the store has to be written, come what may."""
        self._keep_free_bytes = keep_free_bytes
        self._lock = threading.Lock()
        self._to_come: dict[Path, tuple[int, int]] = {}  # by place: filesystem, bytes

    def check(self, place: Path, needed_bytes: int) -> None:
        """Claim the room for what is to come at `place`, anew. Raises DiskInsufficient."""
        with self._lock:
            filesystem = self._look(place, needed_bytes)
            self._to_come[place] = (filesystem, needed_bytes)

    def look(self, place: Path, needed_bytes: int) -> None:
        """Whether so much has room, claiming nothing. Raises DiskInsufficient."""
        with self._lock:
            self._look(place, needed_bytes)

    def _look(self, place: Path, needed_bytes: int) -> int:
        """The number of the filesystem."""
        status = os.statvfs(place.parent)
        filesystem, free = place.parent.stat().st_dev, status.f_bavail * status.f_frsize
        others = sum(
            to_come
            for claimed, (where, to_come) in self._to_come.items()
            if where == filesystem and claimed != place
        )
        if free - others - self._keep_free_bytes < needed_bytes:
            raise DiskInsufficient(
                folder=str(place.parent),
                needed_bytes=needed_bytes,
                free_bytes=free,
                promised_bytes=others,
                kept_bytes=self._keep_free_bytes,
            )
        return filesystem

    @contextmanager
    def claiming(self, place: Path) -> Iterator[None]:
        """What is claimed for `place` in here is given back at the end."""
        try:
            yield
        finally:
            with self._lock:
                self._to_come.pop(place, None)
