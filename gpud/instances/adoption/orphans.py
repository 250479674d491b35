"""Processes of instances that no record knows: listed, and ended where they are provably ours."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from gpud.errors import NotFound
from gpud.events import Event
from gpud.instances.adoption import traces
from gpud.instances.adoption.orphan import Known, Orphan, Trace, orphans
from gpud.instances.instance import ProcessIdentity
from gpud.instances.life import House
from gpud.instances.tree import custody

log = structlog.get_logger()

# What outlives SIGKILL for so long hangs in the kernel.
REAP_SECONDS = 5.0
SHIM_SECONDS = 1.0  # of these, for a shim to end all of its tree
PASS_PAUSE_SECONDS = 0.01
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class OrphanNotFound(NotFound):
    """No process of that id is an orphan now."""

    reason = "ORPHAN_NOT_FOUND"
    noun = "orphan"
    listing = "gpuctl orphans"


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """What the roster's records know: tokens of trees, and ids of those that have not ended."""

    tokens: frozenset[str]
    live: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaped:
    """What a reaping came to. `left`: provably ours, and not gone within 5 s of its SIGKILL."""

    ended: tuple[Orphan, ...]
    refused: tuple[Orphan, ...]
    left: tuple[Orphan, ...] = ()


class Orphans:
    """Looks for them whenever it is asked; nothing is ended but by an order.

    `tell` puts an event into the journal, where there is room for it.
    """

    def __init__(
        self, house: House, records: Callable[[], Records], tell: Callable[[Event], None]
    ) -> None:
        self._house = house
        self._records = records
        self._tell_event = tell
        self._reaping = asyncio.Lock()
        # What the last look found; None before the first.
        self._found: tuple[Trace, ...] | None = None

    async def note(self) -> None:
        """Look for the first time, so that `count` knows of what a crash left behind."""
        with suppress(OSError):  # /proc cannot be read: it stays unknown
            await self.list()

    async def count(self) -> int | None:
        """How many of those that the last look found live still; None: none looked yet.

        Looks at those alone. New ones come only while no daemon runs, and it looks at its start.
        """
        if not self._found:
            return None if self._found is None else 0
        return await asyncio.to_thread(traces.living, self._found)

    async def list(self) -> tuple[Orphan, ...]:
        """All of them, by pid; one pass over /proc in a thread."""
        before = self._records()
        found, folders = await asyncio.to_thread(_look, self._house.directory)
        # Those that came or went during the look are known by one of the two.
        after, now = self._records(), self._house.clock.now()
        known = Known(
            tokens=before.tokens | after.tokens,
            live_folders=before.live | after.live,
            custody=folders,
            boot_id=now.boot_id,
            uid=os.geteuid(),
        )
        to_wall = now.wall - now.boottime
        judged = orphans(found, known)
        self._found = tuple(each.trace for each in judged)
        return tuple(
            replace(
                each,
                start_wall=to_wall + each.trace.start_time / _TICKS_PER_SECOND,
                uses=self._uses(each.trace),
            )
            for each in judged
        )

    def _uses(self, trace: Trace) -> tuple[tuple[str, int], ...]:
        """By the devices' newest process lists."""
        snapshot = self._house.snapshots.latest
        samples = snapshot.samples if snapshot is not None else ()
        return tuple(
            (sample.info.uuid, process.used_bytes)
            for sample in samples
            for process in sample.processes or ()
            if (process.pid, process.start_time) == (trace.pid, trace.start_time)
            and process.used_bytes is not None
        )

    async def reap(self, pids: Iterable[int], actor: str) -> Reaped:
        """End those that are provably ours, each with its tree. `pids`: of these trees alone.

        Raises OrphanNotFound for a pid that is none.
        """
        async with self._reaping:
            return await self._reap(frozenset(pids), actor)

    async def _reap(self, pids: frozenset[int], actor: str) -> Reaped:
        found = await self.list()
        missing = pids - {each.trace.pid for each in found}
        if missing:
            raise OrphanNotFound(name=str(min(missing)))
        tokens = {each.trace.token for each in found if each.trace.pid in pids}
        chosen = [
            each
            for each in found
            if not pids or each.trace.pid in pids or (each.trace.token in tokens - {""})
        ]
        proved = {each.trace.pid: each for each in chosen if each.provable}
        left = await self._end(proved)
        ended = tuple(each for pid, each in proved.items() if pid not in left)
        self._tell(ended, actor)
        self._clear_away(ended, left)
        self._house.list_soon()
        return Reaped(
            ended=ended,
            refused=tuple(each for each in chosen if not each.provable),
            left=tuple(left.values()),
        )

    async def _end(self, proved: dict[int, Orphan]) -> dict[int, Orphan]:
        """Have shims end their trees, then kill until two passes found none; what would not go.

        Each pass looks anew: what a tree forked meanwhile is of its token as well, and added.
        """
        tokens = {each.trace.token for each in proved.values()}
        left, empty = dict(proved), 0
        began = self._house.clock.now().boottime
        asked = [each.trace for each in proved.values() if each.is_shim]
        await asyncio.to_thread(traces.send, asked, (signal.SIGUSR1, signal.SIGCONT))
        while empty < 2 and (spent := self._house.clock.now().boottime - began) < REAP_SECONDS:
            # A shim is the parent of whatever calls itself free: it goes last, by itself.
            its_turn = spent < SHIM_SECONDS and any(each.is_shim for each in left.values())
            if left and not its_turn:
                killed = [each.trace for each in left.values()]
                await asyncio.to_thread(traces.send, killed, (signal.SIGKILL,))
            left = {
                each.trace.pid: each
                for each in await self.list()
                if each.provable and each.trace.token in tokens
            }
            proved |= left
            empty = 0 if left else empty + 1
            await self._house.clock.sleep(PASS_PAUSE_SECONDS)
        return left

    def _tell(self, ended: tuple[Orphan, ...], actor: str) -> None:
        for id_ in dict.fromkeys(each.instance for each in ended):
            count = sum(each.instance == id_ for each in ended)
            log.warning("orphan.reaped", instance=f"instances/{id_}", processes=count)
            self._tell_event(
                Event(
                    wall=self._house.clock.now().wall,
                    type="orphan.reaped",
                    subject=f"instances/{id_}",
                    actor=actor,
                    reason=f"{count} processes that no record knew",
                )
            )

    def _clear_away(self, ended: tuple[Orphan, ...], left: dict[int, Orphan]) -> None:
        """The folders of trees that are gone, where no record needs them."""
        kept = self._records().live | {each.instance for each in left.values()}
        for id_ in {each.instance for each in ended} - kept:
            shutil.rmtree(self._house.folder(id_), ignore_errors=True)


def _look(instances: Path) -> tuple[tuple[Trace, ...], dict[str, ProcessIdentity]]:
    return traces.find(instances), custody.read_all(instances)


def remove_strays(instances: Path, recorded: frozenset[str], boot_id: str) -> tuple[str, ...]:
    """Remove folders that no record names and whose trees are gone; ids of those that are kept.

    A folder is the only proof that a process is ours once its record is lost. Blocks for a pass
    over /proc where there is such a folder of this boot.
    """
    strays = {each.name: custody.read(each) for each in instances.iterdir()}
    strays = {id_: identity for id_, identity in strays.items() if id_ not in recorded}
    of_boot = {each.token for each in strays.values() if each and each.boot_id == boot_id}
    alive = {each.token for each in traces.find(instances)} if of_boot else set()
    kept = []
    for id_, identity in strays.items():
        if identity is not None and identity.boot_id == boot_id and identity.token in alive:
            kept.append(id_)
        else:
            shutil.rmtree(instances / id_, ignore_errors=True)
    return tuple(sorted(kept))
