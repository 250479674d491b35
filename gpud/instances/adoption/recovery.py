"""The fate of every recorded instance, decided once at the start of the daemon.

What runs is taken over as it is; what served and is gone is healed; the rest has failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from gpud.errors import InstanceLost
from gpud.events import Event
from gpud.failpoints import around
from gpud.instances.adoption.orphans import remove_strays
from gpud.instances.draining.drain import order_of
from gpud.instances.health.healing import put_off, serving
from gpud.instances.instance import Exit, Gate, Instance, InstanceState, LoadPhase, UnloadPhase
from gpud.instances.life import House, Life
from gpud.instances.lifecycle import PHASE_OF_STATE, Happening
from gpud.instances.load import Load
from gpud.instances.tree.launcher import LaunchFailed, Tree, last_exit
from gpud.instances.tree.output import last_words
from gpud.ledger.change import Change

log = structlog.get_logger()

_UNSEEN = Exit(code=None, signal=None, wall=None)

# Runs a life as one task: to be stopped where there is no load, and with the tree that it has.
Start = Callable[[Life, Load | None, Tree | None], None]


class Recovery:
    """Of all instances in the store. `lives` is what `add` fills."""

    def __init__(
        self,
        house: House,
        lives: Mapping[str, Life],
        add: Callable[[Instance], Life],
        start: Start,
    ) -> None:
        self._house = house
        self._lives = lives
        self._add = add
        self._start = start

    async def run(self) -> None:
        """Decide the fate of every recorded instance, then of promises that lost theirs."""
        with around("restore.instances"):
            await self._recover_all()
            self._release_orphans()
            await self._remove_strays()

    async def _recover_all(self) -> None:
        for instance in self._house.promises.read("instance", Instance).values():
            life = self._add(instance)
            life.durable = instance
            life.began = life.phase_began = self._house.clock.now().boottime
            life.stop_began = life.began
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
            self._start(life, None, None)

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
        if instance.state in {InstanceState.DRAINING, InstanceState.STOPPING}:
            if instance.failure is not None:
                life.error = InstanceLost(instance=instance.name, cause=instance.failure.message)
            life.order = order_of(instance, self._house.clock.now())
            self._start(life, None, None)
        elif tree is not None and self._runs(instance):
            self._adopt(life, tree)
        elif self._can_heal(instance):
            self._heal(life)
        else:
            self._lose(life)

    def _runs(self, instance: Instance) -> bool:
        """Whether its engine was started, and not yet found to have failed."""
        return instance.gate is Gate.GO and instance.state is not InstanceState.BACKOFF

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
        if instance.state is InstanceState.READY and not instance.healing.served:
            # Recorded by a version that did not heal.
            healing = serving(instance.healing, self._house.clock.now())
            life.instance = replace(life.instance, healing=healing)
        with around("adopt.record"):
            _ = life.commit(change, event, pid=pid)
        life.phase = LoadPhase.READY if instance.state is InstanceState.READY else LoadPhase.LOAD
        self._start(life, Load(life, instance.terms), tree)

    def _can_heal(self, instance: Instance) -> bool:
        """Whether it served in this boot, and has its promise still."""
        promise = self._house.promises.ledger.books.reservations.get(instance.reservation or "")
        has_served = instance.healing.served or instance.state is InstanceState.READY
        made = instance.shim or instance.healing.retry
        is_of_boot = made is not None and made.boot_id == self._house.clock.now().boot_id
        booked = promise is not None and promise.booked
        return instance.restart and has_served and is_of_boot and booked

    def _heal(self, life: Life) -> None:
        """Its engine is gone, or was never started again: as with one that fails just now."""
        instance, now = life.instance, self._house.clock.now()
        if instance.state is not InstanceState.BACKOFF and instance.gate is Gate.GO:
            life.instance = replace(instance, last_exit=self._exit_of(instance), pid=None)
            life.lost = InstanceLost(instance=instance.name, cause=_cause(instance, now.boot_id))
        elif instance.state is not InstanceState.BACKOFF:
            cause = "the daemon ended before it had started the engine again"
            life.happen(Happening.AILED, healing=put_off(instance.healing, cause, now, 0.0))
            life.phase = LoadPhase.READY
        life.show()
        self._start(life, Load(life, instance.terms), life.tree)

    def _lose(self, life: Life) -> None:
        instance = life.instance
        cause = _cause(instance, self._house.clock.now().boot_id)
        if instance.gate is Gate.GO:
            cause += last_words(life.folder)
        life.error = InstanceLost(instance=instance.name, cause=cause)
        if life.tree is None and instance.gate is Gate.GO:
            life.note(last_exit=instance.last_exit or self._exit_of(instance))
        self._start(life, None, None)

    def _exit_of(self, instance: Instance) -> Exit:
        return last_exit(self._house.folder(instance.id)) or _UNSEEN

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

    async def _remove_strays(self) -> None:
        """Folders of instances that no record names, but for those whose processes still run."""
        if self._house.promises.unreadable:
            return  # as above
        directory, now = self._house.directory, self._house.clock.now()
        recorded = frozenset(self._lives)
        kept = await asyncio.to_thread(remove_strays, directory, recorded, now.boot_id)
        for id_ in kept:
            log.warning("orphan.found", instance=f"instances/{id_}")
            event = Event(
                wall=now.wall,
                type="orphan.found",
                subject=f"instances/{id_}",
                reason="it runs, and no record knows it; `gpuctl orphans` shows its processes",
            )
            self._house.promises.post(Change(events=(event,)))


def _cause(instance: Instance, boot_id: str) -> str:
    """What became of an instance that is not there any more."""
    if instance.shim is not None and instance.shim.boot_id != boot_id:
        return "the host was started anew, nothing of it runs"
    if instance.gate is not Gate.GO:
        return "the daemon ended before the engine was started"
    return "the engine ended while the daemon was away"
