"""Everything that the pages tell, gathered at one moment on the event loop."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpud import __version__
from gpud.access.access import Access
from gpud.devices.snapshot import Snapshot
from gpud.errors import ModelNotFound
from gpud.http import process
from gpud.instances.instance import Instance
from gpud.instances.life import House
from gpud.instances.roster import Roster
from gpud.ledger.books import Books
from gpud.ledger.reservation import Reservation
from gpud.store import SqliteStore
from gpud.telemetry.counting import CommitTimes
from gpud.telemetry.page.devices import Promised
from gpud.telemetry.page.native import Sight
from gpud.telemetry.page.node import Node, Process
from gpud.telemetry.page.services import Service, engines_of, reservations_of
from gpud.telemetry.page.targets import targets
from gpud.telemetry.seen import Seen

_PYTHON = platform.python_version()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the pages are told from. `state` is the node's as it was last told, and why."""

    house: House
    roster: Roster
    store: SqliteStore
    seen: Seen
    access: Access
    access_page: Callable[[], str]  # lines of who calls, without a line's end at their end
    state: Callable[[], tuple[str, str]]
    commits: CommitTimes
    start_wall: float


class Collector:
    """Looks at the parts; changes none."""

    def __init__(self, sources: Sources) -> None:
        self._from = sources

    @property
    def version(self) -> tuple[int, int]:
        """Changes with each snapshot and each durable promise."""
        house = self._from.house
        return house.snapshots.sequence, house.promises.durable.version

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest."""
        return self._from.house.snapshots.latest

    def sight(self) -> Sight:
        """All of the native page."""
        of, house = self._from, self._from.house
        promises, instances = house.promises, of.roster.list()
        books = promises.durable
        return Sight(
            now=house.clock.now(),
            snapshot=house.snapshots.latest,
            promised=Promised(
                charges=promises.ledger.charges(books),
                books=books,
                of_instances=_bytes_of(instances, books),
            ),
            instances=instances,
            readings=of.seen.engines.newest,
            service_label=of.seen.engines.label,
            calls=of.access.calls.called(),
            node=self._node(),
            access=f"{of.access_page()}\n",
        )

    def service(self, name: str) -> Service | None:
        """What there is of a service; None: there is none of that name."""
        of, label = self._from, self._from.seen.engines.label
        engines = engines_of(name, of.seen.engines.newest.values(), label)
        served = {each.instance for each in engines}
        reservations = reservations_of(name, self._booked(), label, served)
        if not engines and not reservations:
            return None
        snapshot = of.house.snapshots.latest
        instances = {each.id: each for each in of.roster.list()}
        running = [instances[e.instance] for e in engines if e.instance in instances]
        return Service(
            name=name,
            engines=engines,
            reservations=reservations,
            instance_devices={each.id: each.devices for each in running},
            samples=snapshot.samples if snapshot is not None else (),
            now_boottime=of.house.clock.now().boottime,
            host_pressure_events=snapshot.host.memory_pressure_events if snapshot else 0,
            oom_events=sum(each.healing.ooms for each in running),
        )

    def services(self) -> tuple[str, ...]:
        """Which services there are, by name; engines that nobody labelled are by their model."""
        seen = self._from.seen.engines
        names = {each.services.get(seen.label) or each.model for each in seen.newest.values()}
        names |= {each.request.labels.get(seen.label, "") for each in self._booked()}
        return tuple(sorted(names - {""}))

    def targets(self) -> str:
        """The engines' endpoints, as JSON."""
        snapshot = self._from.house.snapshots.latest
        samples = snapshot.samples if snapshot is not None else ()
        aliases = {each.info.uuid: each.info.alias for each in samples}
        return targets(self._from.roster.list(), self._command_path, aliases)

    def _booked(self) -> list[Reservation]:
        books = self._from.house.promises.durable
        return [each for each in books.reservations.values() if each.booked]

    def _command_path(self, model: str) -> str:
        try:
            command = self._from.house.catalogue.get(model).command
        except ModelNotFound:
            return ""
        return command.metrics if command is not None else ""

    def _node(self) -> Node:
        of = self._from
        snapshot, now = of.house.snapshots.latest, of.house.clock.now()
        return Node(
            version=__version__,
            python=_PYTHON,
            boot_id=now.boot_id,
            state=of.state()[0],
            ticks=snapshot.sequence if snapshot is not None else 0,
            snapshot_wall=snapshot.wall if snapshot is not None else None,
            commits=of.store.commit_count,
            writes=of.store.write_count,
            writable=not of.store.read_only_cause,
            commit_seconds=of.commits.seconds,
            events=of.seen.events.by_type,
            alerts=Counter(
                (each.rule, each.severity.name.lower(), each.state.value)
                for each in of.seen.alerts.list()
            ),
            troubles=snapshot.troubles if snapshot is not None else (),
            process=Process(
                cpu_seconds=process.cpu_seconds(),
                resident_bytes=process.resident_bytes(),
                start_wall=of.start_wall,
                open_files=process.open_files(),
                max_files=process.max_files(),
            ),
        )


def _bytes_of(instances: Sequence[Instance], books: Books) -> dict[str, int]:
    """What instances were promised on each device, but for what lies in standing reservations."""
    found: Counter[str] = Counter()
    for each in instances:
        held = books.reservations.get(each.reservation or "")
        if held is not None and held.booked and held.within is None:
            for grant in held.grants:
                found[grant.device] += grant.bytes
    return dict(found)
