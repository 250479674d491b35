"""An instance kept serving: watched, and started again in its promise when its engine fails."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Final, NoReturn

import structlog

from gpud.errors import (
    DeviceUnavailable,
    EngineMissing,
    GpudError,
    ModelFileInvalid,
    ModelNotFound,
    StoreReadOnly,
)
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
    put_off_seconds,
)
from gpud.instances.health.returning import FileReplaced, ModelGone, Return
from gpud.instances.health.watch import Watch
from gpud.instances.instance import InstanceState, LoadPhase
from gpud.instances.life import Life
from gpud.instances.lifecycle import Happening
from gpud.instances.load import TAIL_LINES, Load, engine_exited
from gpud.instances.measuring import learning
from gpud.instances.race import unless
from gpud.instances.sleeping.sleeping import found_asleep
from gpud.instances.starting.admission import ContextsRefused, HostExhausted, MemoryTaken
from gpud.instances.tree.output import here, since_mark, tail
from gpud.models.catalogue import ModelContentInvalid
from gpud.threads import ThreadRefused

log = structlog.get_logger()

# Before the next try, the first, where what stands in the way is not the engine's doing.
PUT_OFF_SECONDS = 0.5
# What keeps any engine from being started: nothing of it has run.
_OURS: Final = (
    StoreReadOnly,
    DeviceUnavailable,
    ContextsRefused,
    HostExhausted,
    ThreadRefused,
    EngineMissing,
    ModelFileInvalid,
)
# What no later try can mend.
_FOR_GOOD: Final[dict[type[GpudError], GivenUp]] = {
    FileReplaced: GivenUp.FILE_REPLACED,
    ModelGone: GivenUp.MODEL_GONE,
}


class Keeping:
    """Of one instance that has been READY, from then until it is given up."""

    def __init__(self, life: Life, load: Load) -> None:
        self._life = life
        self._house = life.house
        self._load = load
        self._return = Return(life, load)
        self._gone_boottime: float | None = None  # when the last tree was seen to be gone

    async def run(self) -> NoReturn:
        """Watch and heal. Raises the GpudError for which it cannot be kept."""
        with suppress(ModelNotFound):
            _ = self._load.entry  # kept from now on: it goes on as it is if that is taken away
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
            # An adopted one: what it prints from now on tells why it ends, should it end at once.
            life.served_from = life.served_from or here(life.folder)
            if life.tree is not None and life.watched is None:
                await unless(self._learn_on(), life.tree.engine_gone())
            return
        if life.instance.state is not InstanceState.BACKOFF and life.tree is not None:
            await self._load.go_on(life.tree)
            return
        await self._end_tree()
        await self._wait_out()
        await self._until_devices_take_it()
        await self._return.run()

    async def _learn_on(self) -> None:
        """What an adopted one takes is learned as of any other, where its files can be read."""
        with suppress(GpudError):
            seen = await self._load.inspect()
            learning.resumed(self._life, self._load.estimator, seen)

    async def _watch(self) -> None:
        """Until its engine ends. Raises EngineExited, EngineStuck."""
        life = self._life
        assert life.tree is not None  # noqa: S101 — what is READY runs
        life.served_from = life.served_from or here(life.folder)
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
        if type(error) in _FOR_GOOD:
            given_up = _FOR_GOOD[type(error)]
            life.note(healing=replace(record, given_up=given_up, cause=error.summary))
            raise error
        if self._is_ours(error):
            record = put_off(record, error.summary, now, self._put_off_seconds(error))
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
        # Of tries that come to nothing one after the other the first is told.
        news = event if record.put_offs < 2 else None
        life.signs = None
        # What is told of it until it is started again is that it was READY and fell.
        life.phase = LoadPhase.READY
        life.woken.clear()
        with around("heal.intent"):
            life.happen(Happening.AILED, news, healing=record, endpoint="", sleep=None)
            await life.written()
        await self._end_tree()
        open_door(life)

    def _is_ours(self, error: GpudError) -> bool:
        """Whether it says nothing against the engine.

        A store that cannot be written lets nothing start, nor does a device that is hot or lost,
        a host that is exhausted, a program that is being replaced, or a file that cannot be read
        now; one that was read and is no model counts, for nobody writes a file for ever. A device
        may go on showing the bytes of an engine that is gone, for as long as any may take to show
        them back.
        """
        if isinstance(error, MemoryTaken) and self._gone_boottime is not None:
            since = self._house.clock.now().boottime - self._gone_boottime
            return since < float(self._house.policy.release_deadline)
        return isinstance(error, _OURS) and not isinstance(error, ModelContentInvalid)

    def _put_off_seconds(self, error: GpudError) -> float:
        """Longer each time, but where it passes within seconds and a try costs nothing."""
        if isinstance(error, (MemoryTaken, StoreReadOnly)):
            return PUT_OFF_SECONDS
        record, luck = self._life.instance.healing, self._house.luck()
        return put_off_seconds(record, PUT_OFF_SECONDS, luck, self._house.health)

    async def _until_devices_take_it(self) -> None:
        """Look at what the sampler has of its devices, often: that costs nothing, a start does.

        Told once. Raises MemoryTaken where it is somebody else who took the bytes.
        """
        told: type[GpudError] | None = None
        while (error := self._return.why_not_yet()) is not None and not self._life.woken.is_set():
            if not self._is_ours(error):
                raise error
            if told is not type(error):
                told, now = type(error), self._house.clock.now()
                record = put_off(self._life.instance.healing, error.summary, now, PUT_OFF_SECONDS)
                log.warning("instance.waits", instance=self._life.instance.name, cause=str(error))
                self._life.note(healing=record)
            await unless(self._house.clock.sleep(PUT_OFF_SECONDS), self._life.woken.wait())

    async def _end_tree(self) -> None:
        """SIGKILL to all of it: what failed is not asked to go. Its turn ends when it is gone."""
        life, tree = self._life, self._life.tree
        if tree is not None:
            with around("heal.tree"):
                tree.kill()
                life.note(last_exit=await tree.engine_gone(), pid=None)
                await tree.gone()
            life.tree, life.served_from = None, None
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
        limits = self._house.health
        in_window = len(record.failures) >= limits.breaker_failures
        return RestartLoop(
            instance=name,
            phase=phase,
            output_tail=lines,
            failures=len(record.failures) if in_window else record.in_a_row,
            window_seconds=float(limits.breaker_window) if in_window else None,
            cause=error.summary,
        )
