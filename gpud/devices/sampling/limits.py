"""How long sampling may take, before somebody is left out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long things may take, in seconds. Calls of a healthy driver stay far below one second.

    `start`: from the spawn to the first tick, with a slow interpreter on a busy machine.
    `opening`: initialising eight cards that nothing else holds open takes up to half a minute; a
    probe waits for that before it asks (`probe_start`). Retries double from `first` to `longest`.
    """

    device: float = 2.0
    start: float = 20.0
    opening: float = 30.0
    probe_start: float = 65.0
    probe_first: float = 1.0
    probe_longest: float = 10.0
    restart_first: float = 0.1
    restart_longest: float = 10.0
    crashes_tolerated: int = 3
