"""The seeing side beside the devices, built from the configuration and run as one."""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpud import assembly
from gpud.access.reloading import CertificateState
from gpud.benchmarking.benchmarks import Benchmarks
from gpud.devices.snapshot import Snapshot
from gpud.events import Event, Journal
from gpud.instances.life import House
from gpud.instances.roster import Roster
from gpud.settings import Config
from gpud.store import Committed, SqliteStore
from gpud.telemetry.alerts.alerts import Alerts, AlertSeams
from gpud.telemetry.alerts.building import terms_of
from gpud.telemetry.counting import EventCounts
from gpud.telemetry.engines.metrics import EngineMetrics
from gpud.telemetry.forecast.forecasts import Forecasts
from gpud.telemetry.history.history import History
from gpud.telemetry.outsiders import Outsiders
from gpud.telemetry.seen import Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Sights:
    """What the seeing side sees, and how it tells."""

    config: Config
    directory: Path  # the state directory
    house: House  # its snapshots, promises and clock
    roster: Roster
    store: SqliteStore
    journal: Journal
    tell: Callable[[Event], None]  # posts an event that no decision makes
    certificate: Callable[[], CertificateState | None]  # how that of server.listen stands


class Seeing:
    """History, forecasts, alerts, engines' counters: their parts and the order of their lives."""

    def __init__(self, sights: Sights) -> None:
        self._house, self._clock = sights.house, sights.house.clock
        self._post = sights.tell
        self._store = sights.store
        self._history = History(
            sights.config.history, sights.directory, assembly.KEEP_FREE_BYTES, self._tell
        )
        benchmarks = Benchmarks(sights.house, sights.roster)
        self._engines = EngineMetrics(
            sights.config.engine_metrics, sights.house, sights.roster, benchmarks
        )
        self._alerts = Alerts(
            self._alert_seams(sights), terms_of(sights.config.alerts, self._clock)
        )
        self._events = EventCounts()
        self._outsiders = Outsiders()
        self.seen = Seen(
            events=self._events,
            alerts=self._alerts,
            engines=self._engines,
            benchmarks=benchmarks,
            history=self._history,
            forecasts=Forecasts(self._history, sights.house, sights.roster),
        )

    def see(self, snapshot: Snapshot) -> None:
        """A snapshot, once the ledger has seen it."""
        # By its newest decisions: those it has just reckoned with, and nobody is answered by them.
        ledger = self._house.promises.ledger
        charges = ledger.charges(ledger.books)
        self._history.see(snapshot, charges)
        for event in self._outsiders.see(snapshot, charges):
            self._post(event)

    def works(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What goes on until it is cancelled, one task each; asked for once, on the loop."""
        self._history.start()
        return (self._engines.run(), self._keep_engines(), self._alerts.run())

    def committed(self, commits: Sequence[Committed]) -> None:
        """Called by whoever hears of commits."""
        self._alerts.committed(commits)
        self._events.committed(commits)

    def configure(self, config: Config) -> None:
        """Go by another configuration from now on. Raises ConfigInvalid before anything is."""
        self._alerts.configure(terms_of(config.alerts, self._clock))
        self._store.retention.max_bytes = config.events.max_bytes

    def close(self) -> None:
        """Write what waits to be written; nothing is seen any more."""
        self._history.close()

    async def _keep_engines(self) -> None:
        async for _, told in self._engines.rounds.follow():
            self._history.see_engines(told.readings, told.wall)

    def _alert_seams(self, sights: Sights) -> AlertSeams:
        return AlertSeams(
            house=sights.house,
            instances=sights.roster.list,
            engines=lambda: self._engines.newest,
            certificate=sights.certificate,
            store_cause=lambda: sights.store.read_only_cause,
            rows=sights.store.read_rows,
            node=socket.gethostname(),
            luck=sights.house.luck,
        )

    def _tell(self, type_: str, reason: str) -> None:
        wall = self._clock.now().wall
        self._post(Event(wall=wall, type=type_, subject="node", reason=reason))
