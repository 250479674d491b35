"""Where an instance is, for those who follow it: every phase is seen, each at its newest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from gpud.instances.instance import Instance, LoadPhase, UnloadPhase


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a client of a load or an unload sees: the instance as durable, and where it is."""

    instance: Instance
    phase: LoadPhase | UnloadPhase
    fraction: float | None = None
    detail: str = ""
    elapsed_seconds: float = 0.0
    freed_bytes: int | None = None


class Trail:
    """The newest progress of each phase passed, in order; as long as a life has phases.

    A follower that is slow misses steps within a phase, never a phase of the present start.
    """

    def __init__(self) -> None:
        self._steps: list[Progress] = []
        self._forgotten = 0  # steps before these
        self._changed = asyncio.Event()
        self._closed = False

    def publish(self, progress: Progress) -> None:
        """The same phase's newest, or the next phase's first."""
        if self._steps and self._steps[-1].phase is progress.phase:
            self._steps[-1] = progress
        else:
            self._steps.append(progress)
        self._wake()

    def begin_anew(self) -> None:
        """It is started again: of what was before, only where it is now is told to who comes."""
        self._forgotten += max(0, len(self._steps) - 1)
        del self._steps[:-1]

    def close(self) -> None:
        """Nothing comes any more: followers end."""
        self._closed = True
        self._wake()

    async def follow(self, *, from_start: bool) -> AsyncIterator[Progress]:
        """Every phase from the first, or from the present one, until closed."""
        at = self._forgotten + (0 if from_start else max(0, len(self._steps) - 1))
        shown: Progress | None = None
        while True:
            changed = self._changed
            at = max(at, self._forgotten)
            index = at - self._forgotten
            if index < len(self._steps) and self._steps[index] is not shown:
                shown = self._steps[index]
                yield shown
            elif index < len(self._steps) - 1:
                at += 1
            elif self._closed:
                return
            else:
                await changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
