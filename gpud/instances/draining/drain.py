"""Before an engine is stopped: requests in flight finish in time, new ones are refused."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import structlog

from gpud.clock import Moment
from gpud.engines.api_key import ApiKey
from gpud.errors import ModelFileInvalid
from gpud.instances.draining.door import LOOPBACK, CannotShut, Door
from gpud.instances.instance import Instance, InstanceState, Stopping, UnloadPhase
from gpud.instances.life import Life, StopOrder
from gpud.instances.lifecycle import Happening
from gpud.instances.race import unless
from gpud.instances.starting.handing import key_of
from gpud.instances.tree.usage import cpu_seconds
from gpud.ledger.reservation import Deadline

log = structlog.get_logger()

# Between two looks: short at first, for most requests are, and longer while nothing changes.
DRAIN_POLL_SECONDS = 0.05
MOST_DRAIN_POLL_SECONDS = 0.25
SILENCES = 3
# CPU time between two looks that is work: an answer costs an idle engine a few milliseconds.
WORK_SECONDS = 0.1


@dataclass(slots=True)
class Heard:
    """What an engine that is drained has told so far.

    `awaited`: an earlier life of the daemon had waited for its requests already.
    """

    awaited: bool = False
    _seen: int = 0
    _silences: int = 0
    _cpu_seconds: float | None = None

    @property
    def told(self) -> str:
        """How many requests, in words; a silent one has said nothing of them."""
        return f"{self._seen or 'unknown'} requests"

    def waits_after(self, in_flight: int | None, cpu_seconds: float | None) -> bool:
        """Whether it is asked again, after an answer (None: none) and its CPU time by then.

        One that never tells is not waited for. But one whose requests were seen may be late with
        an answer, and so may one that computes: older llama-servers give none before the end of a
        batch, and a long prompt on a slow host is one of many seconds.
        """
        before, self._cpu_seconds = self._cpu_seconds, cpu_seconds
        if in_flight is not None:
            self._seen, self._silences = in_flight or self._seen, 0
            return in_flight > 0
        spent = cpu_seconds - before if cpu_seconds is not None and before is not None else 0.0
        works = spent >= WORK_SECONDS
        self._silences = 0 if works else self._silences + 1
        return self.awaited or self._seen > 0 or self._silences < SILENCES


def own_endpoint(instance: Instance) -> str:
    """Where its engine listens, told to others or not."""
    return f"http://{LOOPBACK}:{instance.port}"


async def shut_door(life: Life, says: str) -> str:
    """Turn new requests away from now on; why that cannot be, else empty."""
    if life.door is not None or not life.instance.port:
        return ""
    door = Door(life.instance.port, says)
    try:
        await door.shut()
    except CannotShut as problem:
        log.warning("instance.door", instance=life.instance.name, problem=str(problem))
        return str(problem)
    life.door = door
    return ""


def open_door(life: Life) -> None:
    """Let requests in again; nothing where the door is open."""
    if life.door is not None:
        life.door.open()
        life.door = None


async def drain(life: Life) -> None:
    """Requests in flight may finish within the grace; a later, shorter order counts at once."""
    life.enter(UnloadPhase.DRAIN)
    key = None
    with suppress(ModelFileInvalid):  # without it the engine does not tell, as one that is stuck
        key = await key_of(life)
    if _remaining(life) > 0 and life.tree is not None:
        why_not = await shut_door(life, f"{life.instance.name} is being unloaded")
        words = f", and new ones cannot be refused: {why_not}" if why_not else ""
        # Whose engine has ended by itself has nothing left that may finish.
        await unless(_wait(life, key, words), life.tree.engine_gone())
    life.happen(Happening.DRAINED)


async def _wait(life: Life, key: ApiKey | None, words: str) -> None:
    engine, clock = life.house.engines[life.instance.engine], life.house.clock
    endpoint = own_endpoint(life.instance)
    heard = Heard(awaited=life.order is not None and life.order.resumed)
    pause = DRAIN_POLL_SECONDS
    while _remaining(life) > 0:
        in_flight = await engine.in_flight(endpoint, key)
        taken = cpu_seconds(life.tree.identity) if life.tree is not None else None
        if not heard.waits_after(in_flight, taken):
            break
        detail = f"{heard.told} in flight{words}"
        if detail == life.detail:
            pause = min(2 * pause, MOST_DRAIN_POLL_SECONDS)
        else:
            pause = DRAIN_POLL_SECONDS
            life.show(detail=detail)
        await clock.sleep(pause)


def order_stop(life: Life, order: StopOrder) -> None:
    """Order its stop; the newest order counts, for a drain that is under way too.

    That one is as durable as the first was: a daemon that dies meanwhile goes on with it.
    """
    life.stop_with(order)
    if life.instance.state is InstanceState.DRAINING:
        life.note(stopping=stopping(life))


def stopping(life: Life) -> Stopping | None:
    """Its order as the record keeps it, counted from when the stop began; None: without grace."""
    order = life.order
    if order is None or order.force or order.grace_seconds <= 0:
        return None
    now = life.house.clock.now()
    drained = Deadline.after(now, life.stop_began - now.boottime + order.grace_seconds)
    return Stopping(actor=order.actor, drained=drained)


def order_of(instance: Instance, now: Moment) -> StopOrder | None:
    """The order that an earlier life of the daemon had begun to obey, with what is left of it."""
    stopping = instance.stopping
    if stopping is None:
        return None
    seconds = max(0.0, stopping.drained.remaining_seconds(now))
    return StopOrder(actor=stopping.actor, grace_seconds=seconds, force=False, resumed=True)


def _remaining(life: Life) -> float:
    """Seconds for which requests in flight may still go on."""
    order, now = life.order, life.house.clock.now()
    if order is None or order.force:
        return 0.0
    return life.stop_began + order.grace_seconds - now.boottime
