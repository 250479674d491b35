"""The end of a screen: what its keys do, and for a while what came of one."""

from __future__ import annotations

from typing import Final

from rich.cells import cell_len
from rich.text import Text
from textual.timer import Timer
from textual.widgets import Static

from gpuctl.top.grid import STYLES

_SAID_SECONDS: Final = 8.0


class Keys(Static):
    """One line; more only while it says something longer, so that it covers no row."""

    def __init__(self, *hints: str) -> None:
        super().__init__(markup=False)
        self._hints = hints
        self._said: Text | None = None
        self._until: Timer | None = None

    def hint(self, *hints: str) -> None:
        """What keys do from now on, the likeliest first: those that have no room are left out."""
        if hints != self._hints:
            self._hints = hints
            self._draw()

    def say(self, text: str, tone: str = "") -> None:
        """In their place, for a few seconds."""
        self._said = Text(text, STYLES[tone])
        if self._until is not None:
            self._until.stop()
        self._until = self.set_timer(_SAID_SECONDS, self._unsay)
        self._draw()

    def _unsay(self) -> None:
        self._said = None
        self._draw()

    def on_resize(self) -> None:
        """As many as have room now."""
        self._draw()

    def _draw(self) -> None:
        hints = [hint for hint in self._hints if hint]
        while len(hints) > 1 and cell_len("  ".join(hints)) > self.size.width:
            hints.pop()
        self.update(self._said or Text("  ".join(hints), STYLES["dim"]))
