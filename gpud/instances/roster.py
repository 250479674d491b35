"""All instances by name: begun, found again after a restart, told, stopped."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import structlog

from gpud.errors import GpudError, InstanceNotFound, OptionInvalid, WrongState
from gpud.events import Event, present_cause
from gpud.failpoints import around
from gpud.instances.adoption.orphans import Orphans, Records
from gpud.instances.adoption.recovery import Recovery
from gpud.instances.draining.drain import open_door, order_stop
from gpud.instances.health.healing import Healing, closed
from gpud.instances.health.vital import Signs
from gpud.instances.instance import Instance, InstanceState
from gpud.instances.life import House, Life, StopOrder, row_of
from gpud.instances.lifecycle import Happening, step
from gpud.instances.limits.limits import with_threads
from gpud.instances.load import Load
from gpud.instances.measuring import learning
from gpud.instances.notice import heed
from gpud.instances.progress import Progress
from gpud.instances.sleeping.sleeping import SleepOrder, fall_asleep, wake_up
from gpud.instances.starting.rehearsal import Rehearsed, rehearse
from gpud.instances.supervisor import live
from gpud.instances.terms import LoadTerms
from gpud.instances.tree.launcher import Tree
from gpud.instances.tree.output import mark
from gpud.ledger.change import Change
from gpud.ledger.reservation import Reservation
from gpud.models.model import ModelOptions
from gpud.promises.requests import Call, Remembered
from gpud.store import Committed, Row, SqliteStore

log = structlog.get_logger()

ENDED_LISTED_SECONDS = 600.0
# One that was given up waits for somebody to look at it.
GIVEN_UP_LISTED_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """What a load was asked with. None: as the catalogue says."""

    model: str
    options: ModelOptions
    terms: LoadTerms
    owner: str
    idle_ttl_seconds: float | None = None
    pinned: bool | None = None


class ModelNotLoaded(InstanceNotFound):
    """The catalogue has the model, and none of its instances lives; `name` is the model's id."""

    def __str__(self) -> str:
        why = f"it is not loaded; `gpuctl load {self.name}` loads it"
        return f"cannot find an instance of models/{self.name}: {why}"


