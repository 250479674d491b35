"""Busy told from stuck, and idle from used: readings in, verdicts out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpud.engines.counting.counters import Counters
from gpud.engines.engine import Pulse, Readiness
from gpud.instances.health import vital
from gpud.instances.health.vital import (
    NOTE_SECONDS,
    PROBE_FAILURES,
    SILENCE_FACTOR,
    SPIN_FACTOR,
    Verdict,
    Vital,
)
from gpud.settings import Health

LIMITS = Health()
START = 100.0
IDLE = Pulse(running=0, waiting=0, progress=50.0, tokens=10.0)


def told(running: int = 1, progress: float = 50.0, **more: object) -> Pulse:
    return replace(IDLE, running=running, progress=progress, **more)  # type: ignore[arg-type]


def after(*readings: tuple[float, Pulse | Readiness | None]) -> Vital:
    """A watch that heard these, each so many seconds after its start."""
    seen = vital.begun(START)
    for at, heard in readings:
        if isinstance(heard, Readiness):
            seen = vital.asked(seen, heard, START + at)
        else:
            seen = vital.felt(seen, heard, START + at)
    return seen


def verdict(seen: Vital, at: float) -> Verdict:
    return vital.judge(seen, LIMITS, START + at)[0]


def test_one_that_works_is_busy_however_long_it_takes() -> None:
    seen = after(*((5.0 * n, told(2, 50.0 + n)) for n in range(1, 200)))
    assert vital.judge(seen, LIMITS, START + 995) == (Verdict.BUSY, "2 requests in flight")
    assert vital.stuck(seen, LIMITS, START + 995) == ""


def test_in_flight_without_progress_is_stuck_after_a_minute_and_not_before() -> None:
    readings = [(5.0 * n, told()) for n in range(1, 14)]
    assert verdict(after(*readings[:12]), 60.0) is Verdict.BUSY  # in flight since 5 s
    seen, why = vital.judge(after(*readings), LIMITS, START + 65.0)
    assert seen is Verdict.STUCK
    assert why == "1 requests in flight, and no progress for 60 s"


def test_a_step_that_ends_in_time_starts_the_minute_anew() -> None:
    readings = [(5.0 * n, told(1, 50.0 if n < 10 else 51.0)) for n in range(1, 22)]
    assert verdict(after(*readings[:20]), 100.0) is Verdict.BUSY
    assert verdict(after(*readings, (110.0, told(1, 51.0))), 110.0) is Verdict.STUCK


def test_a_long_prompt_that_fills_the_cache_is_work_before_any_token_counts() -> None:
    def filling(n: int) -> Pulse:
        return replace(told(1), kv_used_fraction=n / 100)

    assert verdict(after(*((5.0 * n, filling(n)) for n in range(1, 40))), 195.0) is Verdict.BUSY
    assert verdict(after(*((5.0 * n, filling(7)) for n in range(1, 40))), 195.0) is Verdict.STUCK


def test_waiting_requests_that_get_no_slot_are_in_flight_too() -> None:
    readings = [(5.0 * n, told(0, waiting=3)) for n in range(1, 15)]
    assert verdict(after(*readings), 70.0) is Verdict.STUCK


def test_a_health_check_that_times_out_while_counters_advance_is_a_busy_server_s() -> None:
    readings: list[tuple[float, Pulse | Readiness | None]] = []
    for n in range(1, 40):
        readings += [(5.0 * n, told(4, 50.0 + n)), (5.0 * n, Readiness.LOADING)]
    seen, why = vital.judge(after(*readings), LIMITS, START + 195.0)
    assert seen is Verdict.BUSY
    assert "its counters advance" in why


@pytest.mark.parametrize("said", [Readiness.LOADING, Readiness.REFUSED, Readiness.BROKEN])
def test_a_health_that_stays_bad_without_progress_is_stuck(said: Readiness) -> None:
    """As with vLLM whose core died: its counters answer on, its health does not."""
    readings: list[tuple[float, Pulse | Readiness | None]] = []
    for n in range(1, 14):
        readings += [(5.0 * n, IDLE), (5.0 * n, said)]
    early = after(*readings[:6])
    assert verdict(early, 15.0) is Verdict.DEGRADED
    assert verdict(early, 21.0) is Verdict.DEGRADED
    assert verdict(after(*readings), 64.9) is Verdict.DEGRADED
    assert verdict(after(*readings), 65.0) is Verdict.STUCK


def test_no_answer_to_anything_for_a_minute_is_stuck() -> None:
    seen = after((5.0, told()), *((5.0 * n, Readiness.LOADING) for n in range(2, 14)))
    assert verdict(seen, 60.0) is Verdict.DEGRADED
    found, why = vital.judge(seen, LIMITS, START + 65.0)
    assert found is Verdict.STUCK
    assert why == "no answer to anything for 60 s, with 1 requests in flight"


def test_counters_that_are_silent_while_the_health_answers_are_borne_longer() -> None:
    """A prompt on a slow CPU: one step of minutes, in which llama-server tells no counters."""
    limit = LIMITS.stuck * SILENCE_FACTOR
    ready = [(5.0 * n, Readiness.READY) for n in range(2, int(limit / 5) + 2)]
    seen = after((5.0, told()), *ready)
    assert verdict(seen, 200.0) is Verdict.BUSY
    assert verdict(seen, 5.0 + limit) is Verdict.STUCK


def test_one_that_tells_no_counters_is_known_by_its_health_alone() -> None:
    ready = [(15.0 * n, Readiness.READY) for n in range(1, 100)]
    assert verdict(after(*ready), 1485.0) is Verdict.HEALTHY
    assert not vital.wants_probe(after(*ready), LIMITS, START + 1485.0)


def test_counters_without_progress_do_not_make_a_server_stuck_that_is_idle() -> None:
    assert verdict(after(*((5.0 * n, IDLE) for n in range(1, 500))), 2495.0) is Verdict.IDLE


def test_counters_that_began_anew_are_a_sign_of_life() -> None:
    seen = after((5.0, told(1, 500.0)), (60.0, told(1, 3.0)), (100.0, told(1, 3.0)))
    assert verdict(seen, 100.0) is Verdict.BUSY


def test_a_sleeping_one_is_left_alone() -> None:
    seen = after(*((5.0 * n, replace(IDLE, sleeping=True)) for n in range(1, 100)))
    assert verdict(seen, 495.0) is Verdict.SLEEPING
    assert not vital.wants_probe(seen, LIMITS, START + 495.0)


@pytest.mark.parametrize(
    ("wakes", "why"),
    [
        (True, "it has let its weights go until somebody asks"),
        (False, "it has let its weights go until `gpuctl wake` wakes it"),
    ],
)
def test_a_sleeping_one_says_what_wakes_it(wakes: bool, why: str) -> None:
    seen = after((5.0, replace(IDLE, sleeping=True, wakes_when_asked=wakes)))
    assert vital.judge(seen, LIMITS, START + 5.0) == (Verdict.SLEEPING, why)


def test_its_speed_is_of_when_it_last_gave_any() -> None:
    seen = after((5.0, told(1, 60.0, tokens=100.0)), (10.0, told(1, 70.0, tokens=160.0)))
    assert seen.tokens_per_second == pytest.approx(12.0)
    # One that had nothing to do for a part of the time is no slower for that.
    assert vital.felt(seen, told(0, 75.0, tokens=161.0), START + 15).tokens_per_second == 12.0


def test_its_speed_is_of_tokens_as_they_are_given_not_as_requests_end() -> None:
    """llama-server counts a request's tokens at its end: one of 2000 made it look fast as none."""

    def counting(steps: float, tokens: float) -> Pulse:
        counters = Counters(
            running=1, given_tokens=steps, generated_tokens=tokens, token_steps=steps
        )
        return told(1, steps, tokens=tokens, counters=counters)

    begun = after((5.0, counting(1000.0, 10.0)), (10.0, counting(1250.0, 10.0)))
    assert begun.tokens_per_second == pytest.approx(50.0)
    ended = vital.felt(begun, counting(1500.0, 2010.0), START + 15.0)
    assert ended.tokens_per_second == pytest.approx(50.0)


