"""The matrix: each fault in each phase. A row says what is usual for it, then where it is not.

Usual is that nobody who takes part is touched: leases stay, what waits waits, loads come to their
end, what is being stopped ends with its bytes back, and a node that drains grants nothing.
"""

from __future__ import annotations

from dataclasses import replace

from tests.proof.faults.expected import (
    FAULTS,
    NO_EVENT,
    PHASES,
    Cell,
    Expectation,
    NotApplicable,
)

# Who takes part in each phase and how it ends there, and who holds bytes of gpu0 then.
_CAST = {
    "idle": ("", "nothing"),
    "reserving": (", lease GRANTED, waiting QUEUED", "lease"),
    "loading": (", engine READY", "engine"),
    "warming": (", engine READY", "engine"),
    "ready": (", lease GRANTED, engine READY", "lease + engine"),
    "stopping": (", engine STOPPED", "nothing"),
    "recovering": (", lease GRANTED, engine READY", "lease + engine"),
    "draining": (", lease GRANTED", "lease"),
}
_NOT_TO_USE = "FAILED_PRECONDITION DEVICE_UNAVAILABLE"
_TAKEN = "RESOURCE_EXHAUSTED VRAM_INSUFFICIENT"
_STALE = "UNAVAILABLE STALE"
_READ_ONLY = "UNAVAILABLE STORE_READ_ONLY"
_DEAD = "UNAVAILABLE"  # no reason: nobody is there to give one
_RECONCILING = "UNAVAILABLE RECONCILING"

Row = dict[str, Cell]


def usual(
    *, event: str, code: str, node: str = "READY", gpu0: str = "HEALTHY", neighbour: str = ""
) -> dict[str, Expectation]:
    """A fault that touches nobody; with a neighbour on gpu0 who is GRANTED or RELEASED."""
    row = {}
    for phase in PHASES:
        cast, held = _CAST[phase]
        if neighbour == "GRANTED":
            held = "neighbour" if held == "nothing" else f"{held} + neighbour"
        elif neighbour:
            held = f"{held}; neighbour leaked"
        beside = f", neighbour {neighbour}" if neighbour else ""
        row[phase] = Expectation(
            state=f"{node}, gpu0 {gpu0}{cast}{beside}", bytes=held, event=event, code=code
        )
    drained = row["draining"]
    if node == "READY":
        drained = replace(drained, state=drained.state.replace("READY", "DRAINING", 1))
    row["draining"] = replace(drained, code=code.replace("OK", _NOT_TO_USE))
    return row


def _device_lost() -> Row:
    row = usual(gpu0="LOST", event="device.lost", code=_NOT_TO_USE)
    return {**row, "stopping": _unconfirmed(row["stopping"])}


def _driver_hangs() -> Row:
    row = usual(gpu0="UNRESPONSIVE", event="device.unresponsive", code=_NOT_TO_USE)
    recovering = replace(row["recovering"], code=f"{_RECONCILING} then {_NOT_TO_USE}")
    return {**row, "stopping": _unconfirmed(row["stopping"]), "recovering": recovering}


def _samples_stale() -> Row:
    row = usual(node="DEGRADED", gpu0="UNRESPONSIVE", event="node.degraded", code=_STALE)
    # What is older than 10 s is no reason to forget the order to drain: that is told.
    draining = replace(
        row["draining"],
        state="DRAINING, gpu0 UNRESPONSIVE, lease GRANTED",
        event="device.unresponsive",
    )
    return {
        **row,
        "stopping": _unconfirmed(row["stopping"]),
        "recovering": replace(row["recovering"], code=f"{_RECONCILING} then {_STALE}"),
        "draining": draining,
    }


def _unconfirmed(stopped: Expectation) -> Expectation:
    """The tree is gone, but gpu0 never shows the bytes back: they stay booked, as leaked."""
    return replace(stopped, bytes="nothing; engine leaked", event="device.leaked")


def _foreign_takes_the_rest() -> Row:
    row = usual(event="device.pressure", code=_TAKEN)
    return {**row, "draining": replace(row["draining"], code=_NOT_TO_USE)}


def _promise_over_used() -> Row:
    row = usual(neighbour="GRANTED", event="reservation.overuse", code=_TAKEN)
    return {
        **row,
        "idle": NotApplicable("over-use needs a promise, and with one it is not idle"),
        # The engine that ended gave back more than the neighbour takes too much.
        "stopping": replace(row["stopping"], code="OK"),
        "draining": replace(row["draining"], code=_NOT_TO_USE),
    }


