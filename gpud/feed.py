"""The latest value and its followers: a slow one loses old values, never our memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Feed(Generic[T]):
    """One value that changes, numbered from 1; publish and follow belong to one event loop."""

    def __init__(self) -> None:
        self.latest: T | None = None
        self.sequence = 0
        self._changed = asyncio.Event()
        self._closed = False

    def publish(self, value: T) -> None:
        """Replace the value and wake the followers."""
        self.latest = value
        self.sequence += 1
        self._wake()

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