# CPU time.


def computing(*readings: tuple[float, float], until: float, heard: Pulse | None = None) -> Vital:
    """A watch every 5 s of one request, its counters still, and (from, CPUs) that it takes."""
    seen, cpu = after((5.0, told())), 0.0
    for n in range(2, int(until / 5) + 1):
        at = 5.0 * n
        cpu += 5.0 * next((share for since, share in reversed(readings) if at > since), 0.0)
        seen = vital.felt(seen, heard, START + at)
        if heard is None:
            seen = vital.asked(seen, Readiness.LOADING, START + at)
        seen = vital.ran(seen, cpu, LIMITS, START + at)
    return seen


@pytest.mark.parametrize("heard", [told(), None])
def test_one_batch_that_takes_longer_than_stuck_is_no_wedge(heard: Pulse | None) -> None:
    """llama-server's counters move once a batch; some builds answer nothing meanwhile."""
    seen = computing((0.0, 1.0), until=400.0, heard=heard)
    assert vital.stuck(seen, LIMITS, START + 400.0) == ""
    assert verdict(seen, 400.0) is Verdict.BUSY


@pytest.mark.parametrize("heard", [told(), None])
def test_without_cpu_time_either_it_is_stuck_after_its_minute(heard: Pulse | None) -> None:
    seen = computing((0.0, 1.0), (100.0, 0.0), until=150.0, heard=heard)
    assert verdict(seen, 150.0) is not Verdict.STUCK
    seen = computing((0.0, 1.0), (100.0, 0.0), until=175.0, heard=heard)
    assert verdict(seen, 175.0) is Verdict.STUCK


