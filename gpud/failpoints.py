"""Named points around each durable change, where a proof can end, fail or hold up the daemon.

Off, and of no cost, unless GPUD_FAILPOINT says `point[:n]=action`: at the n-th time (the first, if
not said) that the point is passed, `kill` ends the process by SIGKILL, `exit` ends it by _exit,
`error` raises InjectedError and `stop` holds it up by SIGSTOP. Where GPUD_FAILPOINT_ARMED names a
file, a passing counts only while that file exists. Never for production.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

EXIT_CODE = 70  # EX_SOFTWARE

# Each change has a point `.before` and a point `.after` it, so none can lack its pair. A test
# compares the names with the code.
CHANGES: Mapping[str, str] = {
    "state.marker": "a state directory becomes ours",
    "store.schema": "the tables are made, or brought to a newer format",
    "store.transaction": "a batch, from before its BEGIN to after its COMMIT",
    "store.commit": "the COMMIT alone: between the rows and their fsync",
    "store.tell": "a durable batch is applied and its callers are told",
    "store.ballast": "the ballast is made",
    "store.relief": "the ballast is removed on a full disk",
    "store.recovery": "a store that was read-only takes writes again",
    "store.prune": "old journal lines are dropped",
    "restore.books": "both books are read back from the store",
    "restore.instances": "the fate of every recorded instance is decided",
    "adopt.find": "the tree of a recorded instance is looked for, or its survivors ended",
    "adopt.record": "an instance that runs is taken over",
    "launch.intent": "promise and intent of an instance",
    "launch.spawn": "its shim is started",
    "launch.spawned": "the shim's identity",
    "launch.go": "the order to go, before it is given",
    "launch.gate": "the gate is opened: the engine is executed",
    "launch.elsewhere": "the intent to start an engine that lost its port with another one",
    "launch.ready": "its endpoint",
    "heal.intent": "an instance fails, and is to be started again",
    "heal.tree": "what is left of a failed engine is ended",
    "heal.start": "the intent to start its engine again, in its old promise",
    "heal.reset": "an instance that was given up is loaded anew",
    "stop.intent": "the intent to stop an instance",
    "stop.tree": "its processes are ended",
    "stop.free": "its promise ends",
    "stop.record": "its end",
}
POINTS = frozenset(f"{change}.{side}" for change in CHANGES for side in ("before", "after"))
ACTIONS = ("kill", "exit", "error", "stop")


class InjectedError(Exception):
    """What the action `error` raises."""


class _Failpoint:
    """The one point that is on, and how often it is still to be passed."""

    def __init__(self, said: str, armed_by: str) -> None:
        self.point, self.action, self.left = _parsed(said)
        self._armed_by = armed_by

    def pass_by(self, point: str) -> None:
        if point != self.point or (self._armed_by and not Path(self._armed_by).exists()):
            return
        self.left -= 1
        if self.left != 0:
            return
        if self.action == "exit":
            os._exit(EXIT_CODE)
        if self.action == "error":
            raise InjectedError(f"injected at {point}")
        # To the whole process, from whichever of its threads.
        os.kill(os.getpid(), signal.SIGKILL if self.action == "kill" else signal.SIGSTOP)


class _Around:
    """Passes the point before a change, and the one after it unless the change failed."""

    def __init__(self, failpoint: _Failpoint, change: str) -> None:
        self._failpoint = failpoint
        self._change = change

    def __enter__(self) -> None:
        self._failpoint.pass_by(f"{self._change}.before")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._failpoint.pass_by(f"{self._change}.after")


class _Nothing:
    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


def around(change: str) -> _Around | _Nothing:
    """Around the code of a change: passes the point before it, and the one after it."""
    return _OFF if _on is None else _Around(_on, change)


def _parsed(said: str) -> tuple[str, str, int]:
    """Point, action, which passing. Raises ValueError: a proof of nothing must not run."""
    place, _, action = said.partition("=")
    point, _, number = place.partition(":")
    count = int(number) if number.isdigit() else 0 if number else 1
    if point not in POINTS or action not in ACTIONS or count < 1:
        raise ValueError(
            f"cannot use GPUD_FAILPOINT={said!r}: say point[:n]=action with n ≥ 1, an action of "
            f"{', '.join(ACTIONS)}, and a point of {', '.join(sorted(POINTS))}"
        )
    return point, action, count


def from_environment(environment: Mapping[str, str]) -> _Failpoint | None:
    """The point that the environment turns on. Raises ValueError when there is no such point."""
    said = environment.get("GPUD_FAILPOINT", "")
    return _Failpoint(said, environment.get("GPUD_FAILPOINT_ARMED", "")) if said else None


_OFF = _Nothing()
_on = from_environment(os.environ)
