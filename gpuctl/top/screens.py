"""What lies over the lists: one noun looked at closely, a question, the help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen, Screen
from textual.widgets import Button, RichLog, Static

from gpuctl.top.actions import Action
from gpuctl.top.grid import STYLES
from gpuctl.top.shown.field import Cell
from gpuctl.top.tail import Tail

_MOST_OUTPUT_LINES = 1000

HELP: Final = (
    ("1 … 5, Tab", "devices, instances, reservations, queue, alerts"),
    ("↑ ↓ PgUp PgDn", "another row; j and k do it too"),
    ("Enter", "look at the row closely; Esc leads back"),
    ("/", "only rows with these words; Esc ends it"),
    ("s, r", "sort by the next column; turn the order round"),
    ("c", "cordon the device, or uncordon it"),
    ("u", "unload the instance"),
    ("x", "release the reservation, or end its waiting"),
    ("a", "acknowledge the alert"),
    ("q, Ctrl-C", "quit"),
)
_CHANGES: Final = {"c", "u", "x", "a"}


def text_of(cell: Cell) -> Text:
    """A cell as Textual takes it; nothing in it is markup."""
    text = Text(no_wrap=True, overflow="ellipsis")
    for part, tone in cell:
        text.append(part, STYLES[tone])
    return text


def text_of_lines(lines: Sequence[Cell]) -> Text:
    """Several, each on its own line."""
    return Text("\n", no_wrap=True, overflow="ellipsis").join(map(text_of, lines))


class Detail(Screen[None]):
    """`lines` tells what is to be seen, in a width; `tail`, where it has one, what it wrote."""

    class Wrote(Message):
        """Lines of its output, clean ones."""

        def __init__(self, lines: list[str]) -> None:
            super().__init__()
            self.lines = lines

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,backspace", "app.pop_screen", "back"),
        Binding("up,k", "scroll(-1)", show=False),
        Binding("down,j", "scroll(1)", show=False),
    ]

    def __init__(
        self,
        name: str,
        lines: Callable[[int], list[Cell]],
        tail: Callable[[Callable[[list[str]], object]], Tail] | None,
    ) -> None:
        super().__init__()
        self.noun = name
        self._lines = lines
        self._tail = tail(self._heard) if tail is not None else None

    def compose(self) -> ComposeResult:
        """The noun above, its output below, the keys at the end."""
        with VerticalScroll(id="closely"):
            yield Static(id="noun", markup=False)
        if self._tail is not None:
            yield RichLog(id="output", max_lines=_MOST_OUTPUT_LINES, markup=False, wrap=False)
        yield Static("Esc back  ↑ ↓ scroll  ? help  q quit", classes="keys", markup=False)

    def on_mount(self) -> None:
        """Begin to read what it wrote."""
        self.look()
        if self._tail is not None:
            self._tail.start()

    def on_unmount(self) -> None:
        """Read no more."""
        if self._tail is not None:
            self._tail.stop()

    def on_resize(self) -> None:
        """Drawn anew, in the width that there is now."""
        self.look()

    def look(self) -> None:
        """As it is now."""
        room = max(20, self.size.width - 2)
        self.query_one("#noun", Static).update(text_of_lines(self._lines(room)))

    def action_scroll(self, by: int) -> None:
        """By so many lines."""
        self.query_one("#closely", VerticalScroll).scroll_relative(y=by, animate=False)

    def _heard(self, lines: list[str]) -> None:
        """In the thread of the tail."""
        self.post_message(self.Wrote(lines))

    def on_detail_wrote(self, message: Detail.Wrote) -> None:
        """Below what was there."""
        output = self.query_one("#output", RichLog)
        for line in message.lines:
            output.write(Text(line, no_wrap=True))


# To wait for a screen's end within it would be to wait for oneself: hence `_ = self.dismiss(…)`.


class Confirm(ModalScreen[bool]):
    """A question that is answered by y or n; Enter alone means no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", show=False),
        Binding("n,escape,q", "answer(False)", show=False),
        Binding("left,right,tab", "app.focus_next", show=False),
    ]

    def __init__(self, action: Action) -> None:
        super().__init__()
        self._action = action

    def compose(self) -> ComposeResult:
        """The question, what follows from it, two buttons."""
        with Vertical(classes="dialog"):
            yield Static(Text(self._action.asked, STYLES["strong"]))
            yield Static(Text(self._action.consequence))
            with Horizontal(classes="buttons"):
                yield Button("No (n)", id="no")
                yield Button("Yes (y)", id="yes")

    def on_mount(self) -> None:
        """Enter alone means no."""
        self.query_one("#no").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """By the mouse, or Enter."""
        _ = self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        """By its letter."""
        _ = self.dismiss(yes)


class Help(ModalScreen[None]):
    """The keys, and the marks of the bars. Any key leads back."""

    def __init__(self, marks: Sequence[Cell], *, readonly: bool) -> None:
        super().__init__()
        self._marks = marks
        self._readonly = readonly

    def compose(self) -> ComposeResult:
        """All of it at once."""
        keys: list[Cell] = [
            ((f"{key:<15}", "strong"), (what, ""))
            for key, what in HELP
            if not (self._readonly and key in _CHANGES)
        ]
        with Vertical(classes="dialog"):
            yield Static(text_of_lines([*keys, (("", ""),), *self._marks]), markup=False)

    def on_key(self) -> None:
        """Whichever it is."""
        _ = self.dismiss()

    def on_click(self) -> None:
        """Likewise."""
        _ = self.dismiss()
