"""Pure: what befalls an engine or its file, in each phase of its life, and what must be seen then.

`state` is the instance's, with the reason where it failed; `bytes` who holds bytes by the books;
`event` a type that the journal told of it; `code` what the call that waits for it ends with: the
load's until READY, the unload's while it is stopped.
"""

from __future__ import annotations

from dataclasses import dataclass

PHASES = (
    "verifying", "starting", "loading", "warming", "ready", "healing", "stopping", "recovering",
)  # fmt: skip
FAULTS = (
    "exits",
    "is killed",
    "leaves a descendant behind",
    "says that memory is out",
    "is stopped in its tracks",
    "is slow",
    "ignores SIGTERM",
    "cannot be started: fork refused",
    "cannot be executed",
    "file cut short",
    "file replaced",
    "file gone",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The four things."""

    state: str
    bytes: str
    event: str
    code: str


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """There is no such case."""

    why: str


Cell = Expected | NotApplicable


def _failed(reason: str, code: str = "ABORTED") -> Expected:
    return Expected(
        state=f"FAILED {reason}", bytes="nothing", event="instance.failed", code=f"{code} {reason}"
    )


READY = Expected(state="READY", bytes="engine", event="instance.ready", code="OK")
HEALED = Expected(state="READY", bytes="engine", event="instance.healed", code="OK")
STOPPED = Expected(state="STOPPED", bytes="nothing", event="instance.ended", code="OK")
ADOPTED = Expected(state="READY", bytes="engine", event="instance.adopted", code="OK")
LOST_FILE = _failed("MODEL_FILE_INVALID", "FAILED_PRECONDITION")
# After it had served, each start is one more failure, until the breaker.
GIVEN_UP = Expected(
    state="FAILED RESTART_LOOP", bytes="nothing", event="instance.failed", code="OK"
)
# Until somebody mends it: a file says nothing against the engine.
WAITS = Expected(state="BACKOFF", bytes="engine", event="instance.ailing", code="OK")
GIVEN_UP_OOM = Expected(state="FAILED OOM", bytes="nothing", event="instance.failed", code="OK")
_MISSING = _failed("ENGINE_MISSING", "FAILED_PRECONDITION")
_EXHAUSTED = _failed("HOST_EXHAUSTED", "RESOURCE_EXHAUSTED")

_NO_ENGINE = NotApplicable("no engine runs yet")
_BRIEF = NotApplicable("its start lasts a millisecond: as in the phase loading")
_OVER = NotApplicable("nothing is started any more")
_STARTED = NotApplicable("the engine was started before")
_OPEN = NotApplicable("as in the phase ready: the engine has it open, and nobody looks at it")
_NOT_ASKED = NotApplicable("it is not asked to end there")
_SLOW_WARM_UP = NotApplicable("its limit is 300 s; `is slow` is the same before that")

# In the order of PHASES.
ROWS: dict[str, tuple[Cell, ...]] = {
    "exits": (
        _NO_ENGINE, _BRIEF, _failed("ENGINE_EXITED"), _failed("ENGINE_EXITED"),
        HEALED, GIVEN_UP, STOPPED, HEALED,
    ),
    "is killed": (
        _NO_ENGINE, _BRIEF, _failed("ENGINE_EXITED"), _failed("ENGINE_EXITED"),
        HEALED, HEALED, STOPPED, HEALED,
    ),
    "leaves a descendant behind": (
        _NO_ENGINE, _BRIEF, _failed("ENGINE_EXITED"), NotApplicable("as in the phase loading"),
        HEALED, NotApplicable("as in the phase ready"), STOPPED, HEALED,
    ),
    "says that memory is out": (
        _NO_ENGINE, _BRIEF, _failed("ENGINE_EXITED"), _failed("ENGINE_EXITED"),
        # The start after it fails in the same way, and twice is enough.
        GIVEN_UP_OOM, NotApplicable("as in the phase ready, whose second time it is"),
        NotApplicable("it is asked to end, whatever it says"),
        NotApplicable("as in the phase ready: its last words are read from its output"),
    ),
    "is stopped in its tracks": (
        _NO_ENGINE, _BRIEF, _failed("ENGINE_NOT_READY"), _SLOW_WARM_UP,
        HEALED, NotApplicable("as in the phase loading, counted as one more failure"),
        STOPPED, HEALED,
    ),
    "is slow": (_NO_ENGINE, _BRIEF, READY, READY, READY, HEALED, STOPPED, ADOPTED),
    "ignores SIGTERM": (
        _NO_ENGINE, _BRIEF, _NOT_ASKED, _NOT_ASKED, _NOT_ASKED, _NOT_ASKED,
        STOPPED, _NOT_ASKED,
    ),
    "cannot be started: fork refused": (
        _NO_ENGINE, _EXHAUSTED, _STARTED, _STARTED, _STARTED, HEALED, _OVER, HEALED,
    ),
    "cannot be executed": (
        _NO_ENGINE, _MISSING, _STARTED, _STARTED, _STARTED, HEALED, _OVER, HEALED,
    ),
    "file cut short": (LOST_FILE, LOST_FILE, _OPEN, _OPEN, READY, WAITS, STOPPED, ADOPTED),
    "file replaced": (READY, LOST_FILE, _OPEN, _OPEN, READY, HEALED, STOPPED, ADOPTED),
    "file gone": (LOST_FILE, LOST_FILE, _OPEN, _OPEN, READY, WAITS, STOPPED, ADOPTED),
}  # fmt: skip
MATRIX: dict[tuple[str, str], Cell] = {
    (fault, phase): cell
    for fault, row in ROWS.items()
    for phase, cell in zip(PHASES, row, strict=True)
}
# What `make test` has time for: each fault once, each phase too.
IN_TEST = (
    ("exits", "loading"),
    ("is killed", "warming"),
    ("leaves a descendant behind", "ready"),
    ("says that memory is out", "ready"),
    ("is stopped in its tracks", "recovering"),
    ("is slow", "loading"),
    ("ignores SIGTERM", "stopping"),
    ("cannot be started: fork refused", "starting"),
    ("cannot be executed", "healing"),
    ("file cut short", "starting"),
    ("file replaced", "verifying"),
    ("file gone", "healing"),
)
