"""A running sampler and the snapshots that it publishes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from gpud.devices.sampling.limits import Limits
from gpud.devices.sampling.sampler import Sampler
from gpud.devices.snapshot import Health, Sample, Snapshot

# Only to end a hang: a host may be slow, and busy.
PATIENCE_SECONDS = 60.0
# To be quick where something hangs. A busy host misses them too, and what is left out for that
# comes back; a test in which nothing hangs takes UNHURRIED.
QUICK = Limits(device=0.3, probe_first=0.1, probe_longest=0.2, restart_first=0.01)
UNHURRIED = Limits(device=PATIENCE_SECONDS, restart_first=0.01)


class Watcher:
    """Every snapshot that a sampler publishes."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self._published = asyncio.Event()

    def publish(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)
        self._published.set()

    async def until(self, holds: Callable[[Snapshot], bool]) -> Snapshot:
        """The first snapshot from now on of which this holds."""
        seen = len(self.snapshots)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                for snapshot in self.snapshots[seen:]:
                    if holds(snapshot):
                        return snapshot
                seen = len(self.snapshots)
                self._published.clear()
                await self._published.wait()


@asynccontextmanager
async def running(sampler: Sampler) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(sampler.run())
        try:
            yield
        finally:
            task.cancel()


def sample(snapshot: Snapshot, alias: str) -> Sample:
    found = snapshot.find(alias)
    assert found is not None
    return found


def health(alias: str, wanted: Health) -> Callable[[Snapshot], bool]:
    return lambda snapshot: sample(snapshot, alias).health is wanted


def helpers() -> list[int]:
    """Sampling processes among our own children."""
    me = os.getpid()
    children = Path(f"/proc/{me}/task/{me}/children").read_text().split()
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    return [pid for pid, command in commands.items() if b"gpud.devices.sampling.helper" in command]


def no_helper_lives() -> bool:
    """Once those that were killed have ended, which takes a busy host a while."""
    for pid in helpers():
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return not helpers()
