"""The daemon's side of setting compute modes: orders on their way, and their answers."""

from __future__ import annotations

import asyncio
import itertools

from gpud.devices.driver import ModeOutcome, ModeRefusal
from gpud.devices.sampling.child import Child
from gpud.devices.sampling.frames import COMMAND_MODE, ModeAnswer

NO_PROCESS = ModeOutcome(
    refusal=ModeRefusal.NO_ANSWER, detail="the sampling process is being started"
)
PROCESS_ENDED = ModeOutcome(refusal=ModeRefusal.NO_ANSWER, detail="the sampling process ended")


class ModeOrders:
    """Commands to one sampling process at a time; each ends within its limit."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[ModeOutcome]] = {}

    async def send(
        self, child: Child | None, uuid: str, mode: str, limit_seconds: float
    ) -> ModeOutcome:
        """The outcome; after the limit NO_ANSWER, and the device may still take the mode."""
        if child is None:
            return NO_PROCESS
        number = next(self._numbers)
        answer: asyncio.Future[ModeOutcome] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        child.command(f"{COMMAND_MODE} {number} {uuid} {mode}")
        try:
            async with asyncio.timeout(limit_seconds):
                return await answer
        except TimeoutError:
            detail = f"nothing within {limit_seconds:g} s"
            return ModeOutcome(refusal=ModeRefusal.NO_ANSWER, detail=detail)
        finally:
            del self._waiting[number]

    def settle(self, answer: ModeAnswer) -> None:
        """An answer came; one that comes too late is nobody's."""
        waiting = self._waiting.get(answer.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer.outcome)

    def fail(self) -> None:
        """The process that had the orders is gone."""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(PROCESS_ENDED)
