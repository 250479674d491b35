"""The latest value and its followers: a slow one loses old values, never our memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

# Each wakes to some 50 µs of work: so many a turn leave room for calls in between.
WOKEN_PER_TURN = 4


class Feed(Generic[T]):
    """One value that changes, numbered from 1; publish and follow belong to one event loop."""

    def __init__(self) -> None:
        self.latest: T | None = None
        self.sequence = 0
        self._changed = asyncio.Event()
        self._closed = False
        self._heeding: list[Callable[[T], None]] = []

    def publish(self, value: T) -> None:
        """Replace the value and wake the followers."""
        self.latest = value
        self.sequence += 1
        self._wake()
        for call in self._heeding:
            call(value)

    def heed(self, call: Callable[[T], None]) -> None:
        """Call it with every value from now on, at once; it must not raise."""
        self._heeding.append(call)

    def close(self) -> None:
        """No value comes any more: followers end after the latest."""
        self._closed = True
        self._wake()

    async def follow(self) -> AsyncIterator[tuple[int, T]]:
        """(sequence, value): the present one at once, then the newest at each change."""
        seen = 0
        while True:
            changed = self._changed
            if self.latest is not None and self.sequence > seen:
                seen = self.sequence
                yield seen, self.latest
            elif self._closed:
                return
            else:
                await changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Rota:
    """Many who wait for one thing, woken a few per turn of the loop: calls get their turn too."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []
        self._called: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Wait until `wake` is called, and then for one's turn."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn

    def wake(self) -> None:
        """Wake all who wait now, in the order in which they came to wait."""
        was_idle = not self._called
        self._called += self._waiting
        self._waiting.clear()
        if was_idle and self._called:
            self._turn()

    def _turn(self) -> None:
        woken = 0
        while self._called and woken < WOKEN_PER_TURN:
            turn = self._called.popleft()
            if not turn.done():  # it left
                turn.set_result(None)
                woken += 1
        if self._called:
            asyncio.get_running_loop().call_soon(self._turn)
