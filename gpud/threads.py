"""A thread of its own for work that blocks; refused in words where the host lets none start."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from gpud.errors import GpudError


@dataclass(kw_only=True, eq=False)
class ThreadRefused(GpudError):
    """The host lets no thread start just now: that says nothing against what it was for."""

    reason = "HOST_EXHAUSTED"

    work: str
    problem: str

    def __str__(self) -> str:
        return (
            f"cannot {self.work}: the host lets gpud start no thread ({self.problem}); see that "
            "it has processes and memory left (`ulimit -u`, TasksMax of the unit, `free`), then "
            "try again"
        )


def start(run: Callable[[], None], name: str, work: str) -> None:
    """Run it in a daemon thread of that name; `work` says what for, in words.

    Raises ThreadRefused, and then nothing of it runs: the caller undoes what it noted of it.
    """
    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except (RuntimeError, MemoryError) as error:
        raise ThreadRefused(work=work, problem=str(error) or "no memory") from error
