"""Who waits for a reservation to change, told as it becomes durable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable

from gpud.ledger.books import Books
from gpud.ledger.change import Change
from gpud.ledger.reservation import Reservation


class Watchers:
    """Wakes those who follow a reservation; each reads the newest when it gets its turn."""

    def __init__(self) -> None:
        self._wakers: dict[str, set[asyncio.Event]] = {}

    def tell(self, change: Change, books: Books, *, moved: bool) -> None:
        """A change became durable; `moved`: the queue by it, so all who wait have a new place."""
        if not self._wakers:
            return
        changed = {each.id for each in change.reservations} | set(change.forgotten)
        for id_ in tuple(self._wakers):
            if id_ in changed or (moved and id_ in books.queued):
                for waker in self._wakers[id_]:
                    waker.set()

    async def follow(
        self, id_: str, books: Callable[[], Books]
    ) -> AsyncGenerator[Reservation | None, None]:
        """The reservation now and at each change; None once it is forgotten. Ends by the caller.

        `books` are asked for anew each time, for a failed commit replaces them.
        """
        waker = asyncio.Event()
        self._wakers.setdefault(id_, set()).add(waker)
        try:
            while True:
                waker.clear()
                yield books().reservations.get(id_)
                await waker.wait()
        finally:
            self._wakers[id_].discard(waker)
            if not self._wakers[id_]:
                del self._wakers[id_]

    async def until(
        self, id_: str, books: Callable[[], Books], done: Callable[[Reservation], bool]
    ) -> None:
        """Wait until a reservation is as wanted, or forgotten."""
        follower = self.follow(id_, books)
        try:
            async for held in follower:
                if held is None or done(held):
                    return
        finally:
            await follower.aclose()

    def wake(self, ids: Iterable[str]) -> None:
        """Something else about these changed: the health of their devices."""
        for id_ in ids:
            for waker in self._wakers.get(id_, ()):
                waker.set()

    def wake_all(self) -> None:
        """The books were read back from the store: everyone looks again."""
        for wakers in self._wakers.values():
            for waker in wakers:
                waker.set()
