"""An instance kept serving: watched, and started again in its promise when its engine fails."""

from __future__ import annotations

from typing import NoReturn

import structlog

from gpud.errors import GpudError, StoreReadOnly
from gpud.failpoints import around
from gpud.instances.draining.drain import open_door
from gpud.instances.health.healing import (
    Fault,
    GivenUp,
    Healing,
    OutOfMemory,
    RestartLoop,
    failed,
    put_off,
)
from gpud.instances.health.watch import Watch
from gpud.instances.instance import InstanceState, LoadPhase
from gpud.instances.life import Life
from gpud.instances.lifecycle import Happening
from gpud.instances.load import TAIL_LINES, Load, engine_exited
from gpud.instances.race import unless
from gpud.instances.sleeping.sleeping import found_asleep
from gpud.instances.starting.admission import MemoryTaken
from gpud.instances.tree.output import since_mark, tail

log = structlog.get_logger()

# Before the next try, where what stands in the way is not the engine's doing.
PUT_OFF_SECONDS = 0.5


class Keeping:
    """Of one instance that has been READY, from then until it is given up."""

    def __init__(self, life: Life, load: Load) -> None:
        self._life = life
        self._house = life.house
        self._load = load
        self._gone_boottime: float | None = None  # when the last tree was seen to be gone

    async def run(self) -> NoReturn:
        """Watch and heal. Raises the GpudError for which it cannot be kept."""
        while True:
            try:
                await self._bring_up()
                await self._watch()
            except GpudError as error:
                await self._fall(error)

    async def _bring_up(self) -> None:
        """To READY, from wherever an earlier life of the daemon, or a failure, has left it."""
        life = self._life
        if life.lost is not None:
            lost, life.lost = life.lost, None
            raise lost
        if life.instance.state is InstanceState.READY:
            return
        if life.instance.state is not InstanceState.BACKOFF and life.tree is not None:
            await self._load.go_on(life.tree)
            return
        await self._end_tree()
        await self._wait_out()
        await self._load.again()

    async def _watch(self) -> None:
        """Until its engine ends. Raises EngineExited, EngineStuck."""
        life = self._life
        assert life.tree is not None  # noqa: S101 — what is READY runs
        await found_asleep(life)
        exit_ = await unless(Watch(life, self._load).run(), life.tree.engine_gone())
        if exit_ is not None:
            raise engine_exited(life, exit_)

    async def _fall(self, error: GpudError) -> None:
        """Down to BACKOFF, all of its tree ended. Raises where it is not to be started again."""
        life, now = self._life, self._house.clock.now()
        if not life.instance.restart:
            raise error
        record = life.instance.healing
        if self._is_ours(error):
            record = put_off(record, error.summary, now, PUT_OFF_SECONDS)
        else:
            fault = Fault(
                cause=error.summary,
                is_oom=life.died_of_memory,
                luck=self._house.luck(),
            )
            record = failed(record, fault, now, self._house.health)
        life.died_of_memory = False
        if record.given_up is not None:
            life.note(healing=record)
            raise self._given_up(record, error) from error
        await self._fall_back(record, error)

    async def _fall_back(self, record: Healing, error: GpudError) -> None:
        """The intent first: after a crash from here on what is left of the engine is ended."""
        life, now = self._life, self._house.clock.now()
        seconds = record.retry.remaining_seconds(now) if record.retry is not None else 0.0
        log.warning(
            "instance.ailing",
            instance=life.instance.name,
            cause=error.summary,
            seconds=round(seconds, 3),
            failures=record.in_a_row,
        )
        event = life.event(
            "instance.ailing",
            error.summary,
            retry_seconds=f"{seconds:.3f}",
            failures=str(len(record.failures)),
        )
        life.signs = None
        # What is told of it until it is started again is that it was READY and fell.
        life.phase = LoadPhase.READY
        life.woken.clear()
        with around("heal.intent"):
            life.happen(Happening.AILED, event, healing=record, endpoint="", sleep=None)
            await life.written()
        await self._end_tree()
        open_door(life)

    def _is_ours(self, error: GpudError) -> bool:
        """Whether it says nothing against the engine.

        A store that cannot be written lets nothing start. A device may go on showing the bytes of
        an engine that is gone, for as long as any may take to show them back.
        """
        if isinstance(error, MemoryTaken) and self._gone_boottime is not None:
            since = self._house.clock.now().boottime - self._gone_boottime
            return since < float(self._house.policy.release_deadline)
        return isinstance(error, StoreReadOnly)

    async def _end_tree(self) -> None:
        """SIGKILL to all of it: what failed is not asked to go. Its turn ends when it is gone."""
        life, tree = self._life, self._life.tree
        if tree is not None:
            with around("heal.tree"):
                tree.kill()
                life.note(last_exit=await tree.engine_gone(), pid=None)
                await tree.gone()
            life.tree = None
            if tree.engine_pid() is not None:  # else it never came past its gate, and took nothing
                self._gone_boottime = self._house.clock.now().boottime
                self._house.list_soon()
        await life.turn.aclose()

    async def _wait_out(self) -> None:
        """Until it is time, or somebody says that it is."""
        life = self._life
        retry = life.instance.healing.retry
        seconds = retry.remaining_seconds(self._house.clock.now()) if retry is not None else 0.0
        if seconds > 0 and not life.woken.is_set():
            await unless(self._house.clock.sleep(seconds), life.woken.wait())

    def _given_up(self, record: Healing, error: GpudError) -> GpudError:
        life = self._life
        lines = since_mark(tail(life.folder, TAIL_LINES))
        name, phase = life.instance.name, life.phase.name
        if record.given_up is GivenUp.OOM:
            return OutOfMemory(
                instance=name, phase=phase, output_tail=lines, ooms=record.ooms, cause=record.cause
            )
        return RestartLoop(
            instance=name,
            phase=phase,
            output_tail=lines,
            failures=len(record.failures),
            window_seconds=float(self._house.health.breaker_window),
            cause=error.summary,
        )
