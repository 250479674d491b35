"""The load of one instance: the start-up sequence, top to bottom.

Each phase either passes or raises; the supervisor rolls everything back, in reverse.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable
from dataclasses import replace

from gpud.devices.snapshot import Sample
from gpud.engines.engine import Engine, EngineProgram, Readiness, TellsItems
from gpud.engines.probe import ProbeFailed
from gpud.errors import (
    EngineExited,
    EngineFailed,
    EngineNotReady,
    FootprintExceeded,
    QuotaExceeded,
    VramInsufficient,
)
from gpud.failpoints import around
from gpud.instances.allocation import ask
from gpud.instances.draining.sharing import Sharing
from gpud.instances.health import oom
from gpud.instances.health.healing import serving
from gpud.instances.health.stalling import Look, Stall, device_bytes
from gpud.instances.instance import Exit, Gate, LoadPhase
from gpud.instances.life import Life
from gpud.instances.lifecycle import Happening, step
from gpud.instances.limits.limits import check_memory
from gpud.instances.measuring import learning
from gpud.instances.measuring.estimator import Estimator
from gpud.instances.measuring.learning import estimator_of
from gpud.instances.measuring.telling import Told, believed
from gpud.instances.needs import Need, law_bytes, need, promised_files
from gpud.instances.race import unless
from gpud.instances.starting import moving
from gpud.instances.starting.confinement import LOCKED
from gpud.instances.starting.entry import entry_of
from gpud.instances.starting.handing import check_read, key_of
from gpud.instances.starting.listening import PORT_TRIES
from gpud.instances.starting.ports import LOOPBACK, free_port
from gpud.instances.starting.start import Start
from gpud.instances.terms import LoadTerms
from gpud.instances.tree.launcher import Tree
from gpud.instances.tree.locking import locked_bytes
from gpud.instances.tree.output import since_mark, tail, tail_since
from gpud.instances.tree.usage import cpu_seconds
from gpud.ledger.change import Change
from gpud.models.catalogue import Inspection
from gpud.models.model import FootprintWhat, Model, ModelKind
from gpud.models.sources.jobs import Step
from gpud.units import MIB, format_size

TAIL_LINES = 40
# What is read for the meaning: the cause may stand far above the traces that follow from it.
MEANING_LINES = 400
EXIT_SECONDS = 1.0
WARMUP_SECONDS = 300.0  # the weights may still have to come from a slow disk
# A disk, or a network, that gives less is taken for one that has stopped: the least that a load's
# weights are expected to come with, where nothing else tells how far it is.
SLOWEST_BYTES_PER_SECOND = 50 * MIB
# Between two looks at what an engine that is not ready takes, and at who listens on its port.
LOOK_SECONDS = 0.5
# Readiness is asked often while it may come at once, seldom once the load is clearly long.
_POLL_SECONDS = ((1.0, 0.005), (10.0, 0.05), (float("inf"), 0.25))
_WORDS = {
    Readiness.REFUSED: "waiting for the engine to listen",
    Readiness.LOADING: "the engine loads",
    Readiness.BROKEN: "the engine answers, but not as a server of its kind",
}


class Load:
    """The phases of one load."""

    def __init__(self, life: Life, terms: LoadTerms) -> None:
        self._life = life
        self._house = life.house
        self._terms = terms
        self.engine: Engine = life.house.engines[life.instance.engine]
        self._model: Model | None = None  # an adopted one may have left the catalogue
        self.estimator = Estimator(engine=self.engine, learned=self._house.learned, build=None)
        self._inspection: Inspection | None = None  # None: nobody had to ask its files

    async def run(self) -> None:
        """From nothing to READY. Raises GpudError; the caller rolls back."""
        self._life.enter(LoadPhase.DETECT)
        program = await self._detect()
        self._life.enter(LoadPhase.VERIFY)
        inspection = await self._verify()
        self._life.enter(LoadPhase.ALLOCATE)
        await self._allocate(inspection)
        self._life.enter(LoadPhase.START)
        await self.start(program, inspection)

    async def go_on(self, tree: Tree) -> None:
        """The rest of a load that an earlier life of the daemon began: its engine runs."""
        await self._unless_ended(tree, self._take_turn())
        await self._bring_up(tree)

    async def start(
        self, program: EngineProgram, inspection: Inspection, restarts: int | None = None
    ) -> None:
        """From an intent that is durable to READY. Raises GpudError.

        `restarts` is counted once the engine is let go; None: as it was.
        """
        start = Start(
            life=self._life,
            engine=self.engine,
            program=program,
            model=self.entry,
            inspection=inspection,
            restarts=self._life.instance.restarts if restarts is None else restarts,
        )
        await self._take_turn()
        for left in reversed(range(PORT_TRIES)):
            tree = await start.run()
            self._life.enter(LoadPhase.LOAD)
            try:
                await self._bring_up(tree)
            except EngineFailed as error:
                if not await moving.has_lost_its_port(self._life, error, tree):
                    raise
                if not left:
                    raise moving.port_taken(self._life, error.output_tail) from error
            else:
                return
            await moving.elsewhere(self._life, tree)

    async def model(self) -> Model:
        """The entry with its kind known: of an adopted instance its file is asked.

        Raises ModelNotFound where it left the catalogue, and as Catalogue.inspect does.
        """
        if self.entry.kind is None:
            await self.inspect()
        return self.entry

    async def _take_turn(self) -> None:
        """Nobody else starts on its devices until it is READY, or its tree is gone."""
        life, aliases = self._life, {s.info.uuid: s.info.alias for s in self._samples()}

        def tell(uuid: str, holder: str) -> None:
            alias = aliases.get(uuid, uuid)
            life.show(detail=f"waits for {holder} to finish loading on {alias}")

        turn = self._house.turns.take(life.instance.devices, life.instance.name, tell)
        await life.turn.enter_async_context(turn)

    async def _bring_up(self, tree: Tree) -> None:
        """From a started engine to READY."""
        endpoint = f"http://{LOOPBACK}:{self._life.instance.port}"
        self._life.oom_kills = self._house.kernel.oom_kills(self._life.instance.id)
        await self.model()  # adopted: an earlier life of the daemon had asked
        await self._unless_ended(tree, self._until_ready(endpoint))
        self._life.enter(LoadPhase.WARMUP)
        await self._unless_ended(tree, self._warm_up(endpoint))
        self._life.enter(LoadPhase.CHECK)
        await self._unless_ended(tree, self._check(endpoint))
        self._life.enter(LoadPhase.REGISTER)
        await self._register(endpoint)
        await self._life.turn.aclose()

    async def _detect(self) -> EngineProgram:
        """The engine is here, and some device asked for could grant at all."""
        program = await self.engine.program()
        try:
            self._house.promises.propose(self._settled().request(self._life.instance, 1))
        except VramInsufficient:
            pass  # ALLOCATE tells that with the real numbers
        except QuotaExceeded as limit:
            if limit.unit != "bytes":  # likewise
                raise
        self._life.show(detail=f"{program.kind.value} {program.version}")
        return program

    async def _verify(self) -> Inspection:
        """The file is whole and safe. No memory is held meanwhile."""
        if self._house.fetching is not None:
            await self._house.fetching.fetch(self.entry, self._show_step)
        inspection = await self.inspect()
        await self.check_sums(inspection)
        footprint = self._need(inspection)[0].dearest
        self._life.instance = replace(
            self._life.instance, footprint=footprint, api_key_file=self.entry.api_key_file
        )
        await key_of(self._life)  # a bad one is told before any memory is held
        size, need = format_size(inspection.size_bytes), format_size(footprint.total_bytes)
        files = f"{size} of {inspection.form or 'a model'}" if inspection.artifacts else "no files"
        self._life.show(detail=f"{files}, needs {need}")
        return inspection

    async def check_sums(self, inspection: Inspection) -> None:
        """Whether the files have the sums that were promised. Raises ModelFileInvalid."""
        house = self._house
        if house.fetching is not None:
            roots = house.catalogue.roots
            await house.fetching.check(self.entry, inspection, roots, self._show_step)

    def _show_step(self, step: Step) -> None:
        self._life.show(detail=str(step), fraction=step.fraction)

    @property
    def entry(self) -> Model:
        """The catalogue's entry, what its file says filled in. Raises as entry_of does."""
        if self._model is None:
            self._model = entry_of(self._house.catalogue, self._life.instance)
        return self._model

    async def inspect(self) -> Inspection:
        """What the file says settles what the entry left open. Raises as Catalogue.inspect."""
        inspection = await self._house.catalogue.inspect(self.entry)
        self._inspection = inspection
        self.estimator = await estimator_of(self._house, self.entry)
        self._model = replace(self.entry, kind=inspection.kind)
        if inspection.kind is ModelKind.EMBEDDING:
            options = replace(self._life.instance.options, embedding=True)
            self._life.instance = replace(self._life.instance, options=options)
        return inspection

    async def _allocate(self, inspection: Inspection) -> None:
        """Promise and intent become durable in one transaction."""
        life, (found, terms) = self._life, self._need(inspection)
        check_memory(life.instance, found)
        reservation, change = await ask(life, found.request(life.instance, terms))
        uuids = tuple(grant.device for grant in reservation.grants if not grant.beside)
        footprint = found.on(uuids[0])
        placed = replace(life.instance, devices=uuids)
        with around("launch.intent"):
            await life.commit(
                change,
                gate=Gate.INTENT,
                devices=uuids,
                footprint=footprint,
                # Chosen only now: a wait for the bytes may be long, and others choose meanwhile.
                port=free_port(self._house.roll()),
                files=promised_files(inspection),
                law_bytes=law_bytes(self.estimator, inspection, placed, self._samples()),
            )
        if reservation.exclusive and self._house.enforce is not None:
            await self._house.enforce(reservation)
        aliases = {s.info.uuid: s.info.alias for s in self._samples()}
        places = " and ".join(aliases.get(uuid, uuid) for uuid in uuids)
        life.show(detail=f"{format_size(footprint.total_bytes)} on {places}")

    async def _until_ready(self, endpoint: str) -> None:
        """Poll readiness; the limit starts anew with each sign of progress."""
        clock, limit = self._house.clock, self._stall_seconds()
        began = looked = clock.now().boottime
        stall, shown = Stall(limit, began), None
        sharing = Sharing(self._life.instance.pid, self._life.instance.port)
        sharing.look()
        while (readiness := await self.engine.readiness(endpoint)) is not Readiness.READY:
            sharing.look()
            now = clock.now().boottime
            lines = since_mark(tail(self._life.folder, MEANING_LINES))
            told = self.engine.load_step(lines)
            if (readiness, told) != shown:
                shown = readiness, told
                self._life.show(detail=told.detail or _WORDS[readiness], fraction=told.fraction)
            stall.heard(Look(readiness=readiness, step=told, lines=lines), now)
            if problem := self.engine.hopeless(lines):
                await self._raise_if_ending()
                raise self._not_ready(problem, None)
            if now - looked > LOOK_SECONDS:
                looked = now
                stall.grew(*self._taken(), now)
                await moving.check_listens(self._life)
            if stall.is_over(now):
                raise self._not_ready("no progress", limit)
            pause = next(pause for until, pause in _POLL_SECONDS if now - began < until)
            await clock.sleep(pause)
        await moving.check_listens(self._life)  # before anything is asked of who answers

    def _taken(self) -> tuple[int | None, float | None]:
        """The bytes on its devices and the CPU seconds that it has taken, as far as seen."""
        life = self._life
        used = device_bytes(self._house.snapshots.latest, life.instance.reservation)
        return used, cpu_seconds(life.tree.identity) if life.tree is not None else None

    def _stall_seconds(self) -> float:
        """How long it may show no progress: longer where there is more to be read."""
        footprint = self._life.instance.footprint
        items = footprint.items if footprint is not None else ()
        weights = sum(item.bytes for item in items if item.what is FootprintWhat.WEIGHTS)
        house, kind = self._house, self._life.instance.engine
        base = house.load_stalls.get(kind, house.load_stall_seconds)
        return base + weights / SLOWEST_BYTES_PER_SECOND

    async def _warm_up(self, endpoint: str) -> None:
        life = self._life
        key, options = await key_of(life), life.instance.options
        try:
            async with asyncio.timeout(WARMUP_SECONDS):
                warmth = await self.engine.warm_up(endpoint, self.entry, options, key)
        except TimeoutError as error:
            raise self._not_ready("no first token", WARMUP_SECONDS) from error
        except ProbeFailed as error:
            # A crash shows first as a connection that broke.
            await self._raise_if_ending()
            raise self._not_ready(f"no first token ({error})", None) from error
        life.note(
            tokens_per_second=warmth.tokens_per_second,
            time_to_first_token_seconds=warmth.time_to_first_token_seconds,
        )
        life.show(detail=str(warmth) or "it answered")

    async def _check(self, endpoint: str) -> None:
        """Healthy still, and within its promise: by the engine's own buffers, then the device."""
        if await self.engine.readiness(endpoint) is not Readiness.READY:
            raise self._not_ready("it fell back from ready after its first tokens", None)
        await check_read(self._life, self.entry, self._inspection)
        instance = self._life.instance
        promised = instance.footprint.total_bytes if instance.footprint else 0
        output = since_mark(tail(self._life.folder, 10_000))
        told = self._told(output)
        measured = told.engine_bytes
        if self._inspection is not None:
            # First of all: after a load that took too much, the next is promised enough.
            learning.checked(self._life, self.estimator, self._inspection, told)
        if measured is not None and measured > promised:
            raise FootprintExceeded(
                instance=instance.name,
                device=",".join(instance.devices),
                promised_bytes=promised,
                measured_bytes=measured,
            )
        if measured is not None:
            self._life.note(engine_bytes=measured)
        of = f"of the {format_size(promised)} promised"
        told_size = (
            "its devices will tell what it uses"
            if measured is None
            else f"its buffers come to {format_size(measured)}"
        )
        self._life.show(detail=f"healthy; {told_size} {of}")
        self._check_locked()
        self._house.list_soon()

    def _told(self, output: tuple[str, ...]) -> Told:
        engine, seen = self.engine, self._inspection
        covered = engine.covered(output) if isinstance(engine, TellsItems) else None
        told = Told(engine_bytes=engine.measured_bytes(output), covered=covered)
        return believed(told, self._life.instance.footprint, seen.size_bytes if seen else None)

    def _check_locked(self) -> None:
        """An engine that may not lock its memory says so in its output alone, and goes on."""
        instance = self._life.instance
        if instance.swap == LOCKED and instance.pid and locked_bytes(instance.pid) == 0:
            self._life.note(swap="not enforced: the engine locked nothing (its output says why)")

    async def _register(self, endpoint: str) -> None:
        """The endpoint is told once the record that names it is durable."""
        life, now = self._life, self._house.clock.now()
        life.enter(LoadPhase.READY, endpoint)
        seconds = now.boottime - life.began
        name = "instance.healed" if life.instance.healing.served else "instance.ready"
        life.instance = replace(
            life.instance,
            endpoint=endpoint,
            ready_wall=now.wall,
            load_seconds=seconds,
            healing=serving(life.instance.healing, now),
        )
        event = life.event(name, endpoint=endpoint, seconds=f"{seconds:.3f}")
        life.cause = None  # what it does from now on is its own doing
        state = step(life.instance.name, life.instance.state, Happening.WARMED)
        with around("launch.ready"):
            await life.commit(Change(), event, state=state)

    # Parts.

    def _need(self, inspection: Inspection) -> tuple[Need, LoadTerms]:
        """What it needs now, and the terms that this is for."""
        terms = self._settled()
        found = need(self.estimator, inspection, self._life.instance, terms, self._samples())
        return found, terms

    def _settled(self) -> LoadTerms:
        return self._terms.settled(self._house.promises.ledger.books.reservations)

    def _samples(self) -> tuple[Sample, ...]:
        snapshot = self._house.snapshots.latest
        return snapshot.samples if snapshot is not None else ()

    def _not_ready(self, problem: str, limit: float | None) -> EngineNotReady:
        return EngineNotReady(
            instance=self._life.instance.name,
            phase=self._life.phase.name,
            limit_seconds=limit,
            problem=problem,
            output_tail=tail(self._life.folder, TAIL_LINES),
        )

    async def _raise_if_ending(self) -> None:
        """Give an engine that may be crashing a moment to be gone. Raises EngineExited."""
        tree = self._life.tree
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EXIT_SECONDS):
                exit_ = await tree.engine_gone() if tree is not None else None
            if exit_ is not None:
                raise engine_exited(self._life, exit_)

    async def _unless_ended(self, tree: Tree, work: Awaitable[None]) -> None:
        """Do the work, unless the engine ends first. Raises EngineExited at once when it does."""
        exit_ = await unless(work, tree.engine_gone())
        if exit_ is not None:
            raise engine_exited(self._life, exit_)


