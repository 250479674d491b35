"""Pure: how an engine that serves is, from what it was heard to say; busy told from stuck.

Each reading makes a new Vital from the one before; `judge` says what they come to. Moments are
seconds of CLOCK_BOOTTIME. The rules are those of research: alive, then its own counters, then a
request for one token when it is idle; a health check that times out while the counters advance is
a busy server's. Where its counters stand still, as llama-server's do through a whole batch, the
CPU time that it takes is a sign of work, up to a ceiling.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from gpud.engines.counting.counters import Counters, given_between
from gpud.engines.engine import Pulse, Readiness
from gpud.settings import Health

# An idle server that gave no token to so many requests in a row is stuck; one may be bad luck.
PROBE_FAILURES = 3
# A step of the model may take minutes on a slow host, and some servers tell no counters meanwhile:
# while the health still answers, silent counters are borne so much longer.
SILENCE_FACTOR = 5
# A reading that is late by so many rounds is told.
LATE_ROUNDS = 3
# CPU time counts as work for at most so many times `stuck` after the last other sign: one batch on
# a slow host takes minutes, and what spins for longer is taken for wedged.
SPIN_FACTOR = 10
# Of one CPU. An idle server that is asked for its counters every 5 s takes some 0.05 %.
WORK_SHARE = 0.02
# CPU time is compared over this part of `stuck`: the kernel counts it in steps of 10 ms.
CPU_PARTS = 8
# Of a device; idle cards show a percent or two now and then.
WORK_PERCENT = 5.0
# When it was last used is written down at most so often.
NOTE_SECONDS = 30.0


class Verdict(enum.Enum):
    """How an engine is."""

    HEALTHY = "healthy"  # it answers, and does not tell what it does
    BUSY = "busy"
    IDLE = "idle"
    SLEEPING = "sleeping"
    DEGRADED = "degraded"  # it serves, but not as it should
    STUCK = "stuck"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vital:
    """What is known of one engine since it became READY, or was found again."""

    since: float
    answered: float  # its counters or its health
    unblocked: float  # it worked, or had nothing to do
    used: float  # somebody used it, not counting our own probes
    pulse: Pulse | None = None  # the newest it told
    pulsed: float | None = None  # and when
    worked: float | None = None  # its counters advanced
    cpu_seconds: float | None = None  # that its processes had taken
    cpu_read: float | None = None  # and when
    ran: float | None = None  # it took CPU time, or its device worked for it alone
    readiness: Readiness | None = None
    asked: float | None = None  # whether it is ready
    unready: float | None = None  # since when it is not, without a break
    probed: float | None = None
    probe_failures: int = 0  # in a row
    probe_cost: float | None = None  # of progress, by the cheapest probe
    tokens_per_second: float | None = None  # while it was last busy
    degraded: str = ""  # why, where it does not run as it should

    @property
    def in_flight(self) -> int | None:
        """Requests served and waiting, as it last told; None: it does not tell."""
        if self.pulse is None or (self.pulse.running is None and self.pulse.waiting is None):
            return None
        return (self.pulse.running or 0) + (self.pulse.waiting or 0)


def begun(now: float) -> Vital:
    """It is READY: it has just been used, by its warm-up."""
    return Vital(since=now, answered=now, unblocked=now, used=now)


def found(now: float, used: float, progress: float) -> Vital:
    """It serves since before the daemon began, and was last used then, its counters at so much.

    Where they have moved since, it was used since: as far as is known, just now.
    """
    return replace(begun(now), used=min(used, now), pulse=Pulse(progress=progress))


def felt(vital: Vital, pulse: Pulse | None, now: float) -> Vital:
    """After its counters were asked for; None: no answer in time."""
    if pulse is None:
        return vital
    before = vital.pulse
    # A long prompt in pieces fills vLLM's cache for a while before any counter of tokens moves.
    moved = before is not None and (
        _differs(before.progress, pulse.progress)
        or (bool(pulse.running) and _differs(before.kv_used_fraction, pulse.kv_used_fraction))
    )
    new = replace(vital, pulse=pulse, pulsed=now, answered=now)
    is_used = moved or bool(new.in_flight)
    # From when the requests were seen first; they may have come at any time since the last look.
    is_free = moved or not new.in_flight or not vital.in_flight or pulse.sleeping
    return replace(
        new,
        worked=now if moved else vital.worked,
        used=now if is_used else vital.used,
        unblocked=now if is_free else vital.unblocked,
        tokens_per_second=_rate(vital, new, now) or vital.tokens_per_second,
    )


def ran(vital: Vital, cpu_seconds: float | None, limits: Health, now: float) -> Vital:
    """After the CPU time that all its processes have taken was read; None: it could not be."""
    if cpu_seconds is None:
        return vital
    if vital.cpu_seconds is None or vital.cpu_read is None:
        return replace(vital, cpu_seconds=cpu_seconds, cpu_read=now)
    span = now - vital.cpu_read
    if span < limits.stuck / CPU_PARTS:
        return vital
    is_work = cpu_seconds - vital.cpu_seconds >= WORK_SHARE * span
    last = now if is_work else vital.ran
    return replace(vital, cpu_seconds=cpu_seconds, cpu_read=now, ran=last)


def computed(vital: Vital, at: float) -> Vital:
    """Its device was seen to work, for nobody but it, at that moment."""
    return replace(vital, ran=at if vital.ran is None else max(vital.ran, at))


def _differs(before: float | None, now: float | None) -> bool:
    """A count that is lower began anew, which is a sign of life too."""
    return before is not None and now is not None and before != now


def _rate(before: Vital, after: Vital, now: float) -> float | None:
    """Tokens in a second, of a span that began and ended with requests in flight."""
    first, last = before.pulse, after.pulse
    if first is None or last is None or before.pulsed is None or now <= before.pulsed:
        return None
    given = _given(first, last)
    is_busy = bool(before.in_flight) and bool(after.in_flight)
    return given / (now - before.pulsed) if is_busy and given else None


def _given(first: Pulse, last: Pulse) -> float | None:
    """Tokens between two readings, as they were given rather than as requests ended."""
    if first.counters is not None and last.counters is not None:
        return given_between(first.counters, last.counters)
    if first.tokens is None or last.tokens is None or last.tokens < first.tokens:
        return None
    return last.tokens - first.tokens


def asked(vital: Vital, readiness: Readiness, now: float) -> Vital:
    """After it was asked whether it is ready."""
    if readiness is Readiness.READY:
        return replace(vital, readiness=readiness, asked=now, unready=None, answered=now)
    unready = vital.unready if vital.unready is not None else now
    return replace(vital, readiness=readiness, asked=now, unready=unready)


def probed(vital: Vital, pulse: Pulse | None, now: float, *, passed: bool) -> Vital:
    """After it was asked for one token when idle; `pulse` is from just after.

    A failure counts only where nothing else can have kept it from an answer: another's request in
    flight, or work that went on.
    """
    before = vital.pulse.progress if vital.pulse is not None else None
    after = pulse.progress if pulse is not None else None
    cost = after - before if before is not None and after is not None and after > before else None
    least = min((each for each in (cost, vital.probe_cost) if each is not None), default=None)
    new = vital if pulse is None else replace(vital, pulse=pulse, pulsed=now, answered=now)
    others = bool(new.in_flight) or (cost is not None and least is not None and cost > least)
    new = replace(new, probed=now, probe_cost=least, used=now if others else vital.used)
    if passed:
        return replace(new, probe_failures=0, worked=now, unblocked=now, answered=now)
    if others or cost is not None:
        return replace(new, probe_failures=0, worked=now)
    return replace(new, probe_failures=vital.probe_failures + 1)


def unprobed(vital: Vital, now: float) -> Vital:
    """It could not be asked for a token, for a reason that is not its own: try again later."""
    return replace(vital, probed=now)


def placed(vital: Vital, why_not: str) -> Vital:
    """After its devices were looked at; empty where its bytes are in their place."""
    return vital if vital.degraded == why_not else replace(vital, degraded=why_not)


def wants_readiness(vital: Vital, limits: Health, now: float) -> bool:
    """Whether it is time to ask whether it is ready: sooner where its counters are silent."""
    is_silent = vital.pulsed is not None and vital.pulsed != now
    return vital.asked is None or is_silent or now - vital.asked >= limits.health


def wants_probe(vital: Vital, limits: Health, now: float) -> bool:
    """Whether it is to be asked for a token: it is idle, awake, and was left alone for long."""
    if (
        not limits.probe
        or vital.pulsed != now
        or vital.in_flight != 0
        or vital.unready is not None
    ):
        return False
    if vital.pulse is None or vital.pulse.sleeping or vital.pulse.holds_contexts:
        # What has wedged an idle llama-server shows with the next request: a probe each minute
        # would have every chat that rested meanwhile computed anew from its first token.
        return False
    pause = limits.health if vital.probe_failures else limits.probe
    last = max(vital.used, vital.since if vital.probed is None else vital.probed)
    return now - last >= pause


def stuck(vital: Vital, limits: Health, now: float) -> str:
    """Why it is stuck; empty when it is not known to be."""
    limit, worked = limits.stuck, vital.worked if vital.worked is not None else vital.since
    if vital.in_flight and vital.pulsed is not None:
        signed = _signed(vital, vital.unblocked, limits, now)
        if vital.pulsed - signed >= limit:
            span = vital.pulsed - vital.unblocked
            return f"{_requests(vital)}, and no progress for {span:.3g} s{_spun(vital, signed)}"
    last = max(vital.answered, worked)
    signed = _signed(vital, last, limits, now)
    if now - signed >= limit:
        flight = f", with {_requests(vital)}" if vital.in_flight else ""
        return f"no answer to anything for {now - last:.3g} s{flight}{_spun(vital, signed)}"
    if vital.unready is not None:
        signed = _signed(vital, max(vital.unready, worked), limits, now)
        if now - signed >= limit:
            said = vital.readiness.value if vital.readiness is not None else "nothing"
            span = now - vital.unready
            return f"its health has been {said} for {span:.3g} s, without progress"
    signed = now if vital.pulsed is None else _signed(vital, vital.pulsed, limits, now)
    if vital.pulsed is not None and now - signed >= limit * SILENCE_FACTOR:
        return f"its counters have not answered for {now - vital.pulsed:.3g} s"
    if vital.probe_failures >= PROBE_FAILURES:
        return f"idle, it gave no token to {vital.probe_failures} requests in a row"
    return ""


def _signed(vital: Vital, last: float, limits: Health, now: float) -> float:
    """The newest sign of work: CPU time counts up to the ceiling after the `last` other one."""
    if vital.ran is None or now - last >= limits.stuck * SPIN_FACTOR:
        return last
    return max(last, vital.ran)


def _spun(vital: Vital, signed: float) -> str:
    """That it took CPU time all the while, where that was not believed any longer."""
    return ", though it takes CPU time" if vital.ran is not None and vital.ran > signed else ""


def judge(vital: Vital, limits: Health, now: float) -> tuple[Verdict, str]:
    """How it is, and why."""
    why = stuck(vital, limits, now)
    if why:
        return Verdict.STUCK, why
    if vital.degraded:
        return Verdict.DEGRADED, vital.degraded
    if vital.unready is not None:
        return _unready(vital, limits, now)
    if vital.pulse is None or vital.pulsed is None or vital.in_flight is None:
        return Verdict.HEALTHY, ""
    if vital.pulse.sleeping:
        wakes = "somebody asks" if vital.pulse.wakes_when_asked else "`gpuctl wake` wakes it"
        return Verdict.SLEEPING, f"it has let its weights go until {wakes}"
    if now - vital.pulsed > limits.watch * LATE_ROUNDS:
        return Verdict.BUSY, f"its health answers, its counters not for {now - vital.pulsed:.3g} s"
    return (Verdict.BUSY, _requests(vital)) if vital.in_flight else (Verdict.IDLE, "")


def _unready(vital: Vital, limits: Health, now: float) -> tuple[Verdict, str]:
    """Not ready, and not yet stuck: a busy server lets its health wait."""
    since = vital.unready if vital.unready is not None else now
    said = vital.readiness.value if vital.readiness is not None else "silent"
    why = f"its health has been {said} for {now - since:.3g} s"
    if vital.answered < since:
        why = f"no answer for {now - vital.answered:.3g} s"
    if vital.worked is not None and vital.worked >= since:
        return Verdict.BUSY, f"{why}, its counters advance"
    if vital.ran is not None and now - vital.ran < limits.health:
        return Verdict.BUSY, f"{why}, it takes CPU time"
    is_new = now - since < limits.health
    return (Verdict.BUSY if is_new and vital.in_flight else Verdict.DEGRADED), why


def _requests(vital: Vital) -> str:
    pulse = vital.pulse
    running, waiting = (pulse.running or 0, pulse.waiting or 0) if pulse is not None else (0, 0)
    return f"{running} requests in flight" + (f" and {waiting} waiting" if waiting else "")


def idle_deadline(vital: Vital, ttl_seconds: float | None, *, pinned: bool) -> float | None:
    """When it is to be unloaded for being unused; None: not while things stand as they do.

    Counted from the last sign that somebody used it. None while a request is in flight, and for
    one that does not tell whether any is.
    """
    if ttl_seconds is None or pinned or vital.in_flight != 0:
        return None
    return vital.used + ttl_seconds


def is_idle_too_long(vital: Vital, ttl_seconds: float | None, now: float, *, pinned: bool) -> bool:
    """Whether its deadline has come, by counters that were read at this very moment."""
    deadline = idle_deadline(vital, ttl_seconds, pinned=pinned)
    return deadline is not None and vital.pulsed == now and now >= deadline


def wants_noting(vital: Vital, noted: tuple[float, float] | None, at: float, now: float) -> bool:
    """Whether it is to be written down when it was last used, and its counters with it.

    `noted` is what was written last, `at` that moment.
    """
    if vital.pulse is None or vital.pulse.progress is None or vital.pulsed is None:
        return False
    return noted is None or (
        noted != (vital.used, vital.pulse.progress) and now - at >= NOTE_SECONDS
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What is told of an engine's health. Times are wall seconds; None: unknown."""

    verdict: Verdict
    reason: str = ""
    ready: bool | None = None
    busy: bool | None = None
    running: int | None = None
    waiting: int | None = None
    kv_used_fraction: float | None = None
    tokens_per_second: float | None = None
    last_progress_wall: float | None = None
    idle_deadline_wall: float | None = None
    counters: Counters | None = None  # that it told last,
    counted_boottime: float | None = None  # and when