@pytest.mark.parametrize("heard", [told(), None])
def test_what_spins_without_an_end_is_ended_at_the_ceiling(heard: Pulse | None) -> None:
    ceiling = 5.0 + LIMITS.stuck * SPIN_FACTOR
    assert verdict(computing((0.0, 1.0), until=ceiling - 5, heard=heard), ceiling - 5) is not (
        Verdict.STUCK
    )
    found, why = vital.judge(
        computing((0.0, 1.0), until=ceiling, heard=heard), LIMITS, START + ceiling
    )
    assert found is Verdict.STUCK
    assert "for 600 s" in why
    assert why.endswith("though it takes CPU time")


def test_what_answers_gpud_s_own_questions_is_no_work() -> None:
    assert verdict(computing((0.0, 0.001), until=65.0, heard=told()), 65.0) is Verdict.STUCK


def test_a_device_that_works_for_it_alone_is_a_sign_too() -> None:
    still = computing((0.0, 0.0), until=65.0, heard=told())
    assert verdict(still, 65.0) is Verdict.STUCK
    assert verdict(vital.computed(still, START + 64.0), 65.0) is Verdict.BUSY


def test_cpu_time_that_cannot_be_read_says_nothing() -> None:
    seen = after((5.0, told()))
    assert vital.ran(seen, None, LIMITS, START + 10.0) == seen


def test_one_that_does_not_answer_is_not_healthy() -> None:
    frozen = vital.asked(
        vital.felt(after((5.0, IDLE)), None, START + 6), Readiness.LOADING, START + 7
    )
    assert vital.judge(frozen, LIMITS, START + 7) == (Verdict.DEGRADED, "no answer for 2 s")
    busy = vital.asked(
        vital.felt(after((5.0, told())), None, START + 6), Readiness.LOADING, START + 7
    )
    assert vital.judge(busy, LIMITS, START + 7) == (Verdict.BUSY, "no answer for 2 s")


# Probes.


@pytest.mark.parametrize(
    ("pulse", "at", "wanted"),
    [
        (IDLE, 59.0, False),
        (IDLE, 60.0, True),
        (told(1), 60.0, False),
        (told(0, waiting=1), 60.0, False),
        (told(0, 51.0), 60.0, False),  # it worked just now
        (replace(IDLE, running=None, waiting=None), 60.0, False),
    ],
)
def test_only_one_that_was_idle_for_long_is_probed(pulse: Pulse, at: float, wanted: bool) -> None:
    seen = after((1.0, IDLE), (at, pulse))
    assert vital.wants_probe(seen, LIMITS, START + at) is wanted


def test_one_that_holds_the_contexts_of_its_users_is_not_probed() -> None:
    seen = after((1.0, IDLE), (60.0, IDLE))
    assert vital.wants_probe(seen, LIMITS, START + 60.0)
    holder = after((1.0, IDLE), (60.0, replace(IDLE, holds_contexts=True)))
    assert not vital.wants_probe(holder, LIMITS, START + 60.0)


def test_probes_can_be_switched_off() -> None:
    off = Health(probe=type(LIMITS.probe)(0.0))
    assert not vital.wants_probe(after((100.0, IDLE)), off, START + 100)


def test_it_is_not_probed_when_its_counters_do_not_answer_now() -> None:
    assert not vital.wants_probe(after((60.0, IDLE), (65.0, None)), LIMITS, START + 65.0)


def test_failed_probes_are_repeated_sooner_and_three_are_stuck() -> None:
    seen, at = after((60.0, IDLE)), 60.0
    for number in range(1, PROBE_FAILURES + 1):
        assert vital.wants_probe(seen, LIMITS, START + at)
        seen = vital.probed(seen, IDLE, START + at, passed=False)
        assert seen.probe_failures == number
        assert not vital.wants_probe(seen, LIMITS, START + at)
        at += LIMITS.health
        seen = vital.felt(seen, IDLE, START + at)
    assert verdict(seen, at) is Verdict.STUCK


