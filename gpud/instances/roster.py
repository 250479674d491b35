"""All instances by name: begun, found again after a restart, told, stopped."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import structlog

from gpud.errors import GpudError, InstanceLost, InstanceNotFound, OptionInvalid, WrongState
from gpud.failpoints import around
from gpud.instances.instance import (
    Exit,
    Gate,
    Instance,
    InstanceState,
    LoadPhase,
    UnloadPhase,
)
from gpud.instances.life import House, Life, StopOrder, row_of
from gpud.instances.lifecycle import PHASE_OF_STATE
from gpud.instances.load import Load
from gpud.instances.needs import LoadTerms, need
from gpud.instances.notice import heed
from gpud.instances.progress import Progress
from gpud.instances.supervisor import live
from gpud.instances.tree.launcher import LaunchFailed, Tree, last_exit
from gpud.ledger.change import Change
from gpud.ledger.reservation import Reservation
from gpud.models.model import Footprint, ModelKind, ModelOptions
from gpud.promises.requests import Call, Remembered
from gpud.store import Row, SqliteStore

log = structlog.get_logger()

ENDED_LISTED_SECONDS = 600.0
_UNSEEN = Exit(code=None, signal=None, wall=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """What a load was asked with."""

    model: str
    options: ModelOptions
    terms: LoadTerms
    owner: str


class Roster:
    """The owner of every instance; each is run by one task of `run`."""

    def __init__(self, house: House, store: SqliteStore) -> None:
        self._house = house
        self._store = store
        self._lives: dict[str, Life] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._closing = asyncio.Event()

    # The daemon drives these.

    async def run(self, recovered: asyncio.Event) -> None:
        """Hold the instances' tasks until cancelled; engines outlive them."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            await self._recover()
            recovered.set()
            await self._closing.wait()

    def forget_ended(self) -> None:
        """Drop what ended ten minutes ago, its folder with it."""
        oldest = self._house.clock.now().wall - ENDED_LISTED_SECONDS
        for life in list(self._lives.values()):
            ended = life.instance.end_wall
            if life.instance.ended and ended is not None and ended < oldest:
                del self._lives[life.instance.id]
                shutil.rmtree(life.folder, ignore_errors=True)
                row = Row(kind="instance", id=life.instance.id, body=None)
                self._house.promises.post(Change(), (row,))

    def rewrite(self) -> None:
        """Queue again what a failed commit kept from the disk, now that it may succeed."""
        for life in self._lives.values():
            if life.durable is not None and life.durable != life.instance:
                life.note()

    # What callers ask.

    def list(self) -> list[Instance]:
        """Durable records, oldest first; the ended ones of the last ten minutes included."""
        told = [life.durable for life in self._lives.values() if life.durable is not None]
        return sorted(told, key=lambda instance: (instance.create_wall, instance.id))

    def get(self, name: str) -> Instance:
        """The durable record. Raises InstanceNotFound."""
        durable = self._life(name).durable
        if durable is None:
            raise InstanceNotFound(name=name)
        return durable

    def error(self, name: str) -> GpudError | None:
        """Why it failed, as long as this life of the daemon knows."""
        return self._life(name).error

    def follow(self, name: str, *, from_start: bool) -> AsyncIterator[Progress]:
        """Every phase from the first, or from where it is, until it has ended."""
        return self._life(name).progress.follow(from_start=from_start)

    async def propose(self, request: LoadRequest) -> tuple[Footprint, str]:
        """The footprint and the device that a load would get now, promising nothing."""
        house, instance = self._house, self._new(request)
        await house.engines[instance.engine].program()
        inspection = await house.catalogue.inspect(house.catalogue.get(request.model))
        if inspection.kind is ModelKind.EMBEDDING:
            instance = replace(instance, options=replace(instance.options, embedding=True))
        terms = replace(request.terms, max_wait_seconds=0.0)
        terms = terms.settled(house.promises.ledger.books.reservations)
        snapshot = house.snapshots.latest
        engine = house.engines[instance.engine]
        found = need(engine, inspection, instance, terms, snapshot.samples if snapshot else ())
        reservation = house.promises.propose(found.request(instance, terms))
        uuid = reservation.grants[0].device
        return found.on(uuid), uuid

    async def load(self, request: LoadRequest, call: Call) -> str:
        """Begin a load; its id, once its record is durable. It goes on without the caller."""
        known = self._house.promises.requests.find(call)
        if known is not None:
            return self._same_again(call, known)
        self._house.promises.admit()
        instance = self._new(request)
        life = self._add(instance)
        now = self._house.clock.now()
        life.began = life.phase_began = now.boottime
        rows = (row_of(instance), *self._house.promises.remember(call, instance.id))

        def durable() -> None:
            life.durable = instance
            # Here and not below: the caller may have left while the record was on its way.
            self._start(life, Load(life, request.terms))

        change = Change(events=(life.event("instance.load_asked", actor=instance.owner),))
        done = self._house.promises.commit(change, rows, durable)
        done.add_done_callback(lambda _: self._forget_unless_durable(life))
        await asyncio.shield(done)
        return instance.id

    def stop(self, name: str, order: StopOrder) -> Instance:
        """Order a stop. Raises InstanceNotFound, WrongState."""
        life = self._life(name)
        if life.instance.ended:
            raise WrongState(
                name=life.instance.name, state=life.instance.state.name, advice="nothing runs"
            )
        self._stop(life, order)
        return life.durable or life.instance

    def stop_all(self, actor: str, grace_seconds: float) -> int:
        """Order the stop of every instance that has not ended; how many those are."""
        running = [life for life in self._lives.values() if not life.instance.ended]
        for life in running:
            order = StopOrder(actor=actor, grace_seconds=grace_seconds, force=False)
            self.stop(life.instance.name, order)
        return len(running)

    def preempt(self, reservation: Reservation) -> None:
        """Its bytes are needed by another: it ends within the grace of its notice, if that stays.

        It serves on until its stop has to begin; a notice that is withdrawn before leaves no mark.
        """
        life = self._lives.get(reservation.instance or "")
        if life is None or life.instance.ended or life.is_noticed or self._tasks is None:
            return
        life.is_noticed = True
        heeding = heed(life, reservation.id, lambda order: self._stop(life, order))
        self._tasks.create_task(heeding, name=f"notice of {life.instance.name}")

    def of_model(self, model: str) -> Instance:
        """The one instance of a model that has not ended. Raises as stop does."""
        self._house.catalogue.get(model)
        running = [
            life.instance
            for life in self._lives.values()
            if life.instance.model == model and not life.instance.ended
        ]
        if not running:
            raise InstanceNotFound(name=f"models/{model}")
        if len(running) > 1:
            names = ", ".join(instance.name for instance in running)
            raise OptionInvalid(
                field="model", problem=f"it has several instances: {names}; name one"
            )
        return running[0]

    # Inside.

    def _stop(self, life: Life, order: StopOrder) -> None:
        life.order = order
        if not life.stop.done():
            life.stop.set_result(order)

    def _life(self, name: str) -> Life:
        life = self._lives.get(name.removeprefix("instances/"))
        if life is None:
            raise InstanceNotFound(name=name)
        return life

    def _new(self, request: LoadRequest) -> Instance:
        model = self._house.catalogue.get(request.model)
        engine = self._house.engines[model.engine]
        return Instance(
            id=f"{model.id}-{secrets.token_hex(3)}",
            model=model.id,
            engine=model.engine,
            owner=request.owner,
            state=InstanceState.QUEUED,
            options=engine.check_options(request.options.over(model.options)),
            create_wall=self._house.clock.now().wall,
        )

    def _add(self, instance: Instance) -> Life:
        stop: asyncio.Future[StopOrder] = asyncio.get_running_loop().create_future()
        life = Life(house=self._house, instance=instance, stop=stop)
        self._lives[instance.id] = life
        return life

    def _forget_unless_durable(self, life: Life) -> None:
        if life.durable is None:
            del self._lives[life.instance.id]
            life.progress.close()

    def _start(self, life: Life, load: Load | None, tree: Tree | None = None) -> None:
        assert self._tasks is not None  # noqa: S101 — the server starts after run
        self._tasks.create_task(live(life, load, tree), name=life.instance.name)

    def _same_again(self, call: Call, known: Remembered) -> str:
        if known.result not in self._lives:
            raise OptionInvalid(
                field="request_id",
                problem=f"{call.request_id!r} led to instances/{known.result}, which ended "
                "and is no longer listed; send a new id",
            )
        return known.result

    # Finding again what an earlier life of the daemon ran.

    async def _recover(self) -> None:
        """Decide the fate of every recorded instance, then of promises that lost theirs."""
        with around("restore.instances"):
            await self._recover_all()
            self._release_orphans()

    async def _recover_all(self) -> None:
        for instance in self._house.promises.read("instance", Instance).values():
            life = self._add(instance)
            life.durable = instance
            life.began = life.phase_began = self._house.clock.now().boottime
            if instance.ended:
                life.phase = UnloadPhase.STOPPED
                life.show()
                life.progress.close()
            else:
                await self._recover_guarded(life)

    async def _recover_guarded(self, life: Life) -> None:
        """One record that nobody can make sense of must not keep the daemon from starting."""
        try:
            await self._recover_one(life)
        except Exception:
            log.exception("instance.bug", instance=life.instance.name)
            life.error = InstanceLost(instance=life.instance.name, cause="its record is unusable")
            self._start(life, None)

    async def _recover_one(self, life: Life) -> None:
        instance = life.instance
        with around("adopt.find"):
            tree = await self._find_tree(instance)
        life.tree = tree
        life.phase = PHASE_OF_STATE.get(instance.state, life.phase)
        log.info(
            "instance.recovering",
            instance=instance.name,
            state=instance.state.value,
            gate=instance.gate.value if instance.gate else "none",
            alive=tree is not None,
        )
        stopping = instance.state in {InstanceState.DRAINING, InstanceState.STOPPING}
        if tree is not None and instance.gate is Gate.GO and not stopping:
            self._adopt(life, tree)
            return
        if not stopping:
            cause = _cause(instance, self._house.clock.now().boot_id)
            life.error = InstanceLost(instance=instance.name, cause=cause)
            if tree is None and instance.gate is Gate.GO:
                exit_ = last_exit(self._house.folder(instance.id)) or _UNSEEN
                life.note(last_exit=instance.last_exit or exit_)
        elif instance.failure is not None:
            life.error = InstanceLost(instance=instance.name, cause=instance.failure.message)
        self._start(life, None)

    async def _find_tree(self, instance: Instance) -> Tree | None:
        shim, now = instance.shim, self._house.clock.now()
        if shim is None or shim.boot_id != now.boot_id:
            return None
        try:
            return await self._house.launcher.adopt(shim, self._house.folder(instance.id))
        except LaunchFailed as error:
            # What outlives SIGKILL hangs in the kernel: its bytes stay booked as the device shows.
            log.warning("instance.unkillable", instance=instance.name, problem=str(error))
            return None

    def _adopt(self, life: Life, tree: Tree) -> None:
        """It runs on as it was; a load that was under way goes on from there."""
        instance = life.instance
        change = self._house.promises.ledger.adopt(instance.reservation or "")
        event = life.event("instance.adopted", f"found {instance.state.value} after a restart")
        pid = tree.engine_pid() or instance.pid
        if instance.state in {InstanceState.STARTING, InstanceState.WARMING}:
            # Its first tokens are asked again: nobody saw whether they came.
            life.instance = replace(life.instance, state=InstanceState.LOADING)
        with around("adopt.record"):
            _ = life.commit(change, event, pid=pid)
        life.phase = LoadPhase.READY if instance.state is InstanceState.READY else LoadPhase.LOAD
        self._start(life, Load(life, LoadTerms()), tree)

    def _release_orphans(self) -> None:
        """A HELD promise whose instance is not recorded was never started."""
        promises, now = self._house.promises, self._house.clock.now()
        if promises.unreadable:
            return  # its instance's record may be the one that makes no sense
        for reservation in list(promises.ledger.books.reservations.values()):
            instance = reservation.instance
            if (
                instance is not None
                and instance not in self._lives
                and (reservation.booked or reservation.queued)
            ):
                _, change = promises.ledger.release(reservation.id, None, now, holder=True)
                promises.post(change)


def _cause(instance: Instance, boot_id: str) -> str:
    """What became of an instance that is not there any more."""
    if instance.shim is not None and instance.shim.boot_id != boot_id:
        return "the host was started anew, nothing of it runs"
    if instance.gate is not Gate.GO:
        return "the daemon ended before the engine was started"
    return "the engine ended while the daemon was away"
