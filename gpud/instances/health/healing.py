"""Pure: whether an engine that failed after it had served is started again, and when.

Back-off from 1 s to 300 s, doubling; a breaker after five failures within ten minutes, after ten
in a row however slowly they came, and after two for want of memory; all forgotten after ten
healthy minutes (the defaults of [health]). What is not the engine's doing is not counted.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from gpud.clock import Moment
from gpud.errors import EngineFailed
from gpud.ledger.reservation import Deadline
from gpud.settings import Health

# Memory that ran out once may have been somebody else's doing.
OOMS = 2
# At most so much of a pause is left out by chance, so that what fell together rises apart.
JITTER = 0.25
_MAX_DOUBLINGS = 30
# So many times the failures of the breaker in a row end it too: where each start takes minutes
# before it fails, its window never holds enough of them.
IN_A_ROW_FACTOR = 2


class GivenUp(enum.Enum):
    """Why an instance is not started again by itself."""

    RESTART_LOOP = "restart_loop"
    OOM = "oom"
    FILE_REPLACED = "file_replaced"
    MODEL_GONE = "model_gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Healing:
    """What is remembered of an instance's failures: part of its stored record."""

    served: bool = False  # it was READY within its present promise
    ready: Deadline | None = None  # since when it serves
    failures: tuple[Deadline, ...] = ()  # their moments, as far back as the breaker looks
    in_a_row: int = 0  # since its last healthy spell
    ooms: int = 0  # of these
    put_offs: int = 0  # tries in a row that came to nothing for what is not the engine's doing
    retry: Deadline | None = None  # when it is started again
    cause: str = ""  # of the last failure
    given_up: GivenUp | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One failure. `luck` (0 … 1) is what chance says of the pause that follows."""

    cause: str
    is_oom: bool
    luck: float


@dataclass(kw_only=True, eq=False)
class EngineStuck(EngineFailed):
    """The engine lives, and does not do its work any more."""

    reason = "ENGINE_STUCK"

    problem: str

    @property
    def summary(self) -> str:
        """What it does not do, and for how long."""
        return f"cannot keep {self.instance}: its engine is stuck: {self.problem}"


@dataclass(kw_only=True, eq=False)
class RestartLoop(EngineFailed):
    """The breaker: its engine failed too often to be started again by itself."""

    reason = "RESTART_LOOP"

    failures: int
    window_seconds: float | None  # None: in a row, over whatever time
    cause: str

    @property
    def summary(self) -> str:
        """How often, and why the last time."""
        window = self.window_seconds
        span = "in a row" if window is None else f"within {window:g} s"
        cause = self.cause.removeprefix(f"cannot keep {self.instance}: ")
        return (
            f"cannot keep {self.instance}: its engine failed {self.failures} times {span}, "
            f"the last time: {cause}; once that is mended, "
            f"`gpuctl reset {self.instance}` starts it again"
        )


@dataclass(kw_only=True, eq=False)
class OutOfMemory(EngineFailed):
    """Its engine ended for want of memory again."""

    reason = "OOM"

    ooms: int
    cause: str

    @property
    def summary(self) -> str:
        """How often, and how that is known of the last time."""
        return (
            f"cannot keep {self.instance}: its engine ran out of memory {self.ooms} times: "
            f"{self.cause}; load it with a smaller context_length or on another device, or free "
            f"memory and `gpuctl reset {self.instance}`"
        )


def failed(record: Healing, fault: Fault, now: Moment, limits: Health) -> Healing:
    """What is remembered after one more failure: `retry` says when it is started again.

    `given_up` says that it is not.
    """
    if record.ready is not None and _age(record.ready, now) >= limits.healthy_spell:
        record = Healing(served=record.served)
    recent = [each for each in record.failures if _age(each, now) < limits.breaker_window]
    failures = (*recent, Deadline.after(now, 0))
    ooms = record.ooms + fault.is_oom
    in_a_row = record.in_a_row + 1
    given_up = None
    if ooms >= OOMS:
        given_up = GivenUp.OOM
    elif len(failures) >= limits.breaker_failures or in_a_row >= most_in_a_row(limits):
        given_up = GivenUp.RESTART_LOOP
    pause = pause_seconds(in_a_row, fault.luck, limits)
    return Healing(
        served=record.served,
        failures=failures,
        in_a_row=in_a_row,
        ooms=ooms,
        retry=Deadline.after(now, pause) if given_up is None else None,
        cause=fault.cause,
        given_up=given_up,
    )


def most_in_a_row(limits: Health) -> int:
    """How many failures without a healthy spell between them end it, over whatever time."""
    return IN_A_ROW_FACTOR * limits.breaker_failures


def pause_seconds(in_a_row: int, luck: float, limits: Health) -> float:
    """How long it is left alone after so many failures in a row, the first being 1."""
    return _doubled(float(limits.backoff_first), in_a_row - 1, limits) * (1 - JITTER * luck)


def put_off_seconds(record: Healing, first: float, luck: float, limits: Health) -> float:
    """Until the next try, after those in a row that came to nothing; the shortest is `first`."""
    return _doubled(first, record.put_offs, limits) * (1 - JITTER * luck)


def _doubled(first: float, times: int, limits: Health) -> float:
    doublings = min(_MAX_DOUBLINGS, max(0, times))
    return min(float(limits.backoff_most), first * float(2**doublings))


def put_off(record: Healing, cause: str, now: Moment, seconds: float) -> Healing:
    """Started again a little later, for a reason that is not the engine's: no failure counts."""
    return replace(
        record,
        ready=None,
        retry=Deadline.after(now, seconds),
        cause=cause,
        put_offs=record.put_offs + 1,
    )


def serving(record: Healing, now: Moment) -> Healing:
    """It is READY, as of now."""
    return replace(
        record,
        served=True,
        ready=Deadline.after(now, 0),
        retry=None,
        cause="",
        given_up=None,
        put_offs=0,
    )


def closed(record: Healing, now: Moment) -> Healing:
    """Somebody closed the breaker: all is forgotten, and it starts again at once."""
    return Healing(served=record.served, retry=Deadline.after(now, 0), cause=record.cause)


def _age(moment: Deadline, now: Moment) -> float:
    return -moment.remaining_seconds(now)
