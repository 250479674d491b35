"""What a cell of the matrix says: four things that a client sees, or why there is no such case."""

from __future__ import annotations

from dataclasses import dataclass

PHASES = (
    "idle", "reserving", "loading", "warming", "ready", "stopping", "recovering", "draining",
)  # fmt: skip
FAULTS = (
    "device lost",
    "driver hangs",
    "samples stale",
    "foreign takes the rest",
    "promise over-used",
    "free lags",
    "disk full",
    "daemon killed",
    "clock +1 h",
    "clock -1 h",
    "reboot",
    "client vanishes",
    "critically hot",
)
NO_EVENT = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What must be seen of gpu0 and of who is there once the fault has come through.

    `state`: the node's, gpu0's (its health, or HOT), then of each that takes part its name and
    state. `bytes`: who holds bytes of gpu0 by the books; "X leaked" where X ended and its device
    did not show them back. `event`: a type that the journal told since the fault, or NO_EVENT:
    none about the node or a device. `code`: of a Reserve of what gpu0 granted before, with the
    reason; two where there is another meanwhile. `on_desk`: why the ledger alone shows it.
    """

    state: str
    bytes: str
    event: str
    code: str
    on_desk: str = ""


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """There is no such case."""

    why: str


Cell = Expectation | NotApplicable
