"""The promise that a load runs in: asked for, waited for, its own or within a standing one."""

from __future__ import annotations

import secrets
from contextlib import aclosing
from dataclasses import replace

from msgspec import structs

from gpud.errors import WrongState
from gpud.instances.life import Life
from gpud.ledger.change import Change
from gpud.ledger.reservation import Reservation, ReservationState, ReserveRequest


async def ask(life: Life, request: ReserveRequest) -> tuple[Reservation, Change]:
    """A granted promise, and the change to make durable with what is recorded of it.

    One that was waited for is durable already. Whatever fails after this, the record names the
    promise, and bringing the instance down ends it. Raises what Ledger.reserve and admit raise;
    after a wait in vain, the refusal with its numbers.
    """
    promises = life.house.promises
    promises.admit()
    reservation, change = _reserve(life, request)
    if not reservation.queued:
        return reservation, change
    await life.commit(change)
    ended = await _wait(life, reservation.id)
    if ended is not None and ended.booked:
        return ended, Change()
    if ended is not None and ended.reason and ended.state is not ReservationState.EXPIRED:
        raise WrongState(
            name=ended.name, state=ended.state.name, advice=f"{ended.reason}; load again"
        )
    # It waited in vain: what would be refused now is why.
    return _reserve(life, structs.replace(request, max_wait_seconds=0.0))


def _reserve(life: Life, request: ReserveRequest) -> tuple[Reservation, Change]:
    """Decide, and name the promise in the instance's record in the same step."""
    ledger, now = life.house.promises.ledger, life.house.clock.now()
    reservation, change = ledger.reserve(request, f"r-{secrets.token_hex(4)}", now)
    life.instance = replace(life.instance, reservation=reservation.id)
    return reservation, change


async def _wait(life: Life, id_: str) -> Reservation | None:
    """Follow its place in the queue until it is granted, or has ended."""
    promises, places = life.house.promises, life.house.places
    async with aclosing(promises.watchers.follow(id_, lambda: promises.durable)) as versions:
        async for held in versions:
            if held is None or not held.queued:
                return held
            place = places.place(held)
            if place is not None:
                life.show(detail=f"waits, {place.position - 1} before it: {place.why}")
    return None
