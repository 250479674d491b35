"""An instance sent to sleep and woken: no new requests meanwhile, its promise as it was."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import structlog

from gpud.engines.api_key import ApiKey
from gpud.engines.engine import Engine
from gpud.engines.probe import ProbeFailed, ProbeFault
from gpud.errors import EngineNotReady, ModelFileInvalid, WrongState
from gpud.instances.draining.drain import (
    DRAIN_POLL_SECONDS,
    SILENCES,
    open_door,
    own_endpoint,
    shut_door,
)
from gpud.instances.instance import InstanceState, Sleep
from gpud.instances.life import Life
from gpud.instances.load import TAIL_LINES
from gpud.instances.race import unless
from gpud.instances.starting.handing import key_of
from gpud.instances.tree.output import tail
from gpud.ledger.change import Change
from gpud.models.model import EngineKind
from gpud.store import Row

log = structlog.get_logger()

# Of requests in flight that nobody says a grace for, as for an unload.
GRACE_SECONDS = 5.0
# Between two questions to one that does not tell whether it sleeps.
SILENCE_SECONDS = 1.0


@runtime_checkable
class Sleeper(Protocol):
    """An engine that can be sent to sleep; each call is bounded in time."""

    async def sleep(self, endpoint: str, level: int, key: ApiKey | None = None) -> None:
        """Let its weights go. Raises ProbeFailed."""
        ...

    async def wake(self, endpoint: str, key: ApiKey | None = None, level: int = 1) -> None:
        """Have it serve as before, from the level it sleeps at. Raises ProbeFailed."""
        ...

    async def is_sleeping(self, endpoint: str, key: ApiKey | None = None) -> bool | None:
        """Whether it sleeps; None: it does not tell."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SleepOrder:
    """How it is to sleep. `rows` are made durable together with it."""

    level: int
    actor: str
    grace_seconds: float
    rows: tuple[Row, ...] = ()


async def fall_asleep(life: Life, order: SleepOrder) -> None:
    """Returns once it sleeps, durably told. Raises WrongState, EngineNotReady, ModelFileInvalid.

    The intent is recorded first, so that a daemon that dies meanwhile finds it and looks.
    """
    async with life.resting:
        engine = _sleeper(life)
        if life.instance.sleep is not None:
            if life.instance.sleep.level == order.level:
                return
            raise _refused(life, f"ASLEEP at level {life.instance.sleep.level}", "wake it first")
        key = await key_of(life)
        why_not = await shut_door(life, f"{life.instance.name} sleeps; `gpuctl wake` wakes it")
        if why_not:
            # A request that reaches a server without its weights can end it.
            raise _refused(life, "READY", f"new requests could not be refused: {why_not}")
        try:
            await _await_idle(life, order.grace_seconds, key)
            now = life.house.clock.now()
            sleep = Sleep(level=order.level, wall=now.wall, actor=order.actor)
            await life.commit(Change(), sleep=sleep)
            await _sleep(life, engine, order.level, key)
        except Exception:
            if life.order is None:  # else it is being stopped, and its door stays shut
                open_door(life)
                life.instance = replace(life.instance, sleep=None)
                life.note()
            raise
        event = life.event(
            "instance.asleep", f"level {order.level}", actor=order.actor, level=str(order.level)
        )
        await life.commit_with(order.rows, Change(), event)


async def wake_up(life: Life, actor: str, rows: tuple[Row, ...] = ()) -> None:
    """Returns once it serves again, durably told. Raises WrongState, EngineNotReady.

    One that does not sleep stays as it is.
    """
    async with life.resting:
        engine, sleep = _sleeper(life), life.instance.sleep
        if sleep is None:
            if rows:
                await life.commit_with(rows, Change(), None)
            return
        key = await key_of(life)
        try:
            await engine.wake(own_endpoint(life.instance), key, sleep.level)
        except ProbeFailed as failed:
            raise _failed(life, "cannot be woken", failed) from failed
        open_door(life)
        event = life.event("instance.awake", actor=actor)
        await life.commit_with(rows, Change(), event, sleep=None)


