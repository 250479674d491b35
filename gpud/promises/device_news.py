"""What happens to devices, and drivers, told in the journal; once that can be written."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from gpud.devices.crossings import crossings, driver_events, missing
from gpud.devices.host_pressure import squeeze_events
from gpud.devices.snapshot import Snapshot
from gpud.ledger.change import Change
from gpud.promises.promises import Promises

log = structlog.get_logger()


class DeviceNews:
    """Compares each snapshot with the one that was told last."""

    def __init__(self, promises: Promises, is_writable: Callable[[], bool]) -> None:
        self._promises = promises
        self._is_writable = is_writable
        self._told: Snapshot | None = None  # in the journal
        self._seen: Snapshot | None = None

    def see(self, snapshot: Snapshot) -> None:
        """Tell what is new, and wake whoever waits for a promise on a device that changed."""
        # A full disk keeps its room for releases: until then the log alone is told.
        is_writable = self._is_writable()
        before = self._told if is_writable else self._seen
        self._seen = snapshot
        books = self._promises.durable
        events = crossings(before, snapshot, lambda uuid: books.device(uuid).holders)
        if snapshot.complete and not (before and before.complete):
            promised = {uuid: book.holders for uuid, book in books.devices().items()}
            events += missing(snapshot, promised)
        for event in events:
            uuid = event.subject.removeprefix("devices/")
            self._promises.watchers.wake(tuple(books.device(uuid).holders))
        events += (*driver_events(before, snapshot), *squeeze_events(snapshot))
        if is_writable:
            self._told = snapshot
            if events:
                self._promises.post(Change(events=events))
            return
        for event in events:
            log.warning(event.type, subject=event.subject, reason=event.reason)
