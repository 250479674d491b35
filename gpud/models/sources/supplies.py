"""Everything about where models come from, as one part: downloads, sums, registered entries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gpud.clock import Clock
from gpud.events import Event
from gpud.models.catalogue import Catalogue
from gpud.models.model import Model
from gpud.models.sources import checksums, fetching, registered, remains
from gpud.models.sources.checksums import Checksums
from gpud.models.sources.entry import Places
from gpud.models.sources.fetching import Fetching
from gpud.models.sources.jobs import Jobs
from gpud.models.sources.registered import Commit, Registry
from gpud.models.sources.transfer.download import Terms
from gpud.store import Committed, Row

# A disk and a network are shared anyway: more at once would only make each one later.
DOWNLOADS_AT_ONCE = 4
# Those before it may bring hundreds of gigabytes over a slow line.
DOWNLOAD_WAIT_SECONDS = 12 * 3600.0
# Apart from the downloads: no file waits for a slow server.
SUMS_AT_ONCE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """How it is made durable, and whether the store can be written now."""

    commit: Commit
    is_writable: Callable[[], bool]


class Supplies:
    """Built by the daemon; its two parts are what the others speak to."""

    def __init__(
        self, catalogue: Catalogue, places: Places, terms: Terms, keeping: Keeping, clock: Clock
    ) -> None:
        self._keeping = keeping
        sums = Jobs(clock, SUMS_AT_ONCE)
        self._checksums = Checksums(sums, self._keep, lambda: clock.now().wall)
        downloads = Jobs(clock, DOWNLOADS_AT_ONCE, DOWNLOAD_WAIT_SECONDS)
        self.fetching = Fetching(
            places.download_dir, terms, downloads, self._checksums, self._keep
        )
        self.fetching.note = self._note
        self._clock = clock
        self.registry = Registry(catalogue, keeping.commit, clock, places)

    def restore(self, read_rows: Callable[[str], Iterable[tuple[str, bytes]]]) -> None:
        """What an earlier life of the daemon knew; `read_rows` has the records of a kind."""
        self.registry.restore(read_rows(registered.ROW_KIND))
        self._checksums.restore(read_rows(checksums.ROW_KIND))
        self.fetching.restore(read_rows(fetching.ROW_KIND), read_rows(remains.BEGUN_ROW))

    async def sweep(self) -> None:
        """Remove what an earlier life of the daemon was to, and did not come to."""
        await self.fetching.sweep(self.registry.wants)

    def _note(self, type_: str, model: Model, reason: str) -> None:
        """What became of a download; a full disk keeps its room for releases."""
        if self._keeping.is_writable():
            wall = self._clock.now().wall
            event = Event(wall=wall, type=type_, subject=model.name, reason=reason)
            _ = self._keeping.commit((event,), (), lambda: None)

    def _keep(self, rows: tuple[Row, ...]) -> asyncio.Future[Committed] | None:
        """Sums only save time: a full disk keeps its room for releases."""
        if not self._keeping.is_writable():
            return None
        return self._keeping.commit((), rows, lambda: None)
