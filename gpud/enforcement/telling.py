"""Events of this room, told through the journal as long as that can be written."""

from __future__ import annotations

import structlog

from gpud.errors import Reconciling, StoreReadOnly
from gpud.events import Event
from gpud.promises.promises import Promises, note

log = structlog.get_logger()


def tell(promises: Promises, event: Event) -> None:
    """Post it; a full disk keeps its room for releases, so then it goes to the log alone."""
    try:
        promises.admit()
    except StoreReadOnly:
        log.warning(event.type, subject=event.subject, reason=event.reason, **event.details)
        return
    except Reconciling:
        pass  # grants wait, the journal does not
    promises.post(note(event))
