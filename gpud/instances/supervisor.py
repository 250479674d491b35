"""One task per instance: brings it up, watches it, brings it down; rolls back what fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import structlog

from gpud.errors import GpudError, LoadCancelled, StoreReadOnly
from gpud.failpoints import around
from gpud.instances.draining.drain import drain, open_door, stopping
from gpud.instances.health.keeping import Keeping
from gpud.instances.instance import InstanceState, UnloadPhase
from gpud.instances.life import Life
from gpud.instances.lifecycle import Happening, step
from gpud.instances.load import Load
from gpud.instances.race import unless
from gpud.instances.tree.launcher import Tree
from gpud.ledger.change import Change

log = structlog.get_logger()
T = TypeVar("T")

# The ladder below DRAIN: a llama-server with a connected client never exits on its first SIGTERM.
TERMINATE_SECONDS = 2.0
SECOND_TERMINATE_SECONDS = 1.0
STORE_RETRY_SECONDS = 1.0
# Between two looks at devices that are to show bytes back: most do at once, some drivers take 1 s.
CONFIRM_SECONDS = 0.03
MOST_CONFIRM_SECONDS = 1.0


async def live(life: Life, load: Load | None, tree: Tree | None = None) -> None:
    """The whole life of one instance. `load` None: to be stopped; `tree`: it runs already."""
    try:
        if load is not None:
            await _until_stopped(life, _up(life, load, tree))
    except GpudError as error:
        life.error = error
    except Exception:
        log.exception("instance.bug", instance=life.instance.name)
        life.error = _internal()
    try:
        await _bring_down(life)
    except Exception:
        # One instance that cannot be brought down must not take the daemon with it: its bytes
        # stay booked, and the next start tries again. Who follows it is not kept waiting for that.
        log.exception("instance.bug", instance=life.instance.name)
        life.error = life.error or _internal()
        life.progress.close()
    finally:
        await life.turn.aclose()


def _internal() -> GpudError:
    return GpudError("an internal error; the daemon's log has it")


async def _up(life: Life, load: Load, tree: Tree | None) -> None:
    """Load, or go on with what was adopted; then keep it serving for as long as it can be."""
    has_served = life.instance.healing.served or life.instance.state is InstanceState.READY
    if tree is None and not has_served:
        await load.run()
    elif tree is not None and not has_served:
        await load.go_on(tree)
    await Keeping(life, load).run()


async def _until_stopped(life: Life, work: Awaitable[None]) -> None:
    """Do the work until it raises or a stop is ordered; then LoadCancelled if it was loading."""
    order = await unless(work, asyncio.shield(life.stop))
    if order is not None and not life.instance.healing.served:
        raise LoadCancelled(instance=life.instance.name, phase=life.phase.name)


async def _bring_down(life: Life) -> None:
    """The stop ladder: drain, SIGTERM, SIGTERM, SIGKILL of the tree; then the bytes."""
    life.stop_began = life.house.clock.now().boottime
    life.signs = None
    failed = life.error is not None and not isinstance(life.error, LoadCancelled)
    if failed and life.error is not None and life.instance.failure is None:
        life.instance = replace(life.instance, failure=life.failure(life.error))
    _leave_up(life, failed=failed)
    # The intent first: after a crash from here on the stop is finished, not the engine adopted.
    with around("stop.intent"):
        await life.written()
    if life.instance.state is InstanceState.DRAINING:
        await drain(life)
    if life.tree is not None:
        with around("stop.tree"):
            await _end_tree(life, life.tree, gently=not failed)
    open_door(life)
    # What starts next measures free memory: nobody may, as long as this one's tree gives it back.
    await life.turn.aclose()
    if life.house.cgroups is not None:
        life.house.cgroups.remove(life.instance.id)
    with around("stop.free"):
        freed = await _once_writable(life, _free)
    with around("stop.record"):
        await _finish(life, freed, failed=failed)


def _leave_up(life: Life, *, failed: bool) -> None:
    """From whatever state towards STOPPING; told once, with the reason."""
    ordered = life.order.reason if life.order is not None else ""
    reason = life.error.summary if life.error is not None else ordered
    actor = life.order.actor if life.order is not None and not failed else "gpud"
    name = "instance.failed" if failed else "instance.stopping"
    event = life.event(name, reason, actor=actor)
    if life.instance.state in {InstanceState.DRAINING, InstanceState.STOPPING}:
        life.note(event)  # an earlier life of the daemon had begun to stop it
    else:
        # Nobody new is to be led there.
        happening = Happening.BROKE if failed else Happening.STOP_ASKED
        life.happen(happening, event, endpoint="", stopping=None if failed else stopping(life))


async def _end_tree(life: Life, tree: Tree, *, gently: bool) -> None:
    if gently and not (life.order is not None and life.order.force):
        life.enter(UnloadPhase.TERMINATE)
        for seconds in (TERMINATE_SECONDS, SECOND_TERMINATE_SECONDS):
            tree.terminate()
            if await _within(seconds, tree.engine_gone()):
                break
    if tree.engine_exit() is None:
        life.enter(UnloadPhase.KILL)
    # Always: an engine that ended may have left descendants behind.
    tree.kill()
    life.note(last_exit=await tree.engine_gone())
    await tree.gone()


async def _within(seconds: float, wait: Awaitable[object]) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await wait
    except TimeoutError:
        return False
    return True


async def _once_writable(life: Life, work: Callable[[Life], Awaitable[T]]) -> T:
    """Do what needs the store, again and again until it can be written: the tree is gone."""
    while True:
        try:
            return await work(life)
        except StoreReadOnly:
            await life.house.clock.sleep(STORE_RETRY_SECONDS)


async def _free(life: Life) -> int:
    """End the promise; bytes count as freed when the devices showed them back."""
    life.enter(UnloadPhase.FREE)
    promises, id_ = life.house.promises, life.instance.reservation
    if id_ is None or id_ not in promises.ledger.books.reservations:
        return 0
    leaked = _leaked(life)
    now = life.house.clock.now()
    reservation, change = promises.ledger.release(id_, None, now, holder=True)
    if change:
        await promises.commit(change.caused_by(life.cause_now))
    await _shown_back(life, id_)
    granted = sum(grant.bytes for grant in reservation.grants if not grant.beside)
    return granted - max(0, _leaked(life) - leaked)


async def _shown_back(life: Life, id_: str) -> None:
    """Wait until the devices have shown its bytes back; they are asked at once, then seldomer."""
    pause = CONFIRM_SECONDS
    while True:
        life.house.sample_now()
        if await _within(pause, life.house.promises.freed(id_)):
            return
        pause = min(2 * pause, MOST_CONFIRM_SECONDS)


def _leaked(life: Life) -> int:
    durable = life.house.promises.durable
    return sum(durable.device(uuid).leaked_bytes for uuid in life.instance.devices)


async def _finish(life: Life, freed: int, *, failed: bool) -> None:
    life.enter(UnloadPhase.STOPPED)
    happening = Happening.GONE_BROKEN if failed else Happening.GONE
    state = step(life.instance.name, life.instance.state, happening)
    event = life.event("instance.ended", state.value, freed_bytes=str(freed))
    life.freed_bytes = freed
    end = {"state": state, "end_wall": life.house.clock.now().wall, "endpoint": ""}

    async def recorded(life: Life) -> None:
        await life.commit(Change(), event, **end)

    await _once_writable(life, recorded)
    life.progress.close()
