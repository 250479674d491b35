"""Before an engine is stopped: requests in flight finish in time, new ones are refused."""

from __future__ import annotations

from contextlib import suppress

import structlog

from gpud.clock import Moment
from gpud.engines.api_key import ApiKey
from gpud.errors import ModelFileInvalid
from gpud.instances.draining.door import LOOPBACK, CannotShut, Door
from gpud.instances.instance import Instance, Stopping, UnloadPhase
from gpud.instances.life import Life, StopOrder
from gpud.instances.lifecycle import Happening
from gpud.instances.starting.handing import key_of
from gpud.ledger.reservation import Deadline

log = structlog.get_logger()

DRAIN_POLL_SECONDS = 0.05
SILENCES = 3


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
        await _wait(life, key, words)
    life.happen(Happening.DRAINED)


async def _wait(life: Life, key: ApiKey | None, words: str) -> None:
    engine, clock = life.house.engines[life.instance.engine], life.house.clock
    endpoint, order = own_endpoint(life.instance), life.order
    silences, seen = 0, 0
    while _remaining(life) > 0:
        if life.order is not order:  # a later one, with a grace of its own
            order = life.order
            life.note(stopping=stopping(life))
            continue
        in_flight = await engine.in_flight(endpoint, key)
        # One that is busy may be late with an answer; one that never tells is not waited for.
        silences = silences + 1 if in_flight is None else 0
        seen = in_flight or seen
        if in_flight == 0 or (silences >= SILENCES and not seen):
            break
        life.show(detail=f"{seen} requests in flight{words}")
        await clock.sleep(DRAIN_POLL_SECONDS)


def stopping(life: Life) -> Stopping | None:
    """Its order as the record keeps it, counted from when the stop began; None: without grace."""
    order = life.order
    if order is None or order.force or order.grace_seconds <= 0:
        return None
    now = life.house.clock.now()
    drained = Deadline.after(now, life.began - now.boottime + order.grace_seconds)
    return Stopping(actor=order.actor, drained=drained)


def order_of(instance: Instance, now: Moment) -> StopOrder | None:
    """The order that an earlier life of the daemon had begun to obey, with what is left of it."""
    stopping = instance.stopping
    if stopping is None:
        return None
    seconds = max(0.0, stopping.drained.remaining_seconds(now))
    return StopOrder(actor=stopping.actor, grace_seconds=seconds, force=False)


def _remaining(life: Life) -> float:
    """Seconds for which requests in flight may still go on."""
    order, now = life.order, life.house.clock.now()
    if order is None or order.force:
        return 0.0
    return life.began + order.grace_seconds - now.boottime
