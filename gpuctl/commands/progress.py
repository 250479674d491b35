"""The phases of a load or an unload on stderr: bars on a terminal, else a plain line each."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gpuctl.tables import clean
from gpuctl.units import span_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from gpuctl.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One message of progress. `fraction`: within the phase, 0..1; None where it is not told."""

    phase: str
    fraction: float | None
    detail: str
    elapsed_seconds: float


Report = Callable[[Step], None]

# Phases that nothing follows.
_ENDS = {"READY", "STOPPED"}
_BAR_WIDTH = 24
# Without a terminal: a phase that takes less has one line, and one of a count comes as often.
_NEWS_SECONDS = 5.0
_DIGITS = re.compile(r"\d+")


@contextmanager
def phases(session: Session) -> Iterator[Report]:
    """What to tell each step to, while the block lasts."""
    with ExitStack() as shown:
        console = _terminal(session)
        told = _Bars(shown.enter_context(_bars(console))) if console is not None else _Lines()
        shown.callback(told.stop)
        yield told.report


def _terminal(session: Session) -> Console | None:
    """The terminal that stderr is, if one that can redraw lines."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console

    no_color = not session.colors(sys.stderr)
    console = Console(stderr=True, no_color=no_color, highlight=False, markup=False)
    return None if console.is_dumb_terminal else console


class _Lines:
    """A line for each phase, with the moment when it began.

    It is written once the phase tells a detail, which may come after its first message, or ends.
    A long phase has a further line where it tells something else than in its last one, though
    not for each step of a count.
    """

    def __init__(self) -> None:
        self._first: Step | None = None  # of the phase
        self._untold: Step | None = None
        self._told: Step | None = None  # the last line, of whichever phase

    def report(self, step: Step) -> None:
        if self._first is None or step.phase != self._first.phase:
            self.stop()
            self._first = self._untold = step
        elif self._is_news(step, self._first):
            self._untold = step
        if self._untold is not None and step.detail:
            self._untold = replace(self._untold, detail=step.detail)
            self.stop()

    def _is_news(self, step: Step, first: Step) -> bool:
        told = self._told
        if told is None or told.phase != step.phase or step.detail in {"", told.detail}:
            return False
        counts = _DIGITS.sub("", told.detail) == _DIGITS.sub("", step.detail)
        since = told if counts else first
        return step.elapsed_seconds - since.elapsed_seconds >= _NEWS_SECONDS

    def stop(self) -> None:
        """No more is told of the phase under way."""
        if self._untold is not None:
            step, self._untold = self._untold, None
            self._told = step
            line = f"{span_text(step.elapsed_seconds):>6}  {step.phase:<9}  {clean(step.detail)}"
            print(line.rstrip(), file=sys.stderr, flush=True)


class _Bars:
    """A row for each phase with a bar and the time that it takes; the last one has the whole time.

    A phase that does not tell its fraction pulses while it lasts.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._step: Step | None = None
        self._task: TaskID | None = None

    def report(self, step: Step) -> None:
        if self._step is None or self._task is None or step.phase != self._step.phase:
            self._leave(step)
            self._step = step
            whole = step.elapsed_seconds if step.phase in _ENDS else None
            self._task = self._progress.add_task(step.phase, total=None, detail="", took=whole)
        if step.fraction is not None:
            self._progress.update(self._task, total=1.0, completed=step.fraction)
        if step.detail:
            self._progress.update(self._task, detail=clean(step.detail))

    def _leave(self, following: Step) -> None:
        """The phase under way took until the one that follows began, by gpud's own clock."""
        if self._step is None or self._task is None:
            return
        took = following.elapsed_seconds - self._step.elapsed_seconds
        self._progress.update(self._task, total=1.0, completed=1.0, took=took)

    def stop(self) -> None:
        """No more is told: whatever was under way stands still."""
        if self._task is not None:
            self._progress.stop_task(self._task)


def _bars(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Bar(BarColumn):
        """A bar while there is something to wait for, and its full length after that."""

        def render(self, task: Task) -> Any:
            if task.description in _ENDS or (task.total is None and task.stop_time is not None):
                return Text(" " * _BAR_WIDTH)
            return super().render(task)

    class Took(ProgressColumn):
        """The time as gpud told it; until then as it runs here."""

        def render(self, task: Task) -> Text:
            took = task.fields["took"]
            return Text(f"{span_text(task.elapsed if took is None else took):>6}")

    # Text from engines is never markup, and however long it is, each phase keeps to one line.
    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    return Progress(
        TextColumn("{task.description:<9}", markup=False, style="none"),
        Bar(bar_width=_BAR_WIDTH),
        Took(),
        TextColumn("{task.fields[detail]}", markup=False, style="none", table_column=rest),
        console=console,
        expand=True,
    )
