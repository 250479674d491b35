"""The only place where rooms meet: built, started, and stopped in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from gpud import __version__, assembly
from gpud.clock import SLACK_SECONDS, Clock
from gpud.config import default_socket
from gpud.devices.sampling.sampler import Sampler
from gpud.devices.snapshot import Snapshot
from gpud.devices.topology import nodes
from gpud.enforcement.guard import Guard, GuardSeams
from gpud.engines.engine import EngineProgram
from gpud.engines.known import engines
from gpud.entrance import Entrance
from gpud.errors import EngineMissing, GpudError
from gpud.events import Event, Journal
from gpud.exposing import Exposing, Shown
from gpud.failpoints import around
from gpud.feed import Feed
from gpud.instances.health.oom import Kernel
from gpud.instances.life import House, StopOrder
from gpud.instances.roster import Roster
from gpud.instances.tree import cgroup
from gpud.instances.tree.launcher import ProcessLauncher
from gpud.ledger.change import Change
from gpud.ledger.charge import is_stale
from gpud.ledger.ledger import Ledger
from gpud.ledger.reservation import MIN_TTL_SECONDS
from gpud.ledger.standing import Standing, requests_of, standing_events
from gpud.ledger.telling import drained
from gpud.models.model import CommandSpec, EngineKind
from gpud.models.sources.supplies import Keeping, Supplies
from gpud.notify import Notifier
from gpud.preloading import Preloader
from gpud.promises.device_news import DeviceNews
from gpud.promises.promises import Promises, note
from gpud.reloading import Reloaded, Reloader
from gpud.rpc.node import NodeFacts
from gpud.rpc.server import RpcServer
from gpud.rpc.services import services
from gpud.seeing import Seeing, Sights
from gpud.settings import Config
from gpud.store import Committed, SqliteStore

log = structlog.get_logger()

_NOT_SERVING = frozenset({"RECONCILING", "DEGRADED"})
EXPIRE_SECONDS = 0.05
HOUSEKEEPING_SECONDS = 10.0
FIND_ENGINES_SECONDS = 30.0
REBUILD_SECONDS = 1.0
# The loop was held up for longer than this (or the host slept): owners get as long to renew.
STALL_SECONDS = 2.0
MAX_GRACE_SECONDS = 60.0
# After a start, owners first get as long to find us again and renew.
RESTART_GRACE_SECONDS = 2.0
# For the requests in flight of an instance that takes more than its promise.
OVERUSE_GRACE_SECONDS = 5.0


class Daemon:
    """One gpud: all its parts, and the order of their lives."""

    def __init__(
        self, config: Config, directory: Path, clock: Clock, reread: Callable[[], Config]
    ) -> None:
        """`reread` reads and checks the configuration anew. Raises ConfigInvalid."""
        self._config = config
        self._clock = clock
        self._stop = asyncio.Event()
        self._notifier = Notifier(os.environ)
        self._store = SqliteStore(directory, config.events.max_bytes)
        self._journal = Journal(self._store)
        policy = config.policy
        ledger = Ledger(assembly.ledger_settings(policy, config.quotas))
        self._promises = Promises(ledger, self._store, clock)
        self._standing = assembly.standing(config)
        self._told_missing: dict[str, list[str]] = {}
        self._news = DeviceNews(self._promises, lambda: not self._store.read_only_cause)
        self._untold: list[Event] = []  # of the node, while the store could not be written
        # Of commands that run, as they were started, where their entries may have changed since.
        self._commands: dict[str, CommandSpec] = {}
        self._snapshots: Feed[Snapshot] = Feed()
        self._sampler = Sampler(assembly.sampler_settings(config), clock, self._see)
        self._engines = engines(config.engines, directory / "engines", self._command_at)
        self._house = self._build_house(directory / "instances")
        self._supplies = self._supply()
        self._roster = Roster(self._house, self._store)
        self._guard = Guard(self._guard_seams(), policy)
        self._house.enforce = self._guard.enforce
        sights = Sights(
            config=config,
            directory=directory,
            house=self._house,
            roster=self._roster,
            store=self._store,
            journal=self._journal,
            tell=self._tell,
            certificate=lambda: self._entrance.certificate_state(),
        )
        self._seeing = Seeing(sights)
        self._start_wall = clock.now().wall
        self._socket = config.server.socket or default_socket()
        self._entrance = Entrance(config, Path(self._socket), directory, clock, self._tell)
        self._preloader = Preloader(
            self._house, self._roster, lambda: self._state()[0] == "READY", self._tell
        )
        self._reloader = Reloader(config, reread, self._reloaded())
        self._rpc = RpcServer(
            services(self._facts(), self._journal, self._house, self._roster, self._seeing.seen),
            self._entrance.access,
        )
        self._programs: tuple[EngineProgram, ...] = ()
        self._told_state = ("RECONCILING", "just started")
        self._exposing = Exposing(
            Shown(
                sights=sights,
                seen=self._seeing.seen,
                entrance=self._entrance,
                state=lambda: self._told_state,
            )
        )

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Engines go on without us. Raises ConfigInvalid."""
        # First of all: where an address is taken, nothing has begun.
        self._exposing.bind()
        self._rpc.bind(self._entrance.places())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reloader.ask)
        self._house.directory.mkdir(exist_ok=True, mode=0o700)
        self._store.start(self._committed, self._rebuild)
        self._promises.on_notice = self._roster.preempt
        self._promises.on_uncordon = self._dismiss
        with around("restore.books"):
            self._promises.restore()
        self._guard.restore()
        self._supplies.restore(self._store.read_rows)
        self._guard.attachments.refresh()
        started = Event(wall=self._start_wall, type="node.started", subject="node")
        self._promises.post(note(started))
        try:
            await self._serve()
        finally:
            self._notifier.tell("STOPPING=1")
            self._exposing.close()
            await self._rpc.stop()
            await self._entrance.close()
            self._store.close()
            self._seeing.close()
            await self._clock.sleep(0)  # the last commits are told on the loop
            self._promises.log_untold()
            log.info("daemon.stopped")

    async def _serve(self) -> None:
        recovered = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(self._sampler.run(), name="sampler")]
            running.append(tasks.create_task(self._roster.run(recovered), name="roster"))
            await recovered.wait()
            await self._entrance.open()
            await self._rpc.start()
            await self._exposing.start()
            # In the order of the file, where each of the configuration stands.
            entries = assembly.models(self._config).values()
            self._preloader.want(tuple(model for model in entries if model.preload))
            log.info("daemon.listening", socket=self._socket, tcp=self._config.server.listen)
            for work in (
                self._expire(),
                self._keep_house(),
                self._supplies.sweep(),
                self._find_engines(),
                self._watch_state(),
                self._entrance.watch(),
                self._guard.run(),
                self._preloader.run(),
                self._reloader.run(),
                *self._seeing.works(),
                *self._exposing.works(),
            ):
                running.append(tasks.create_task(work))  # noqa: PERF401
            await self._stop.wait()
            log.info("daemon.stopping")
            wall = self._clock.now().wall
            self._tell(Event(wall=wall, type="node.stopping", subject="node"))
            # In reverse: nobody may ask for what is about to end.
            await self._rpc.stop()
            for task in running:
                task.cancel()

    # What the parts tell.

    def _committed(self, commits: Sequence[Committed]) -> None:
        self._journal.committed(commits)
        self._guard.committed(commits)
        self._seeing.committed(commits)

    def _see(self, snapshot: Snapshot) -> None:
        """A snapshot: first what is fatal, then the ledger, then everyone."""
        self._guard.see(snapshot)
        self._promises.observe(snapshot)
        self._stand(snapshot)
        self._news.see(snapshot)
        self._snapshots.publish(snapshot)
        self._seeing.see(snapshot)
        if self._promises.ledger.wants_list():
            self._sampler.list_soon()
        self._clock.beat()

    def _stand(self, snapshot: Snapshot) -> None:
        """Hold the standing reservations, as soon as their devices are there."""
        books = self._promises.ledger.books
        if not snapshot.complete or not (self._standing or books.standing):
            return
        requests, missing = requests_of(self._standing, snapshot)
        self._promises.stand(requests, keep=frozenset(missing))
        if missing != self._told_missing and not self._store.read_only_cause:
            self._told_missing = missing
            self._promises.post(Change(events=standing_events(missing, snapshot.wall)))

    def _rebuild(self, cause: str) -> None:
        """A commit failed: what was decided on top of it is void."""
        log.error("store.failed", cause=cause)
        try:
            self._promises.restore()
        except sqlite3.Error:
            # It cannot be read either: nothing is granted until it can.
            asyncio.get_running_loop().call_later(REBUILD_SECONDS, self._rebuild, cause)

    def _state(self) -> tuple[str, str]:
        if self._promises.unreadable:
            return "DEGRADED", f"the store cannot be read: {self._promises.unreadable}"
        if self._store.read_only_cause:
            return "DEGRADED", f"the store cannot be written: {self._store.read_only_cause}"
        snapshot = self._snapshots.latest
        if self._promises.waiting_for or snapshot is None:
            return "RECONCILING", f"waiting for {self._promises.waiting_for}"
        drain = self._promises.durable.drain
        if drain is not None:
            running = sum(not instance.ended for instance in self._roster.list())
            return "DRAINING", drained(drain, running, len(self._promises.durable.live))
        now = self._clock.now().boottime
        if not snapshot.samples:
            return "DEGRADED", "there is no device: none was found, and devices.host is off"
        if all(is_stale(sample, now) for sample in snapshot.samples):
            return "DEGRADED", "no device could be sampled for 10 s"
        return "READY", ""

    def _shown_state(self) -> tuple[str, str]:
        """As things stand; at first, and after trouble, READY only from when that was told."""
        state, told = self._state(), self._told_state
        return told if state[0] == "READY" and told[0] in _NOT_SERVING else state

    def _stop_instance(self, id_: str, reason: str) -> None:
        """It takes more than its promise, and the policy says that this ends it."""
        log.warning("instance.overuse", instance=f"instances/{id_}", reason=reason)
        order = StopOrder(actor="gpud", grace_seconds=OVERUSE_GRACE_SECONDS, force=False)
        with contextlib.suppress(GpudError):  # it has ended by itself
            self._roster.stop(id_, order)

    def _tell(self, event: Event) -> None:
        """An event that no decision of ours makes; a full disk keeps its room for releases."""
        if self._store.read_only_cause:
            log.warning(event.type, subject=event.subject, reason=event.reason)
        else:
            self._promises.post(note(event))

    # What goes on all the time.

    async def _expire(self) -> None:
        """End leases in time; after a stall or a sleep their owners first get time to renew."""
        last = self._clock.now().boottime
        grace_until = last + RESTART_GRACE_SECONDS
        while True:
            due = self._promises.ledger.books.next_due_boottime()
            pause = MIN_TTL_SECONDS if due is None else max(EXPIRE_SECONDS, due - last)
            # A lease that is made meanwhile ends in time: none is shorter than the longest pause.
            # Only one of the shortest may end late, by SLACK_SECONDS at most.
            is_far = due is None or pause >= MIN_TTL_SECONDS + SLACK_SECONDS
            pause = min(MIN_TTL_SECONDS, pause)
            await (self._clock.about(pause) if is_far else self._clock.sleep(pause))
            now = self._clock.now().boottime
            stalled = now - last - pause
            if stalled > STALL_SECONDS:
                grace_until = now + min(stalled, MAX_GRACE_SECONDS)
                log.warning("daemon.stalled", seconds=round(stalled, 3))
            last = now
            if now >= grace_until:
                self._promises.expire()

    async def _keep_house(self) -> None:
        while True:
            self._roster.forget_ended()
            self._roster.rewrite()
            self._promises.forget_old_requests()
            self._sampler.dealings.forget_vanished(self._is_promised)
            await self._clock.about(HOUSEKEEPING_SECONDS)

    def _dismiss(self, uuid: str) -> None:
        """Somebody uncordoned a device: one that is gone is missed no more."""
        self._sampler.dealings.dismiss(uuid)
        self._sampler.dealings.forget_vanished(self._is_promised)

    def _is_promised(self, uuid: str) -> bool:
        newest, durable = self._promises.ledger.books, self._promises.durable
        return bool(newest.device(uuid).holders or durable.device(uuid).holders)

    async def _find_engines(self) -> None:
        """Look which engines are here; nobody who asks for the node waits for a slow one."""
        while True:
            found = []
            for engine in self._engines.values():
                with contextlib.suppress(EngineMissing):  # it is left out; its load says why
                    found.append(await engine.program())
            # A command has no program of its own: each entry names one.
            self._programs = tuple(program for program in found if program.path)
            await self._clock.about(FIND_ENGINES_SECONDS)

    async def _watch_state(self) -> None:
        """RECONCILING until every device answered or missed its deadline; then as things stand."""
        async for _, snapshot in self._snapshots.follow():
            if self._promises.waiting_for and snapshot.complete:
                self._promises.begin()
            await self._tell_state(self._state())

    async def _tell_state(self, state: tuple[str, str]) -> None:
        if self._store.gets_on():
            self._notifier.tell("WATCHDOG=1")
        if state == self._told_state:
            return
        (name, reason), before = state, self._told_state[0]
        if name not in _NOT_SERVING and before in _NOT_SERVING:
            # Whoever hears that finds the standing reservations.
            await self._promises.settled()
        self._told_state = state
        log.info("node.state", state=name, reason=reason)
        await self._rpc.set_serving(name == "READY")
        # Up is not the same as granting: a full disk must not make systemd start us for ever.
        ready = "READY=1\n" if name != "RECONCILING" else ""
        self._notifier.tell(f"{ready}STATUS={name.lower()}{': ' + reason if reason else ''}")
        event = Event(
            wall=self._clock.now().wall, type=f"node.{name.lower()}", subject="node", reason=reason
        )
        # An order to drain was told with who gave it; here only that it still holds.
        is_known = name == "DRAINING" and before not in _NOT_SERVING
        if not is_known:
            self._untold.append(event)
        while self._untold and not self._store.read_only_cause:
            self._promises.post(note(self._untold.pop(0)))

    # Parts.

    def _build_house(self, directory: Path) -> House:
        config, cgroups = self._config, cgroup.find()
        return House(
            promises=self._promises,
            catalogue=assembly.catalogue(config),
            engines=self._engines,
            launcher=ProcessLauncher(self._clock, self._clock.now().boot_id),
            clock=self._clock,
            snapshots=self._snapshots,
            list_soon=self._sampler.list_soon,
            directory=directory,
            load_stall_seconds=float(config.engines.llama_cpp.load_stall),
            load_stalls={EngineKind.VLLM: float(config.engines.vllm.load_stall)},
            sample_now=self._sampler.sample_now,
            policy=config.policy,
            health=config.health,
            luck=random.random,
            kernel=Kernel(cgroups=cgroups),
            cgroups=cgroups,
            node_count=len(nodes()) or None,
        )

    def _guard_seams(self) -> GuardSeams:
        return GuardSeams(
            promises=self._promises,
            store=self._store,
            snapshots=self._snapshots,
            sampler=self._sampler,
            clock=self._clock,
            stop_instance=self._stop_instance,
        )

    def _reloaded(self) -> Reloaded:
        return Reloaded(
            house=self._house,
            sampler=self._sampler,
            guard=self._guard,
            access=self._entrance.access,
            clock=self._clock,
            tell=self._tell,
            stand=self._stand_by,
            preload=self._preloader.want,
            see=self._seeing.configure,
            commands=self._commands,
        )

    def _stand_by(self, standing: tuple[Standing, ...]) -> None:
        """Hold these from the next snapshot on, and no others."""
        self._standing = standing

    def _supply(self) -> Supplies:
        """Downloads, sums of files, registered models: for the house, kept in the store."""
        keeping = Keeping(
            commit=lambda events, rows, durable: self._promises.commit(
                Change(events=events), rows, durable
            ),
            is_writable=lambda: not self._store.read_only_cause,
        )
        supplies = assembly.supplies(self._config, self._house.catalogue, keeping, self._clock)
        self._house.fetching, self._house.registry = supplies.fetching, supplies.registry
        return supplies

    def _command_at(self, endpoint: str) -> CommandSpec | None:
        instances, kept = self._roster.list(), self._commands
        return assembly.command_at(endpoint, instances, self._house.catalogue, kept)

    def _facts(self) -> NodeFacts:
        return NodeFacts(
            hostname=socket.gethostname(),
            version=__version__,
            boot_id=self._clock.now().boot_id,
            start_wall=self._start_wall,
            config=lambda: self._reloader.config,
            state=self._shown_state,
            programs=lambda: self._programs,
            certificates=self._entrance.certificate_state,
            reload=lambda actor, validate_only: self._reloader.reload(
                actor, validate_only=validate_only
            ),
        )
