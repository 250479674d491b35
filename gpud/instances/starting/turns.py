"""Whose turn it is to start on a device: one load at a time, in the order in which they came.

Two engines that start at once on one device mis-size each other: each takes what the other is
about to fill for free.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

# Told which device it waits for, and who has it: at first, and whenever that changes.
Tell = Callable[[str, str], None]


class Turns:
    """A turn for each device, by UUID."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._holders: dict[str, str] = {}
        self._waiting: dict[str, list[Tell]] = {}

    def holder(self, uuid: str) -> str | None:
        """Who has the turn on a device."""
        return self._holders.get(uuid)

    @asynccontextmanager
    async def take(self, uuids: Iterable[str], name: str, tell: Tell) -> AsyncIterator[None]:
        """Have the turn on all of these devices, for as long as the block lasts.

        They are taken in one order by everyone, so that nobody waits in a circle.
        """
        async with AsyncExitStack() as stack:
            for uuid in sorted(set(uuids)):
                await stack.enter_async_context(self._turn(uuid, name, tell))
            yield

    @asynccontextmanager
    async def _turn(self, uuid: str, name: str, tell: Tell) -> AsyncIterator[None]:
        lock = self._locks.setdefault(uuid, asyncio.Lock())
        waiting = self._waiting.setdefault(uuid, [])
        holder = self._holders.get(uuid)
        if holder is not None:
            tell(uuid, holder)
        waiting.append(tell)
        try:
            await lock.acquire()
        finally:
            waiting.remove(tell)
        try:
            self._holders[uuid] = name
            for other in waiting:
                other(uuid, name)
            yield
        finally:
            del self._holders[uuid]
            lock.release()
