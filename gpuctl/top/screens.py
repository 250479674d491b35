"""What lies over the lists: one noun looked at closely, a question, the help."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Final

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen, Screen
from textual.widgets import Button, RichLog, Static

from gpuctl.top.actions import Action
from gpuctl.top.grid import STYLES
from gpuctl.top.keys import Keys
from gpuctl.top.shown.field import Cell, wrapped
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
_SCROLLS: Final = {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": -10, "pagedown": 10}
_KEY_WIDTH: Final = 15
_DIALOG_WIDTH: Final = 70
_BORDER_WIDTH: Final = 7  # with the blanks in it, and a scrollbar
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
        own_hint: str,
    ) -> None:
        super().__init__()
        self.noun = name
        self._lines = lines
        self._tail = tail(self._heard) if tail is not None else None
        self._own_hint = own_hint
        # What the tail told, to be wrapped anew when the width changes.
        self._told: deque[str] = deque(maxlen=_MOST_OUTPUT_LINES)

    def compose(self) -> ComposeResult:
        """The noun above, its output below, the keys at the end."""
        with VerticalScroll(id="closely", classes="shares" if self._tail is not None else ""):
            yield Static(id="noun", markup=False)
        if self._tail is not None:
            yield RichLog(
                id="output", max_lines=_MOST_OUTPUT_LINES, markup=False, wrap=True, min_width=1
            )
        yield Keys("Esc back", self._own_hint, "↑ ↓ scroll", "? help", "q quit")

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
        self.call_after_refresh(self._write_anew)

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
        self._told.extend(message.lines)
        self._write(message.lines)

    def _write(self, lines: Iterable[str]) -> None:
        output = self.query_one("#output", RichLog)
        for line in lines:
            output.write(Text(line), expand=True)

    def _write_anew(self) -> None:
        if self._told:
            self.query_one("#output", RichLog).clear()
            self._write(self._told)


def _room(screen: Screen[Any]) -> int:
    """Columns of text in a dialog, beside its border."""
    return max(1, min(_DIALOG_WIDTH, screen.app.size.width - _BORDER_WIDTH))


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
            for text, tone in ((self._action.asked, "strong"), (self._action.consequence, "")):
                lines = list(wrapped(((text, tone),), _room(self), 0))
                yield Static(text_of_lines(lines), markup=False)
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
    """The keys, and the marks of the bars. Any key leads back, but those that scroll."""

    def __init__(self, marks: Sequence[Cell], *, readonly: bool) -> None:
        super().__init__()
        self._marks = marks
        self._readonly = readonly

    def compose(self) -> ComposeResult:
        """All of it at once."""
        keys: list[Cell] = [
            ((key.ljust(_KEY_WIDTH), "strong"), (what, ""))
            for key, what in HELP
            if not (self._readonly and key in _CHANGES)
        ]
        room = _room(self)
        lines = [part for line in keys for part in wrapped(line, room, _KEY_WIDTH)]
        with VerticalScroll(classes="dialog", can_focus=False):
            yield Static(text_of_lines([*lines, (("", ""),), *self._marks]), markup=False)

    def on_key(self, event: events.Key) -> None:
        """Whichever it is; those that scroll do so where there is not room for all."""
        if event.key in _SCROLLS:
            self.query_one(VerticalScroll).scroll_relative(y=_SCROLLS[event.key], animate=False)
        else:
            _ = self.dismiss()

    def on_click(self) -> None:
        """Likewise."""
        _ = self.dismiss()
