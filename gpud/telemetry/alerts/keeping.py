"""Alerts and silences on disk: written when they change, and again where that failed.

What fires is told whether it could be written or not: the alert about a full disk cannot wait for
the disk. So memory goes before the disk here, unlike with promises.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import msgspec
import structlog

from gpud.events import Event
from gpud.ledger.change import Change
from gpud.promises.promises import Promises, encoded
from gpud.store import Row
from gpud.telemetry.alerts.alert import Alert, Silence

if TYPE_CHECKING:
    from asyncio import Future

    from gpud.store import Committed

log = structlog.get_logger()
T = TypeVar("T")

# As SqliteStore.read_rows.
ReadRows: TypeAlias = Callable[[str], Sequence[tuple[str, bytes]]]

ALERT, SILENCE = "alert", "silence"  # kinds of rows
# While nothing can be written; the oldest are then in the log alone.
MOST_EVENTS: Final = 256


class Keeping:
    """Writes alerts by their ids, and the events about them, as far as the store takes them."""

    def __init__(
        self,
        promises: Promises,
        is_writable: Callable[[], bool],
        newest: Callable[[str], Alert | None],
    ) -> None:
        """`newest`: an alert by its id, None for one that is forgotten."""
        self._promises = promises
        self._is_writable = is_writable
        self._newest = newest
        self._changed: set[str] = set()
        self._events: deque[Event] = deque()

    def read(self, rows: ReadRows) -> tuple[list[Alert], list[Silence]]:
        """What an earlier life of the daemon kept; what makes no sense is left out, and logged."""
        try:
            return _read(rows, ALERT, Alert), _read(rows, SILENCE, Silence)
        except sqlite3.Error as error:
            log.warning("alerts.unreadable", problem=str(error))
            return [], []

    def note(self, ids: Iterable[str], events: Iterable[Event] = ()) -> None:
        """These have changed; written with the next flush."""
        self._changed.update(ids)
        for event in events:
            if len(self._events) >= MOST_EVENTS:
                lost = self._events.popleft()
                log.warning(lost.type, subject=lost.subject, reason=lost.reason)
            self._events.append(event)

    def flush(self) -> None:
        """Write what waits for that; where nothing can be written, it goes on waiting."""
        if not (self._changed or self._events) or not self._is_writable():
            return
        ids, events = sorted(self._changed), tuple(self._events)
        self._changed.clear()
        self._events.clear()
        done = self._promises.commit(Change(events=events), tuple(map(self.row, ids)))

        def again(done: Future[Committed]) -> None:
            if not done.cancelled() and done.exception() is not None:
                self._events.extendleft(reversed(events))
                self._changed.update(ids)

        done.add_done_callback(again)

    def row(self, id_: str, alert: Alert | None = None) -> Row:
        """An alert as it is, or as it is to become; gone where there is none."""
        found = alert or self._newest(id_)
        return Row(kind=ALERT, id=id_, body=None if found is None else encoded(found))

    @staticmethod
    def silence_row(silence: Silence, *, gone: bool = False) -> Row:
        """A silence, or that it is no more."""
        text = f"{silence.rule}\x1f{silence.subject}"
        id_ = hashlib.sha256(text.encode()).hexdigest()[:16]
        return Row(kind=SILENCE, id=id_, body=None if gone else encoded(silence))


def _read(rows: ReadRows, kind: str, type_: type[T]) -> list[T]:
    """Those of a kind. What makes no sense is worth a warning, and stops no grant."""
    found = []
    for id_, body in rows(kind):
        try:
            found.append(msgspec.json.decode(body, type=type_))
        except (msgspec.MsgspecError, ValueError) as error:
            log.warning("alerts.unreadable", kind=kind, id=id_, problem=str(error))
    return found