def engine_exited(life: Life, exit_: Exit) -> EngineExited:
    """The end of an engine that was not asked to end, noted and with its meaning."""
    lines = since_mark(tail(life.folder, MEANING_LINES))
    explain = life.house.engines[life.instance.engine].explain_exit
    kills = life.house.kernel.oom_kills(life.instance.id)
    place = life.served_from
    last = lines if place is None else tail_since(life.folder, place, MEANING_LINES)
    memory = oom.words(exit_, life.oom_kills, kills, last)
    life.died_of_memory = bool(memory)
    meaning = explain(last) or memory or _MEANING_OF_SIGNAL.get(exit_.signal or 0, "")
    life.note(last_exit=exit_, exit_meaning=meaning)
    return EngineExited(
        instance=life.instance.name,
        phase=life.phase.name,
        exit_text=str(exit_),
        meaning=meaning,
        output_tail=lines[-TAIL_LINES:],
    )


_MEANING_OF_SIGNAL: dict[int, str] = {
    signal.SIGKILL: "from outside, or by the kernel for want of memory",
    signal.SIGTERM: "somebody else asked it to end",
    signal.SIGSEGV: "it crashed",
    signal.SIGABRT: "it gave up: an error of its own",
    signal.SIGBUS: "it crashed: a file that it maps was cut, or memory failed",
    signal.SIGILL: "built for another processor",
}
