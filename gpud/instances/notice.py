"""What a notice of preemption does to an instance: nothing, until its stop has to begin."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from gpud.instances.life import Life, StopOrder
from gpud.instances.race import unless
from gpud.instances.supervisor import SECOND_TERMINATE_SECONDS, TERMINATE_SECONDS
from gpud.ledger.reservation import Notice, Reservation

log = structlog.get_logger()

# The stop ladder, and before it a moment for the requests in flight.
STOP_SECONDS = 5.0


async def heed(life: Life, id_: str, stop: Callable[[StopOrder], None]) -> None:
    """Order the stop as late as its notice allows; none if that is withdrawn before."""
    try:
        while (notice := _notice(life, id_)) is not None:
            await unless(_changed(life, id_, notice), _until_due(life, notice))
            if _notice(life, id_) == notice and _left(life, notice) <= _needed(life):
                _order(life, notice, stop)
                return
    finally:
        life.is_noticed = False


def _notice(life: Life, id_: str) -> Notice | None:
    """The notice that stands; None: none does, or the instance is ending already."""
    held = life.house.promises.durable.reservations.get(id_)
    if held is None or life.order is not None or life.instance.ended:
        return None
    return held.notice


async def _changed(life: Life, id_: str, notice: Notice) -> None:
    def other(held: Reservation) -> bool:
        return held.notice != notice

    promises = life.house.promises
    await promises.watchers.until(id_, lambda: promises.durable, other)


async def _until_due(life: Life, notice: Notice) -> None:
    await life.house.clock.sleep(max(0.0, _left(life, notice) - _needed(life)))


def _left(life: Life, notice: Notice) -> float:
    return notice.deadline.remaining_seconds(life.house.clock.now())


def _needed(life: Life) -> float:
    """Seconds from the order to the deadline; at least half of the grace passes before."""
    return min(STOP_SECONDS, float(life.house.policy.preemption_grace) / 2)


def _order(life: Life, notice: Notice, stop: Callable[[StopOrder], None]) -> None:
    left = max(0.0, _left(life, notice))
    log.info("instance.preempted", instance=life.instance.name, seconds=round(left, 3))
    ladder = TERMINATE_SECONDS + SECOND_TERMINATE_SECONDS
    grace = max(left - ladder, left / 2)
    stop(StopOrder(actor="gpud", grace_seconds=grace, force=False))
