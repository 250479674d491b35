"""The promise that a load runs in: asked for, waited for, its own or within a standing one."""

from __future__ import annotations

import secrets
from contextlib import aclosing
from dataclasses import dataclass, replace

from gpud.errors import WrongState
from gpud.instances.instance import Instance
from gpud.instances.life import Life
from gpud.ledger.admission.queue import in_order
from gpud.ledger.change import Change
from gpud.ledger.reservation import Priority, Reservation, ReserveRequest, Sharing


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTerms:
    """How a load wants its bytes. `devices` are UUIDs to choose among; none: any GPU."""

    devices: tuple[str, ...] = ()
    sharing: Sharing = Sharing.SHARED
    priority: Priority = Priority.NORMAL
    preemptible: bool = False
    max_wait_seconds: float = 0.0
    within: str | None = None  # a standing reservation

    def request(self, instance: Instance, size: int, host_bytes: int = 0) -> ReserveRequest:
        """A HELD promise of so many bytes for an instance, and of RAM beside its card."""
        return ReserveRequest(
            owner=instance.owner,
            bytes=size,
            devices=self.devices,
            sharing=Sharing.SHARED if self.within is not None else self.sharing,
            priority=self.priority,
            preemptible=self.preemptible,
            ttl_seconds=None,
            max_wait_seconds=self.max_wait_seconds,
            # A standing reservation has its own RAM, or none.
            host_bytes=0 if self.within is not None else host_bytes,
            instance=instance.id,
            within=self.within,
        )


async def ask(life: Life, request: ReserveRequest) -> tuple[Reservation, Change]:
    """A granted promise, and the change to make durable with what is recorded of it.

    One that was waited for is durable already. Raises what Ledger.reserve and admit raise; after a
    wait in vain, the refusal with its numbers.
    """
    promises, clock = life.house.promises, life.house.clock
    promises.admit()
    id_ = f"r-{secrets.token_hex(4)}"
    reservation, change = promises.ledger.reserve(request, id_, clock.now())
    if not reservation.queued:
        return reservation, change
    await life.commit(change, reservation=id_)
    ended = await _wait(life, id_)
    if ended is not None and ended.booked:
        return ended, Change()
    if ended is not None and ended.reason and ended.state.name != "EXPIRED":
        raise WrongState(
            name=ended.name, state=ended.state.name, advice=f"{ended.reason}; load again"
        )
    # It waited in vain: what would be refused now is why.
    last = replace(request, max_wait_seconds=0.0)
    return promises.ledger.reserve(last, f"r-{secrets.token_hex(4)}", clock.now())


async def _wait(life: Life, id_: str) -> Reservation | None:
    """Follow its place in the queue until it is granted, or has ended."""
    promises = life.house.promises
    async with aclosing(promises.watchers.follow(id_, lambda: promises.durable)) as versions:
        async for held in versions:
            if held is None or not held.queued:
                return held
            queue = promises.ledger.settings.queue
            ordered = in_order(promises.durable.queued.values(), queue)
            ahead = [each.id for each in ordered].index(id_)
            why = promises.ledger.why_waiting(held, life.house.clock.now())
            life.show(detail=f"waits, {ahead} before it: {why}")
    return None
