"""The phases of a load or an unload on stderr: bars on a terminal, else a plain line each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

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


@contextmanager
def phases(session: Session) -> Iterator[Report]:
    """What to tell each step to, while the block lasts."""
    if not sys.stderr.isatty():
        yield _Lines().report
        return
    from rich.console import Console

    console = Console(
        stderr=True, no_color=not session.colors(sys.stderr), highlight=False, markup=False
    )
    if console.is_dumb_terminal:
        yield _Lines().report
        return
    with _bars(console) as progress:
        bars = _Bars(progress)
        yield bars.report
        bars.finish()


class _Lines:
    """A line when a phase begins, and nothing more until the next."""

    def __init__(self) -> None:
        self._phase = ""

    def report(self, step: Step) -> None:
        if step.phase == self._phase:
            return
        self._phase = step.phase
        line = f"{span_text(step.elapsed_seconds):>6}  {step.phase:<9}  {clean(step.detail)}"
        print(line.rstrip(), file=sys.stderr, flush=True)


class _Bars:
    """A bar for each phase; a phase that does not tell its fraction pulses until the next."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._phase = ""
        self._task: TaskID | None = None

    def report(self, step: Step) -> None:
        if step.phase != self._phase or self._task is None:
            self.finish()
            self._phase = step.phase
            self._task = self._progress.add_task(step.phase, total=None, detail="")
        if step.fraction is not None:
            self._progress.update(self._task, total=1.0, completed=step.fraction)
        if step.detail:
            self._progress.update(self._task, detail=clean(step.detail))

    def finish(self) -> None:
        """The phase under way is over."""
        if self._task is not None:
            self._progress.update(self._task, total=1.0, completed=1.0)


def _bars(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    # Text from engines is never markup.
    return Progress(
        TextColumn("{task.description:<9}", markup=False, style="none"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}", markup=False, style="none"),
        console=console,
    )