def test_a_probe_that_passes_makes_good_for_those_before() -> None:
    seen = vital.probed(after((60.0, IDLE)), IDLE, START + 60, passed=False)
    seen = vital.probed(seen, told(0, 52.0), START + 75, passed=True)
    assert (seen.probe_failures, verdict(seen, 75.0)) == (0, Verdict.IDLE)


@pytest.mark.parametrize("pulse", [told(1), told(0, 70.0)])
def test_a_probe_that_had_to_wait_for_others_says_nothing(pulse: Pulse) -> None:
    seen = vital.probed(after((60.0, IDLE)), pulse, START + 75, passed=False)
    assert seen.probe_failures == 0


# Idle.


def test_a_probe_is_no_use_and_somebody_beside_it_is() -> None:
    first = vital.probed(after((60.0, IDLE)), told(0, 62.0), START + 60, passed=True)
    assert first.used == START
    again = vital.felt(first, told(0, 62.0), START + 119)
    ours = vital.probed(again, told(0, 74.0), START + 120, passed=True)
    assert ours.used == START
    others = vital.probed(again, told(0, 99.0), START + 120, passed=True)
    assert others.used == START + 120


@pytest.mark.parametrize(
    ("ttl", "pinned", "pulse", "deadline"),
    [
        (30.0, False, IDLE, START + 30.0),
        (30.0, True, IDLE, None),
        (None, False, IDLE, None),
        (30.0, False, told(1), None),
        (30.0, False, None, None),  # it does not tell
        (30.0, False, told(0, 51.0), START + 42.0),
    ],
)
def test_the_idle_deadline(
    ttl: float | None, pinned: bool, pulse: Pulse | None, deadline: float | None
) -> None:
    seen = after((6.0, None if pulse is None else IDLE), (12.0, pulse))
    assert vital.idle_deadline(seen, ttl, pinned=pinned) == deadline


@pytest.mark.parametrize(("progress", "used"), [(50.0, START - 20.0), (51.0, START + 1.0)])
def test_a_restart_of_the_daemon_is_no_use_of_it(progress: float, used: float) -> None:
    seen = vital.found(START, START - 20.0, 50.0)
    seen = vital.felt(seen, told(0, progress), START + 1.0)
    assert seen.used == used
    assert vital.idle_deadline(seen, 30.0, pinned=False) == used + 30.0


def test_its_use_is_written_down_at_first_and_then_seldom() -> None:
    assert not vital.wants_noting(vital.begun(START), None, 0.0, START)
    seen = after((1.0, IDLE))
    noted = (seen.used, 50.0)
    assert vital.wants_noting(seen, None, 0.0, START + 1)
    assert not vital.wants_noting(seen, noted, START + 1, START + 500)
    used = vital.felt(seen, told(0, 51.0), START + 6)
    assert not vital.wants_noting(used, noted, START + 1, START + 6)
    assert vital.wants_noting(used, noted, START + 1, START + 1 + NOTE_SECONDS)


def test_nothing_is_unloaded_by_old_counters() -> None:
    seen = after((29.0, IDLE), (34.0, None))
    assert not vital.is_idle_too_long(seen, 30.0, START + 34.0, pinned=False)
    fresh = vital.felt(seen, IDLE, START + 39.0)
    assert vital.is_idle_too_long(fresh, 30.0, START + 39.0, pinned=False)
    used = vital.felt(seen, told(0, 51.0), START + 39.0)
    assert not vital.is_idle_too_long(used, 30.0, START + 39.0, pinned=False)


def test_readiness_is_asked_seldom_but_at_once_where_counters_fall_silent() -> None:
    seen = after((5.0, IDLE), (5.0, Readiness.READY), (10.0, IDLE))
    assert not vital.wants_readiness(seen, LIMITS, START + 10.0)
    assert vital.wants_readiness(vital.felt(seen, None, START + 15.0), LIMITS, START + 15.0)
    assert vital.wants_readiness(vital.felt(seen, IDLE, START + 20.0), LIMITS, START + 20.0)


def test_bytes_that_are_elsewhere_are_told_before_what_it_does() -> None:
    seen = vital.placed(after((5.0, told(1))), "it runs on the CPU")
    assert vital.judge(seen, LIMITS, START + 5) == (Verdict.DEGRADED, "it runs on the CPU")
    assert verdict(vital.placed(seen, ""), 5.0) is Verdict.BUSY