class Roster:
    """The owner of every instance; each is run by one task of `run`."""

    def __init__(self, house: House, store: SqliteStore) -> None:
        self._house = house
        self._store = store
        self._lives: dict[str, Life] = {}
        self.orphans = Orphans(house, self._records, self._tell)
        # Of the loads that are under way: who asks for the same follows the same.
        self._asked: dict[str, LoadRequest] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._closing = asyncio.Event()
        house.roll = lambda: [life.instance for life in self._lives.values()]

    # The daemon drives these.

    async def run(self, recovered: asyncio.Event) -> None:
        """Hold the instances' tasks until cancelled; engines outlive them."""
        async with asyncio.TaskGroup() as tasks, self._open_doors():
            self._tasks = tasks
            learning.restore(self._house.learned, self._store)
            tasks.create_task(learning.watch(self._house, self._lives), name="measuring")
            await Recovery(self._house, self._lives, self._add, self._start).run()
            recovered.set()
            tasks.create_task(self.orphans.note(), name="orphans")
            await self._closing.wait()

    @asynccontextmanager
    async def _open_doors(self) -> AsyncIterator[None]:
        """Who is left behind lets everybody in: nobody would answer at its door."""
        try:
            yield
        finally:
            for life in self._lives.values():
                open_door(life)

    def forget_ended(self) -> None:
        """Drop what ended ten minutes ago (what was given up: a day ago), its folder with it."""
        now = self._house.clock.now().wall
        for life in list(self._lives.values()):
            ended, given_up = life.instance.end_wall, life.instance.healing.given_up
            listed = GIVEN_UP_LISTED_SECONDS if given_up is not None else ENDED_LISTED_SECONDS
            if life.instance.ended and ended is not None and ended < now - listed:
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

    def signs(self, id_: str) -> Signs | None:
        """How its engine is, while it serves; None: it does not, or was not looked at yet."""
        life = self._lives.get(id_)
        return life.signs if life is not None else None

    def follow(self, name: str, *, from_start: bool) -> AsyncIterator[Progress]:
        """Every phase from the first, or from where it is, until it has ended."""
        return self._life(name).progress.follow(from_start=from_start)

    async def propose(self, request: LoadRequest) -> Rehearsed:
        """What a load would come to now, promising nothing. Raises as a load fails."""
        return await rehearse(self._house, self._new(request), request.terms)

    async def load(self, request: LoadRequest, call: Call) -> str:
        """Begin a load; its id, once its record is durable. It goes on without the caller.

        Who asks for just what is being loaded already gets that load.
        """
        known = self._house.promises.requests.find(call)
        if known is not None:
            return self._same_again(call, known)
        self._house.promises.admit()
        joined = self._under_way(request)
        if joined is not None:
            return await self._join(joined, call)
        instance = self._new(request)
        life = self._add(instance)
        now = self._house.clock.now()
        life.began = life.phase_began = now.boottime
        life.cause = present_cause()
        rows = (row_of(instance), *self._house.promises.remember(call, instance.id))

        def durable() -> None:
            life.durable = instance
            # Here and not below: the caller may have left while the record was on its way.
            self._start(life, Load(life, request.terms))

        change = Change(events=(life.event("instance.load_asked", actor=instance.owner),))
        done = self._house.promises.commit(change, rows, durable)
        life.newest, self._asked[instance.id] = done, request
        done.add_done_callback(lambda _: self._forget_unless_durable(life))
        await asyncio.shield(done)
        return instance.id

    def _under_way(self, request: LoadRequest) -> Life | None:
        """The load that was asked for in the same words, while it has not come to its end."""
        for id_, asked in list(self._asked.items()):
            life = self._lives.get(id_)
            if life is None or life.instance.ended or life.instance.healing.served:
                del self._asked[id_]
            elif asked == request and life.order is None and life.error is None:
                return life
        return None

    async def _join(self, life: Life, call: Call) -> str:
        if life.newest is not None and life.durable is None:
            await asyncio.shield(life.newest)
        self._house.promises.remember_only(call, life.instance.id)
        log.info("instance.load_joined", instance=life.instance.name)
        return life.instance.id

    async def reset(self, name: str, actor: str, call: Call) -> Instance:
        """Have an instance that was given up, or waits to be started again, start at once.

        Answered once durable. Raises InstanceNotFound, WrongState.
        """
        life = self._life(name)
        known = self._house.promises.requests.find(call)
        if known is not None:
            await self._house.promises.requests.settled(call)
            return self.get(known.result)
        if life.instance.state is InstanceState.BACKOFF:
            return await self._start_sooner(life, actor, call)
        if life.instance.state is not InstanceState.FAILED:
            advice = "only one that failed or waits to be started again is reset"
        elif life.instance.healing.given_up is None:
            advice = f"load it again: `gpuctl load {life.instance.model}`"
        else:
            return await self._load_anew(life, actor, call)
        raise WrongState(name=life.instance.name, state=life.instance.state.name, advice=advice)

    async def _start_sooner(self, life: Life, actor: str, call: Call) -> Instance:
        now, id_ = self._house.clock.now(), life.instance.id
        event = life.event("instance.reset", "its failures are forgotten", actor=actor)
        done = life.commit_with(
            self._house.promises.remember(call, id_),
            Change(),
            event,
            healing=closed(life.instance.healing, now),
        )
        self._house.promises.requests.await_commit(call, done)
        life.woken.set()
        await asyncio.shield(done)
        return self.get(id_)

    async def _load_anew(self, old: Life, actor: str, call: Call) -> Instance:
        """Of its record what was asked for stays; the load is a new one, with a new promise."""
        self._house.promises.admit()
        id_, instance = old.instance.id, _anew(old.instance)
        mark(old.folder, "reset")
        life = self._add(instance)
        life.began = life.phase_began = self._house.clock.now().boottime
        event = life.event("instance.reset", "it is loaded anew", actor=actor)
        rows = self._house.promises.remember(call, id_)

        def decided(done: asyncio.Future[Committed]) -> None:
            # Here and not below: the caller may have left while the record was on its way.
            if done.cancelled() or done.exception() is not None:
                self._lives[id_] = old
                life.progress.close()
            else:
                self._start(life, Load(life, instance.terms))

        with around("heal.reset"):
            done = life.commit_with(rows, Change(), event)
            done.add_done_callback(decided)
            self._house.promises.requests.await_commit(call, done)
            await asyncio.shield(done)
        return self.get(id_)

    async def sleep(self, name: str, order: SleepOrder, call: Call) -> Instance:
        """Send one to sleep; answered once it sleeps, and goes on without the caller.

        Raises InstanceNotFound, WrongState, EngineNotReady, ModelFileInvalid.
        """
        life = self._life(name)
        if self._house.promises.requests.find(call) is None:
            rows = self._house.promises.remember(call, life.instance.id)
            await self._see_through(fall_asleep(life, replace(order, rows=rows)), life)
        return self.get(life.instance.id)

    async def wake(self, name: str, actor: str, call: Call) -> Instance:
        """Wake one; answered once it serves. Raises as `sleep` does."""
        life = self._life(name)
        if self._house.promises.requests.find(call) is None:
            rows = self._house.promises.remember(call, life.instance.id)
            await self._see_through(wake_up(life, actor, rows), life)
        return self.get(life.instance.id)

    async def _see_through(self, work: Coroutine[None, None, None], life: Life) -> None:
        """Do it to its end, though the caller may leave. Raises what it raises."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.add_done_callback(lambda done: done.cancelled() or done.exception())

        async def doing() -> None:
            try:
                await work
            except Exception as error:  # noqa: BLE001 -- it is the caller's
                done.set_exception(error)
            else:
                done.set_result(None)

        _ = self.tend(doing(), f"rest of {life.instance.name}")
        await asyncio.shield(done)

    def stop(self, name: str, order: StopOrder) -> Instance:
        """Order a stop. Raises InstanceNotFound, WrongState."""
        life = self._life(name)
        if life.instance.ended:
            raise WrongState(
                name=life.instance.name, state=life.instance.state.name, advice="nothing runs"
            )
        order_stop(life, order)
        return life.durable or life.instance

    async def noted(self, name: str) -> None:
        """Wait until all that was decided of it is durable, or cannot be."""
        await self._life(name).written()

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
        heeding = heed(life, reservation.id, life.stop_with)
        self._tasks.create_task(heeding, name=f"notice of {life.instance.name}")

    def tend(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Do work beside the instances until it ends or is cancelled; it raises nothing else."""
        assert self._tasks is not None  # noqa: S101 — the server starts after run
        return self._tasks.create_task(work, name=name)

    def of_model(self, model: str) -> Instance:
        """The one instance of a model that has not ended. Raises as stop does."""
        self._house.catalogue.get(model)
        running = [
            life.instance
            for life in self._lives.values()
            if life.instance.model == model and not life.instance.ended
        ]
        if not running:
            raise ModelNotLoaded(name=model)
        if len(running) > 1:
            names = ", ".join(instance.name for instance in running)
            raise OptionInvalid(
                field="model", problem=f"it has several instances: {names}; name one"
            )
        return running[0]

    # Inside.

    def _records(self) -> Records:
        living = [life for life in self._lives.values() if not life.instance.ended]
        trees = [life.tree.identity if life.tree else life.instance.shim for life in living]
        return Records(
            tokens=frozenset(identity.token for identity in trees if identity is not None),
            live=frozenset(life.instance.id for life in living),
        )

    def _tell(self, event: Event) -> None:
        if not self._store.read_only_cause:  # a full disk keeps its room for releases
            self._house.promises.post(Change(events=(event,)))

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
            options=with_threads(
                engine.check_options(request.options.over(model.options)),
                model.engine,
                model.limits,
            ),
            limits=model.limits,
            create_wall=self._house.clock.now().wall,
            terms=request.terms,
            restart=model.restart,
            idle_ttl_seconds=(
                model.idle_ttl_seconds
                if request.idle_ttl_seconds is None
                else request.idle_ttl_seconds
            ),
            pinned=model.pinned if request.pinned is None else request.pinned,
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


def _anew(old: Instance) -> Instance:
    """A record with what was asked for, and nothing of what became of it.

    As long as it has not served again, it may be reset again.
    """
    return Instance(
        id=old.id,
        model=old.model,
        engine=old.engine,
        owner=old.owner,
        state=step(old.name, old.state, Happening.RESET),
        options=old.options,
        create_wall=old.create_wall,
        restarts=old.restarts + 1,
        terms=old.terms,
        restart=old.restart,
        healing=Healing(given_up=old.healing.given_up),
        idle_ttl_seconds=old.idle_ttl_seconds,
        pinned=old.pinned,
        limits=old.limits,
    )