def _free_lags() -> Row:
    row = usual(neighbour="RELEASED", event="device.leaked", code="OK")
    engine = Expectation(
        state="READY, gpu0 HEALTHY, engine STOPPED",
        bytes="nothing; engine leaked",
        event="device.leaked",
        code="OK",
    )
    recovering = Expectation(
        state="neighbour RELEASED",
        bytes="nothing; neighbour leaked",
        event="device.leaked",
        code=_TAKEN,
        on_desk="a simulated card forgets what lags when the daemon's sampler ends",
    )
    return {
        **row,
        "idle": NotApplicable("only what was promised can lag, and with a promise it is not idle"),
        "stopping": engine,
        "recovering": recovering,
    }


def _disk_full() -> Row:
    # That the node is DEGRADED stands nowhere but in its state: the room is for what ends.
    row = usual(node="DEGRADED", event=NO_EVENT, code=_READ_ONLY)
    return {
        **row,
        "loading": replace(row["loading"], event="instance.ready"),
        "warming": replace(row["warming"], event="instance.ready"),
        "stopping": replace(row["stopping"], event="instance.ended"),
        "recovering": replace(row["recovering"], event="instance.adopted"),
    }


def _daemon_killed() -> Row:
    row = usual(event="node.ready", code=f"{_DEAD} then OK")
    adopted = {
        phase: replace(row[phase], event="instance.adopted")
        for phase in ("loading", "warming", "ready", "recovering")
    }
    return {
        **row,
        **adopted,
        "stopping": replace(row["stopping"], event="instance.ended"),
        "draining": replace(row["draining"], event="node.draining"),
    }


def _reboot() -> Row:
    row = usual(event="node.ready", code=f"{_DEAD} then OK")
    failed = {
        phase: replace(
            row[phase],
            state=row[phase].state.replace("engine READY", "engine FAILED"),
            bytes="lease" if "lease" in row[phase].bytes else "nothing",
            event="instance.failed",
        )
        for phase in ("loading", "warming", "ready", "recovering")
    }
    return {
        **row,
        **failed,
        "stopping": replace(row["stopping"], event="instance.ended"),
        "draining": replace(row["draining"], event="node.draining"),
    }


def _client_vanishes() -> Row:
    row = usual(event="reservation.expired", code="OK")
    expired = {
        phase: replace(
            row[phase],
            state=row[phase].state.replace("lease GRANTED", "lease EXPIRED"),
            bytes=row[phase].bytes.replace("lease + ", "").replace("lease", "nothing"),
        )
        for phase in ("ready", "recovering", "draining")
    }
    waiting = row["reserving"].state.replace("QUEUED", "EXPIRED")
    return {
        **row,
        **expired,
        "idle": NotApplicable("no client has a call open"),
        "reserving": replace(row["reserving"], state=waiting),
        "loading": replace(row["loading"], event="instance.ready"),
        "warming": replace(row["warming"], event="instance.ready"),
        "stopping": replace(row["stopping"], event="instance.ended"),
    }


def _clock_stepped() -> Row:
    """A short lease beside all this ends in its time, which is the event."""
    return {**usual(event="reservation.expired", code="OK")}


def _critically_hot() -> Row:
    return {**usual(gpu0="HOT", event="device.thermal", code=_NOT_TO_USE)}


_ROWS = (
    _device_lost(),
    _driver_hangs(),
    _samples_stale(),
    _foreign_takes_the_rest(),
    _promise_over_used(),
    _free_lags(),
    _disk_full(),
    _daemon_killed(),
    _clock_stepped(),
    _clock_stepped(),
    _reboot(),
    _client_vanishes(),
    _critically_hot(),
)
MATRIX: dict[tuple[str, str], Cell] = {
    (fault, phase): cell
    for fault, row in zip(FAULTS, _ROWS, strict=True)
    for phase, cell in row.items()
}
# What `make test` has time for: each phase, and each fault but the one that must wait for 10 s.
IN_TEST = (
    ("critically hot", "idle"),
    ("device lost", "reserving"),
    ("client vanishes", "reserving"),
    ("daemon killed", "loading"),
    ("foreign takes the rest", "loading"),
    ("reboot", "warming"),
    ("promise over-used", "warming"),
    ("clock +1 h", "ready"),
    ("disk full", "stopping"),
    ("driver hangs", "recovering"),
    ("free lags", "recovering"),
    ("clock -1 h", "draining"),
)
