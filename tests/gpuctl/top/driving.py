"""`gpuctl top` on a screen in memory, driven by its keys; waits are for what it draws."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from textual.pilot import Pilot

from gpuctl.session import Session
from gpuctl.top.app import Top
from gpuctl.top.grid import Grid

# Only to end a hang.
PATIENCE_SECONDS = 50.0


@dataclass(kw_only=True)
class Seen:
    """The screen, and the hands at its keys."""

    app: Top
    pilot: Pilot[None]
    _passed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def lines(self) -> list[str]:
        """What stands on it."""
        strips = self.app.screen._compositor.render_strips()
        return [strip.text.rstrip() for strip in strips]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def row(self, first: str) -> str:
        """The line that begins with a word; empty where none does."""
        return next((line for line in self.lines if line.split()[:1] == [first]), "")

    def cells(self, grid: str, first: str) -> dict[str, str]:
        """A row of a list by its headers."""
        found = self.app.screen_stack[0].query_one(f"#{grid}", Grid)
        for line in found.rows:
            texts = ["".join(text for text, _ in cell) for cell in line.cells]
            if texts[0].strip() == first:
                return dict(zip([head.text for head in found.drawn.heads], texts, strict=True))
        return {}

    def order(self, grid: str) -> list[str]:
        """The first words of a list's rows."""
        rows = self.app.screen_stack[0].query_one(f"#{grid}", Grid).rows
        return ["".join(text for text, _ in row.cells[0]).strip() for row in rows]

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def until(self, holds: Callable[[], object]) -> None:
        """Until it holds; looked at whenever the program has dealt with something."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not holds():
                    self._passed.clear()
                    await self._passed.wait()
                    await asyncio.sleep(0)
        except TimeoutError:
            raise AssertionError(f"it never held; the screen:\n{self.text}") from None

    async def shows(self, *texts: str) -> None:
        await self.until(lambda: all(text in self.text for text in texts))


@asynccontextmanager
async def on_screen(
    address: str, *, size: tuple[int, int] = (80, 24), readonly: bool = False
) -> AsyncIterator[Seen]:
    """The program, from its start until its end; its source as fast as the daemon's samples."""
    session = Session()
    session.set(address=address)
    app = Top(session, 0.0, readonly=readonly)
    passed = asyncio.Event()
    try:
        async with app.run_test(
            size=size, notifications=True, message_hook=lambda _: passed.set()
        ) as pilot:
            yield Seen(app=app, pilot=pilot, _passed=passed)
    finally:
        session.close()
