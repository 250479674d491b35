"""Before an engine is stopped: requests in flight finish in time, new ones are refused."""

from __future__ import annotations

from contextlib import suppress

import structlog

from gpud.engines.api_key import ApiKey
from gpud.errors import ModelFileInvalid
from gpud.instances.draining.door import LOOPBACK, CannotShut, Door
from gpud.instances.instance import Instance, UnloadPhase
from gpud.instances.life import Life, StopOrder
from gpud.instances.lifecycle import Happening
from gpud.instances.starting.handing import key_of

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
    if grace(life.order) > 0 and life.tree is not None:
        why_not = await shut_door(life, f"{life.instance.name} is being unloaded")
        words = f", and new ones cannot be refused: {why_not}" if why_not else ""
        await _wait(life, key, words)
    life.happen(Happening.DRAINED)


async def _wait(life: Life, key: ApiKey | None, words: str) -> None:
    engine, clock = life.house.engines[life.instance.engine], life.house.clock
    began, endpoint = clock.now().boottime, own_endpoint(life.instance)
    silences, seen = 0, 0
    while clock.now().boottime < began + grace(life.order):
        in_flight = await engine.in_flight(endpoint, key)
        # One that is busy may be late with an answer; one that never tells is not waited for.
        silences = silences + 1 if in_flight is None else 0
        seen = in_flight or seen
        if in_flight == 0 or (silences >= SILENCES and not seen):
            break
        life.show(detail=f"{seen} requests in flight{words}")
        await clock.sleep(DRAIN_POLL_SECONDS)


def grace(order: StopOrder | None) -> float:
    """How long requests in flight may go on, in seconds."""
    return 0.0 if order is None or order.force else order.grace_seconds
