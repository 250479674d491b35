"""The launcher seam: engine process trees, started gated, watched, adopted, stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gpud.instances.instance import Exit, ProcessIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """One tree to start. `directory` exists and is the instance's own."""

    instance: str
    reservation: str
    argv: tuple[str, ...]
    environment: dict[str, str]
    directory: Path
    token: str


class Tree(Protocol):
    """A process tree: the shim and all that descends from the engine."""

    identity: ProcessIdentity

    async def go(self) -> int:
        """Open the gate: the engine is executed. Returns its pid. Raises LaunchFailed."""
        ...

    def engine_pid(self) -> int | None:
        """The engine's main process, once it was started."""
        ...

    def engine_exit(self) -> Exit | None:
        """How the engine's main process ended; None while it runs (or nobody saw it end)."""
        ...

    async def engine_gone(self) -> Exit:
        """Wait until the engine's main process has ended, however; descendants may still live."""
        ...

    async def gone(self) -> None:
        """Wait until the whole tree is gone, the shim included."""
        ...

    def terminate(self) -> None:
        """SIGTERM to the engine's main process; no error when it is gone."""
        ...

    def kill(self) -> None:
        """SIGKILL to the whole tree, repeated by the shim until none is left."""
        ...


class Launcher(Protocol):
    """Starts trees and finds them again."""

    async def spawn(self, spec: LaunchSpec) -> Tree:
        """Start the shim, blocked before the gate. Raises LaunchFailed."""
        ...

    async def adopt(self, identity: ProcessIdentity, directory: Path) -> Tree | None:
        """The tree of an earlier life of the daemon, its full identity proved; None: not there.

        Survivors of a tree whose shim died are found by the token and killed before None.
        """
        ...
