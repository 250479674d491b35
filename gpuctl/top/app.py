"""The program: it draws what the source tells, and does what keys ask for."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from typing import ClassVar

from grpc import StatusCode
from textual import events, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Input, Static

from gpuctl.failures import Failure
from gpuctl.glance.split import Part
from gpuctl.session import Session
from gpuctl.tables import clean
from gpuctl.top.actions import Action, Actions
from gpuctl.top.grid import Grid
from gpuctl.top.keys import Keys
from gpuctl.top.screens import Confirm, Detail, Help, text_of
from gpuctl.top.shown.devices import BAR_TONES
from gpuctl.top.shown.field import Cell
from gpuctl.top.shown.heading import host_line, node_line, trouble_line
from gpuctl.top.shown.more import noun_lines
from gpuctl.top.shown.order import Order
from gpuctl.top.shown.panes import PANES, Sight, drawn, headers, order_text, title
from gpuctl.top.shown.past import Past
from gpuctl.top.shown.told import Told
from gpuctl.top.source import Heard, Kept, Lost, News, Source
from gpuctl.top.style import CSS
from gpuctl.top.tail import Tail
from gpuctl.units import span_text

# What else is on the screen: three lines of heading, two titles, the keys.
_AROUND_LINES = 6
_LEAST_BELOW = 6
# Older than so many intervals, a snapshot is told as old.
_OLD_INTERVALS = 4
_OLD_SECONDS = 5.0
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_BELOW = PANES[1:]
# Below so many columns the titles of the lists are short.
_NARROW = 66
# What is done to a row, by the list, or by the noun that is looked at closely.
_DOES = {
    "devices": "c cordon",
    "instances": "u unload",
    "reservations": "x release",
    "queue": "x end waiting",
    "alerts": "a acknowledge",
}


def _is_final(failure: Failure) -> bool:
    """Whether gpud itself says what it would say again."""
    return bool(failure.reason) and failure.code is not StatusCode.UNAVAILABLE


class Top(App[None]):
    """`heeds_signals`: a process of its own, which ends on SIGTERM with its terminal restored."""

    CSS = CSS
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("q", "quit", show=False),
        Binding("ctrl+z", "suspend_process", show=False, priority=True),
        Binding("question_mark,h,f1", "help", show=False),
        *(Binding(str(at), f"open({at})", show=False) for at in range(1, len(PANES) + 1)),
        Binding("tab,shift+tab", "other", show=False, priority=True),
        Binding("slash", "filter", show=False),
        Binding("s", "sort", show=False),
        Binding("r", "turn", show=False),
        Binding("escape", "unfilter", show=False),
        Binding("c", "ask('cordon')", show=False),
        Binding("u", "ask('unload')", show=False),
        Binding("x", "ask('release')", show=False),
        Binding("a", "ask('acknowledge')", show=False),
    ]

    class Came(Message):
        """From the thread that reads."""

        def __init__(self, news: News) -> None:
            super().__init__()
            self.news = news

    def __init__(
        self, session: Session, interval: float, *, readonly: bool, heeds_signals: bool = False
    ) -> None:
        super().__init__(ansi_color=True)
        self.told: Told | None = None
        self.lost: Lost | None = None
        # What ended it before anything was seen.
        self.refused: Failure | None = None
        self.below = _BELOW[0]
        self._session = session
        self._readonly = readonly
        self._heeds_signals = heeds_signals
        self._actions = Actions(session)
        self._past = Past()
        self._orders = {pane.id: Order() for pane in PANES}
        self._wanted = ""
        # The list that has the keys, or had them before the filter took them.
        self._pane_id = PANES[0].id
        # By time.monotonic: when the newest was heard, and since when nothing is.
        self._heard_at = time.monotonic()
        self.source = Source(session.client, interval, self._deliver)

    def compose(self) -> ComposeResult:
        """Headings, devices, one of the other lists, the keys."""
        for each in ("node", "host", "trouble"):
            yield Static(id=each, markup=False)
        yield Static(id="title-devices", classes="title", markup=False)
        yield Grid(id="devices")
        with Horizontal(classes="title"):
            for pane in _BELOW:
                yield Static(id=f"title-{pane.id}", classes="tab", markup=False)
            yield Static(id="order", markup=False)
        for pane in _BELOW:
            grid = Grid(id=pane.id)
            grid.display = pane is self.below
            yield grid
        yield Input(id="filter", placeholder="words that rows have to have")
        yield Keys()

    def on_mount(self) -> None:
        """Begin to follow."""
        self.query_one("#filter").display = False
        self.query_one("#devices", Grid).focus()
        if self._heeds_signals:
            loop = asyncio.get_running_loop()
            for number in _SIGNALS:
                loop.add_signal_handler(number, self._end, number)
        self._draw()
        self.app_resume_signal.subscribe(self, lambda _: self._begin_screen_anew())
        self.set_interval(1.0, self._draw_link)
        self.source.start()

    def on_unmount(self) -> None:
        """Follow no more."""
        self.source.stop()

    def _begin_screen_anew(self) -> None:
        """After Ctrl-Z and `fg` the terminal has nothing of it any more."""
        for screen in self.screen_stack:
            screen.refresh(layout=True)

    def _end(self, number: int) -> None:
        self.exit(return_code=128 + number)

    @property
    def _base(self) -> Screen[object]:
        """With the lists, whatever lies over it."""
        return self.screen_stack[0]

    # What is heard ---------------------------------------------------------------------------

    def _deliver(self, news: News) -> None:
        self.post_message(self.Came(news))

    def on_top_came(self, message: Top.Came) -> None:
        """It is drawn at once."""
        match message.news:
            case Kept() as kept:
                self._past.seed(kept.series, kept.step)
            case Lost() as lost:
                self.lost = lost
                if self.told is None and _is_final(lost.failure):
                    self.refused = lost.failure
                    self.exit()
                self._draw()
            case Heard() as heard:
                self.told, self.lost = heard.told, None
                self._heard_at = time.monotonic()
                self._past.see(heard.told.snapshot, self.source.interval)
                self._draw()

    @property
    def _away_seconds(self) -> float | None:
        """How long nothing was heard; None while it comes as it should."""
        silent = time.monotonic() - self._heard_at
        longest = max(_OLD_SECONDS, self.source.interval * _OLD_INTERVALS)
        return silent if self.lost is not None or silent > longest else None

    # What is drawn ---------------------------------------------------------------------------

    def on_grid_resized(self) -> None:
        """The columns that fit now, also after the terminal changed behind another screen."""
        self._draw()

    def _draw(self) -> None:
        """All that can be seen."""
        if not self.is_running or not self.query("#devices"):
            return
        for screen in self.screen_stack:
            if isinstance(screen, Detail):
                screen.look()
        base = self._base
        sight = Sight(told=self.told, past=self._past) if self.told is not None else None
        base.query_one("#devices", Grid).styles.height = self._devices_height()
        for pane in PANES:
            is_shown = pane.id in {"devices", self.below.id}
            is_narrow = base.size.width < _NARROW
            cell = title(pane, self.told, is_shown=is_shown, is_narrow=is_narrow)
            if pane.id == "devices":
                cell = (*cell, *self._order_cell(pane.id))
            self._set(f"title-{pane.id}", cell)
            if sight is not None and is_shown:
                grid = base.query_one(f"#{pane.id}", Grid)
                grid.show(drawn(pane, sight, self._orders[pane.id], self._wanted, grid.room))
        self._set("order", self._order_cell(self.below.id))
        base.query_one(Keys).hint(*self._hints())
        self._draw_link()

    def _draw_link(self) -> None:
        """The heading, which also tells how long gpud is away; what it said before is dimmed."""
        away = self._away_seconds
        told, width = self.told, self._base.size.width
        for grid in self._base.query(Grid):
            grid.is_old = away is not None
        if told is not None:
            self._set("node", node_line(told, is_away=away is not None))
            host = host_line(told, width)
            self._set("host", host if away is None else tuple((text, "dim") for text, _ in host))
        if away is not None:
            why = clean(self.lost.failure.message) if self.lost else "it says nothing"
            self._set("trouble", ((f"gpud is away for {span_text(round(away))}: {why}", "bad"),))
        elif told is None:
            self._set("trouble", (("waiting for the first snapshot", "dim"),))
        else:
            self._set("trouble", trouble_line(told, width) or (("all is well", "dim"),))

    def _devices_height(self) -> int:
        """As many lines as there are devices, but never all of the screen."""
        body = max(4, self._base.size.height - _AROUND_LINES)
        count = len(self.told.devices) if self.told is not None else 0
        return min(max(2, count + 1), max(body - _LEAST_BELOW, body // 2))

    def _order_cell(self, pane_id: str) -> Cell:
        parts = [order_text(self._orders[pane_id]), f"/{self._wanted}" if self._wanted else ""]
        return (("  " + "  ".join(part for part in parts if part), "warn"),)

    def _hints(self) -> tuple[str, ...]:
        own = self._own_hint(self._pane_id)
        return ("q quit", "? help", own, "Enter open", "/ filter", "s sort", "Tab list")

    def _own_hint(self, kind: str) -> str:
        return "read only" if self._readonly else _DOES[kind]

    def _say(self, text: str, tone: str = "") -> None:
        """On whatever screen is seen now, or is next."""
        for screen in self.screen_stack:
            for keys in screen.query(Keys):
                keys.say(text, tone)

    def _set(self, id: str, cell: Cell) -> None:
        """Only what changed is drawn anew."""
        widget = self._base.query_one(f"#{id}", Static)
        text = text_of(cell)
        if text != widget.content:
            widget.update(text)

    # What keys ask for -----------------------------------------------------------------------

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """A list has the keys, by whatever way: the filter has them no more."""
        if isinstance(event.widget, Grid):
            self._pane_id = event.widget.id or ""
            self._base.query_one("#filter").display = False
            self._draw()

    def _focused_grid(self) -> Grid:
        return self._base.query_one(f"#{self._pane_id}", Grid)

    def action_open(self, number: int) -> None:
        """The list of that key."""
        if len(self.screen_stack) > 1:
            _ = self.pop_screen()
        pane = PANES[number - 1]
        if pane is not PANES[0]:
            self.below = pane
            for each in _BELOW:
                self._base.query_one(f"#{each.id}").display = each is pane
        self._base.query_one(f"#{pane.id}", Grid).focus()
        self.call_after_refresh(self._draw)

    def action_other(self) -> None:
        """The devices, or the list below them."""
        if len(self.screen_stack) > 1:
            self.screen.focus_next()
            return
        other = self.below.id if self._pane_id == PANES[0].id else PANES[0].id
        self._base.query_one(f"#{other}", Grid).focus()

    def action_sort(self) -> None:
        """By the next column."""
        grid = self._focused_grid()
        pane = next(each for each in PANES if each.id == self._pane_id)
        if self.told is not None:
            sight = Sight(told=self.told, past=self._past)
            known = headers(pane, sight, grid.room)
            self._orders[pane.id] = self._orders[pane.id].next_of(known)
            self._draw()

    def action_turn(self) -> None:
        """The other way round."""
        self._orders[self._pane_id] = self._orders[self._pane_id].turned()
        self._draw()

    def action_filter(self) -> None:
        """Ask for words."""
        if len(self.screen_stack) == 1:
            self._base.query_one("#filter").display = True
            self._base.query_one("#filter", Input).focus()

    def action_unfilter(self) -> None:
        """All rows again."""
        self._base.query_one("#filter", Input).value = ""
        self._focused_grid().focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Rows go and come while it is typed."""
        self._wanted = event.value
        self._draw()

    def on_input_submitted(self) -> None:
        """Keep it, and go back to the rows."""
        self._focused_grid().focus()

    def on_grid_opened(self, message: Grid.Opened) -> None:
        """One noun, closely."""
        name = message.grid.key
        tail = self._tail_of(name) if name.startswith("instances/") else None
        self.source.look_at(name if name.partition("/")[0] in {"devices", "instances"} else "")
        own = self._own_hint(name.partition("/")[0])
        detail = Detail(name, lambda width: self._noun(name, width), tail, own)
        _ = self.push_screen(detail, self._left)
        self._ask_lists()

    def _tail_of(self, name: str) -> Callable[[Callable[[list[str]], object]], Tail]:
        return lambda deliver: Tail(self._session.client, name, deliver)

    def _noun(self, name: str, width: int) -> list[Cell]:
        return noun_lines(self.told, name, width) if self.told is not None else []

    def _left(self, _: None) -> None:
        self.source.look_at("")

    def action_help(self) -> None:
        """The keys, and the marks of the bars."""
        if not isinstance(self.screen, (Help, Confirm)):
            marks = [((f"{p.mark}  ", BAR_TONES[p]), (p.says, "")) for p in Part]
            _ = self.push_screen(Help(marks, readonly=self._readonly))

    @work
    async def action_ask(self, name: str) -> None:
        """A change of what is under the cursor, once it was confirmed."""
        target = self.screen.noun if isinstance(self.screen, Detail) else self._focused_grid().key
        if self.told is None or not target:
            return
        action = getattr(self._actions, name)(self.told, target)
        if action is None:
            return
        if self._readonly:
            self._say("this is a read-only view", "warn")
        elif await self.push_screen_wait(Confirm(action)):
            self._do(action)

    @work(thread=True, exit_on_error=False, group="do")
    def _do(self, action: Action) -> None:
        try:
            came = action.do()
        except Failure as failure:
            text = "\n".join([clean(failure.message), *map(clean, failure.notes)])
            self.call_from_thread(self._say, text, "bad")
        else:
            self.call_from_thread(self._say, clean(came))
        self.source.look()

    @work(thread=True, exit_on_error=False, group="look", exclusive=True)
    def _ask_lists(self) -> None:
        self.source.look()
