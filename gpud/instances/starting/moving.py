"""An engine whose port is another process's is started once more, with another port."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import structlog

from gpud.errors import EngineExited, EngineFailed
from gpud.failpoints import around
from gpud.instances.instance import Gate, LoadPhase
from gpud.instances.life import Life
from gpud.instances.lifecycle import Happening, step
from gpud.instances.starting import listening
from gpud.instances.starting.listening import PortTaken
from gpud.instances.starting.ports import free_port
from gpud.instances.tree.launcher import Tree
from gpud.instances.tree.output import mark
from gpud.ledger.change import Change
from gpud.models.model import EngineKind

log = structlog.get_logger()

_DONE_AGAIN = (LoadPhase.START, LoadPhase.LOAD, LoadPhase.WARMUP, LoadPhase.CHECK)


async def has_lost_its_port(life: Life, error: EngineFailed, tree: Tree) -> bool:
    """Whether an engine that failed did so for want of the port that it was given.

    What an engine that has ended left behind is ended first: it may have inherited the very
    socket, and is not another process's.
    """
    if isinstance(error, EngineExited):
        port = life.instance.port or 0
        tree.kill()
        await tree.gone()
        return await asyncio.to_thread(listening.was_lost, port, error.output_tail)
    return isinstance(error, PortTaken)


def port_taken(life: Life, output_tail: tuple[str, ...] = ()) -> PortTaken:
    """The error of it, as of now."""
    return PortTaken(
        instance=life.instance.name,
        phase=life.phase.name,
        output_tail=output_tail,
        port=life.instance.port or 0,
    )


async def check_listens(life: Life) -> None:
    """Nobody else listens on the engine's port. Raises PortTaken.

    A command may have its port opened by others, as a container has.
    """
    port, pid = life.instance.port, life.instance.pid
    if port is None or pid is None or life.instance.engine is EngineKind.COMMAND:
        return
    if await asyncio.to_thread(listening.is_shared, port, pid):
        raise port_taken(life)


async def elsewhere(life: Life, tree: Tree) -> None:
    """End what is left of it, and make the intent of a new start durable; the promise stays."""
    lost = life.instance.port
    tree.kill()
    await tree.gone()
    life.tree = None
    port = free_port(life.house.roll())
    log.warning("instance.port_taken", instance=life.instance.name, port=lost, next_port=port)
    event = life.event("instance.port_taken", f"another process had port {lost} first")
    with around("launch.elsewhere"):
        await life.commit(
            Change(),
            event,
            state=step(life.instance.name, life.instance.state, Happening.MOVED),
            gate=Gate.INTENT,
            shim=None,
            pid=None,
            port=port,
        )
    mark(life.folder, f"port {lost} was taken")
    life.enter(LoadPhase.START, f"port {lost} was taken, now {port}")
    # The phases that are passed again are told once, with their newest times.
    spent = tuple(each for each in life.instance.phase_seconds if each[0] not in _DONE_AGAIN)
    life.instance = replace(life.instance, phase_seconds=spent)