async def found_asleep(life: Life) -> None:
    """After a restart of the daemon: its door is shut again, unless it is awake by now."""
    sleep, engine = life.instance.sleep, life.house.engines[life.instance.engine]
    if sleep is None or life.door is not None or not isinstance(engine, Sleeper):
        return
    key = None
    with suppress(ModelFileInvalid):  # without it the engine does not tell: it is left as it was
        key = await key_of(life)
    if await engine.is_sleeping(own_endpoint(life.instance), key) is False:
        life.note(life.event("instance.awake", "it was found awake"), sleep=None)
        return
    why_not = await shut_door(life, f"{life.instance.name} sleeps; `gpuctl wake` wakes it")
    if why_not:
        log.warning("instance.asleep_unguarded", instance=life.instance.name, problem=why_not)


async def _sleep(life: Life, engine: Sleeper, level: int, key: ApiKey | None) -> None:
    endpoint = own_endpoint(life.instance)
    try:
        await engine.sleep(endpoint, level, key)
    except ProbeFailed as failed:
        # The answer may have been lost alone.
        if await _has_slept(life, engine, failed, key) is not True:
            raise _failed(life, "cannot be sent to sleep", failed) from failed


async def _has_slept(
    life: Life, engine: Sleeper, failed: ProbeFailed, key: ApiKey | None
) -> bool | None:
    """Whether it sleeps after all; asked until it tells, unless it ends or is to be stopped.

    Its door is shut meanwhile: of one that is silent nobody knows what a request would meet. One
    that answered the order, and did not obey it, is asked once.
    """
    tree, clock = life.tree, life.house.clock
    while True:
        says = await engine.is_sleeping(own_endpoint(life.instance), key)
        is_told = says is not None or failed.fault is ProbeFault.STATUS
        if is_told or life.order is not None or tree is None:
            return says
        if await unless(clock.sleep(SILENCE_SECONDS), tree.engine_gone()) is not None:
            return None


async def _await_idle(life: Life, grace_seconds: float, key: ApiKey | None) -> None:
    """Requests in flight may finish. Raises WrongState for those that do not in time.

    No answer is not none: it is asked on, some times at the least, and is no leave to go on.
    """
    engine, clock = life.house.engines[life.instance.engine], life.house.clock
    end, silences, state = clock.now().boottime + grace_seconds, 0, "silent about its requests"
    while (in_flight := await engine.in_flight(own_endpoint(life.instance), key)) != 0:
        silences = silences + 1 if in_flight is None else SILENCES
        state = state if in_flight is None else f"BUSY with {in_flight} requests"
        is_over = clock.now().boottime >= end and silences >= SILENCES
        if is_over or life.order is not None:
            raise _refused(life, state, "wait, or give it more grace")
        await clock.sleep(DRAIN_POLL_SECONDS)


def _sleeper(life: Life) -> Sleeper:
    """The engine of an instance that can sleep now. Raises WrongState."""
    instance = life.instance
    engine: Engine = life.house.engines[instance.engine]
    if not isinstance(engine, Sleeper):
        raise _refused(life, f"one of {instance.engine.value}", _ADVICE[instance.engine])
    if not instance.options.sleep_mode:
        advice = "write sleep_mode = true into its entry of the configuration, and load it again"
        raise _refused(life, "loaded without sleep_mode", advice)
    if instance.state is not InstanceState.READY or life.order is not None:
        raise _refused(life, instance.state.name, "only what is READY sleeps and wakes")
    return engine


_ADVICE = {
    EngineKind.LLAMA_CPP: "it goes to sleep by itself: load it with sleep_idle_seconds",
    EngineKind.COMMAND: "gpud knows no way to send it to sleep; unload it",
    EngineKind.VLLM: "",
}


def _refused(life: Life, state: str, advice: str) -> WrongState:
    return WrongState(name=life.instance.name, state=state, advice=advice)


def _failed(life: Life, problem: str, failed: ProbeFailed) -> EngineNotReady:
    return EngineNotReady(
        instance=life.instance.name,
        phase=life.phase.name,
        limit_seconds=None,
        problem=f"{problem} ({failed.fault.value}: {failed.detail})",
        output_tail=tail(life.folder, TAIL_LINES),
    )
