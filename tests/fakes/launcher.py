"""A launcher of trees that are only told about: for tests of what supervises them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from gpud.clock import Clock
from gpud.instances.instance import Exit, ProcessIdentity
from gpud.instances.tree.binding import Binding
from gpud.instances.tree.launcher import LaunchFailed, LaunchSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How an engine takes things. Codes are exit codes, negative ones signals."""

    at_start: int | None = None  # ends at once with it
    at_terminate: int | None = -15  # None: SIGTERM is ignored
    executable: bool = True
    leaves_descendants: bool = False  # its end is not the tree's


@dataclass(slots=True)
class FakeHost:
    """What runs, whichever life of the daemon started it."""

    trees: dict[int, FakeTree] = field(default_factory=dict)
    last_pid: int = 1000

    def next_pid(self) -> int:
        self.last_pid += 1
        return self.last_pid


class FakeTree:
    """A tree that behaves as it was told."""

    def __init__(
        self, spec: LaunchSpec, identity: ProcessIdentity, behaviour: Behaviour, host: FakeHost
    ) -> None:
        self.spec = spec
        self.identity = identity
        self.behaviour = behaviour
        self.terminated = 0  # how often it was asked to
        self._host = host
        self._pid: int | None = None
        self._exit: Exit | None = None
        self._ended = asyncio.Event()
        self._gone = asyncio.Event()

    async def go(self) -> int:
        if not self.behaviour.executable or self._gone.is_set():
            self.end(None)
            raise LaunchFailed(instance=self.spec.instance, problem="cannot execute")
        self._pid = self._host.next_pid()
        if self.behaviour.at_start is not None:
            self.end(self.behaviour.at_start)
        return self._pid

    def engine_pid(self) -> int | None:
        return self._pid

    def bound(self) -> Binding:
        return self.spec.binding

    def engine_exit(self) -> Exit | None:
        return self._exit

    async def engine_gone(self) -> Exit:
        await self._ended.wait()
        assert self._exit is not None
        return self._exit

    async def gone(self) -> None:
        await self._gone.wait()

    def terminate(self) -> None:
        self.terminated += 1
        if self._pid is None:
            self._end_all(None)
        elif self.behaviour.at_terminate is not None:
            self.end(self.behaviour.at_terminate)

    def kill(self) -> None:
        self._end_all(None if self._pid is None else -9)

    def end(self, status: int | None) -> None:
        """The engine's main process ends, as it would by itself. None: nobody sees how."""
        if self._exit is None:
            code = status if status is not None and status >= 0 else None
            signal = -status if status is not None and status < 0 else None
            self._exit = Exit(code=code, signal=signal, wall=0.0)
        self._ended.set()
        if not self.behaviour.leaves_descendants:
            self._gone.set()

    def _end_all(self, status: int | None) -> None:
        self.end(status)
        self._gone.set()

    @property
    def lives(self) -> bool:
        return not self._gone.is_set()


class FakeLauncher:
    """Launches what `behaviour` says at that moment; `trees` are all that it ever made."""

    def __init__(self, clock: Clock, host: FakeHost | None = None) -> None:
        self._clock = clock
        self.host = host or FakeHost()
        self.behaviour = Behaviour()
        self.trees: list[FakeTree] = []

    async def spawn(self, spec: LaunchSpec) -> FakeTree:
        identity = ProcessIdentity(
            pid=self.host.next_pid(),
            start_time=self.host.last_pid,
            boot_id=self._clock.now().boot_id,
            inode=None,
            token=spec.token,
        )
        tree = FakeTree(spec, identity, self.behaviour, self.host)
        self.trees.append(tree)
        self.host.trees[identity.pid] = tree
        return tree

    async def adopt(self, identity: ProcessIdentity, directory: Path) -> FakeTree | None:
        tree = self.host.trees.get(identity.pid)
        if tree is None or tree.identity != identity or not tree.lives:
            return None
        if tree.engine_pid() is None:
            tree.kill()  # its gate ended with the daemon that held it
            return None
        return tree
