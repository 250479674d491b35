"""The HTTP side: the listener with its pages, and the file of targets, built and run as one."""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpud.entrance import Entrance
from gpud.events import Event
from gpud.http.collecting import Collector, Sources
from gpud.http.pages import Pages
from gpud.http.server import HttpServer
from gpud.http.targets_file import TargetsFile
from gpud.seeing import Sights
from gpud.telemetry.counting import CommitTimes
from gpud.telemetry.page.dcgm import DcgmPage
from gpud.telemetry.seen import Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What is shown. `state` is the node's as it was last told, and why it is not READY."""

    sights: Sights
    seen: Seen
    entrance: Entrance
    state: Callable[[], tuple[str, str]]


class Exposing:
    """Nothing is served, and nothing written, that [http] does not ask for."""

    def __init__(self, shown: Shown) -> None:
        sights, self._settings = shown.sights, shown.sights.config.http
        self._clock, self._tell = sights.house.clock, sights.tell
        self._snapshots = sights.house.snapshots
        commits = CommitTimes(self._clock)
        sights.store.timed = commits
        self._collector = Collector(
            Sources(
                house=sights.house,
                roster=sights.roster,
                store=sights.store,
                seen=shown.seen,
                access=shown.entrance.access,
                access_page=shown.entrance.metrics,
                state=shown.state,
                commits=commits,
                start_wall=self._clock.now().wall,
            )
        )
        dcgm = DcgmPage(socket.gethostname(), self._settings.dcgm_hostname_label)
        self._pages = Pages(self._collector, self._clock, shown.state, dcgm)
        self._server: HttpServer | None = None

    def bind(self) -> None:
        """Take the address, if there is one; nobody is let in yet. Raises ConfigInvalid."""
        if self._settings.listen:
            self._server = HttpServer(self._settings.listen, self._pages)

    async def start(self) -> None:
        """Begin to answer."""
        if self._server is not None:
            await self._server.start()

    def works(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What goes on until it is cancelled, one task each."""
        if not self._settings.targets_file:
            return ()
        file = TargetsFile(
            Path(self._settings.targets_file), self._collector.targets, self._tell_event
        )
        return (file.run(self._snapshots.follow()),)

    def close(self) -> None:
        """Answer nobody any more."""
        if self._server is not None:
            self._server.close()

    def _tell_event(self, type_: str, reason: str) -> None:
        wall = self._clock.now().wall
        self._tell(Event(wall=wall, type=type_, subject="node", reason=reason))
