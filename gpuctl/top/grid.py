"""A list on the screen, of which only those lines are drawn anew that changed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from gpuctl.top.shown.field import GAP, Cell, Drawn, Head, Line, shortened

# By the terminal's own palette: 16 colours do, whatever its background is.
STYLES = {
    "": Style(),
    "good": Style(color="green"),
    "warn": Style(color="yellow"),
    "bad": Style(color="red", bold=True),
    "dim": Style(dim=True),
    "strong": Style(bold=True),
    "sorted": Style(underline=True),
    "own": Style(color="green"),
    "promised": Style(color="cyan"),
    "foreign": Style(color="magenta"),
}
_HEADER = Style(bold=True)
_CURSOR = Style(reverse=True)
_ASIDE = Style(underline=True)


class Grid(ScrollView, can_focus=True):
    """The rows; the app says which, by `show`. The header stands, the cursor keeps to its noun."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "move(-1000000)", show=False),
        Binding("end", "move(1000000)", show=False),
        Binding("enter", "open", show=False),
    ]

    class Opened(Message):
        """A row was chosen by Enter, or by the mouse."""

        def __init__(self, grid: Grid) -> None:
            super().__init__()
            self.grid = grid

    class Moved(Message):
        """The cursor is on another row."""

    class Resized(Message):
        """Other columns may have room."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.drawn = Drawn()
        self._at = 0
        self._is_old = False

    @property
    def rows(self) -> tuple[Line, ...]:
        """As they are drawn."""
        return self.drawn.lines

    @property
    def room(self) -> int:
        """How wide rows may be; beside them is where the scrollbar comes and goes."""
        return max(1, self.size.width - 1)

    @property
    def is_old(self) -> bool:
        """Drawn as what may be true no more."""
        return self._is_old

    @is_old.setter
    def is_old(self, is_old: bool) -> None:
        if is_old != self._is_old:
            self._is_old = is_old
            self.refresh()

    @property
    def key(self) -> str:
        """Of the row under the cursor; "" where there is none."""
        return self.rows[self._at].key if self.rows else ""

    def show(self, drawn: Drawn) -> None:
        """What it is from now on."""
        before, kept, at_before = self.drawn, self.key, self._at
        if drawn == before:
            return
        self.drawn = drawn
        keys = [row.key for row in self.rows]
        self._at = keys.index(kept) if kept in keys else max(0, min(self._at, len(keys) - 1))
        if before.heads != drawn.heads or not (before.lines and drawn.lines):
            self._resize()
            self.refresh()
            return
        if len(before.lines) != len(self.rows):
            self._resize()
        for index, (old, new) in enumerate(zip_longest(before.lines, self.rows)):
            if old != new:
                self._refresh_row(index)
        if at_before != self._at:
            self._refresh_row(at_before)
            self._refresh_row(self._at)
            self._keep_in_sight()

    def _resize(self) -> None:
        self.virtual_size = Size(self.size.width, len(self.rows) + 1)

    def _refresh_row(self, index: int) -> None:
        y = index + 1 - self.scroll_offset.y
        if 1 <= y < self.size.height:
            self.refresh(Region(0, y, self.size.width, 1))

    def render_line(self, y: int) -> Strip:
        """The header stands; what is under it scrolls."""
        width = self.size.width
        if y == 0:
            names = [(((head.text, head.tone),), head) for head in self.drawn.heads]
            return _strip(names, width, _HEADER)
        index = y - 1 + self.scroll_offset.y
        if not self.rows and y == 1:
            text = shortened(f"  {self.drawn.empty}", width)
            return Strip([Segment(text, STYLES["dim"])]).adjust_cell_length(width)
        if index >= len(self.rows):
            return Strip.blank(width)
        over = STYLES["dim"] if self._is_old else Style()
        if index == self._at:
            over += _CURSOR if self.has_focus else _ASIDE
        cells = zip(self.rows[index].cells, self.drawn.heads, strict=True)
        return _strip(list(cells), width, over)

    def on_focus(self) -> None:
        """Its cursor shows that it has the keys."""
        self._refresh_row(self._at)

    def on_blur(self) -> None:
        """And that it has them no more."""
        self._refresh_row(self._at)

    def on_resize(self) -> None:
        """The app lays the columns out anew; here only what is scrolled to."""
        self._resize()
        self._keep_in_sight()
        self.post_message(self.Resized())

    def action_move(self, by: int) -> None:
        """The cursor by so many rows."""
        if not self.rows:
            return
        before, self._at = self._at, max(0, min(len(self.rows) - 1, self._at + by))
        if before != self._at:
            self._refresh_row(before)
            self._refresh_row(self._at)
            self._keep_in_sight()
            self.post_message(self.Moved())

    def action_page(self, by: int) -> None:
        """The cursor by a screenful."""
        self.action_move(by * max(1, self.size.height - 2))

    def action_open(self) -> None:
        """Look at the row under the cursor closely."""
        if self.rows:
            self.post_message(self.Opened(self))

    def on_click(self, event: events.Click) -> None:
        """The cursor where the mouse is; a second time there, or twice: closely."""
        index = event.y - 1 + self.scroll_offset.y
        if event.y < 1 or index >= len(self.rows):
            return
        is_there = index == self._at
        self.action_move(index - self._at)
        if event.chain > 1 and is_there:
            self.action_open()

    def _keep_in_sight(self) -> None:
        room = max(1, self.size.height - 1)
        top = self.scroll_offset.y
        if self._at < top:
            self.scroll_to(y=self._at, animate=False, immediate=True)
        elif self._at >= top + room:
            self.scroll_to(y=self._at - room + 1, animate=False, immediate=True)


def _strip(cells: Sequence[tuple[Cell, Head]], width: int, over: Style) -> Strip:
    segments: list[Segment] = []
    for number, (cell, head) in enumerate(cells):
        if number:
            segments.append(Segment(" " * GAP, over))
        segments += _fitted(cell, head, over)
    return Strip(segments).adjust_cell_length(width, over)


def _fitted(cell: Cell, head: Head, over: Style) -> list[Segment]:
    """The stretches of a cell in exactly its width, with `…` where it is too long."""
    length = sum(cell_len(text) for text, _ in cell)
    if length > head.width:
        short = shortened("".join(text for text, _ in cell), head.width)
        return [Segment(set_cell_size(short, head.width), STYLES[cell[0][1]] + over)]
    blank = Segment(" " * (head.width - length), over)
    drawn = [Segment(text, STYLES[tone] + over) for text, tone in cell if text]
    return [blank, *drawn] if head.right else [*drawn, blank]
