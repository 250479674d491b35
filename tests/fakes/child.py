"""A sampling process that the test speaks for, and that may refuse to die."""

from __future__ import annotations

import asyncio

from gpud.devices.sampling.child import Child, Receive
from gpud.devices.sampling.frames import AnyFrame, Orders


class FakeChild(Child):
    def __init__(self, orders: Orders, receive: Receive, pid: int) -> None:
        # Not super().__init__: that starts a process.
        self.orders = orders
        self.commands: list[str] = []
        self._commanded = asyncio.Event()
        self.is_killable = True
        self.is_abandoned = False
        self.ended = asyncio.Event()
        self.busy_with: str | None = None
        self.busy_since = asyncio.get_running_loop().time()
        self.asked_last = ""
        self._receive = receive
        self._pid = pid

    @property
    def pid(self) -> int:
        return self._pid

    def say(self, frame: AnyFrame) -> None:
        self.busy_since = asyncio.get_running_loop().time()
        if frame.then is not None:
            self.busy_with = frame.then
        self._receive(self, frame)

    def end(self) -> None:
        self.ended.set()

    def command(self, line: str) -> None:
        self.commands.append(line)
        self._commanded.set()

    async def heard(self, count: int) -> None:
        """Wait until so many commands have come."""
        while len(self.commands) < count:
            self._commanded.clear()
            await self._commanded.wait()

    def abandon(self) -> None:
        self.is_abandoned = True
        self.ended.set()

    def is_gone(self) -> bool:
        return self.is_abandoned and self.is_killable

    def exit_text(self) -> str:
        return "exit code 1"


class FakeSpawner:
    """Gives the sampler its children; `alive` are those not abandoned."""

    def __init__(self) -> None:
        self.children: list[FakeChild] = []
        self._spawned = asyncio.Event()

    def __call__(self, orders: Orders, receive: Receive) -> FakeChild:
        child = FakeChild(orders, receive, pid=len(self.children) + 1)
        self.children.append(child)
        self._spawned.set()
        return child

    async def next(self, number: int, within_seconds: float = 60.0) -> FakeChild:
        """The child of that number, from 1, once it is there."""
        async with asyncio.timeout(within_seconds):
            while len(self.children) < number:
                self._spawned.clear()
                await self._spawned.wait()
        return self.children[number - 1]
