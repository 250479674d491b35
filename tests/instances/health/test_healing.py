"""Back-off, breaker, and what is forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.clock import Moment
from gpud.instances.health.healing import (
    Fault,
    GivenUp,
    Healing,
    RestartLoop,
    closed,
    failed,
    most_in_a_row,
    pause_seconds,
    put_off,
    put_off_seconds,
    serving,
)
from gpud.settings import Health, Span

LIMITS = Health()


def at(seconds: float, boot: str = "b") -> Moment:
    return Moment(boot_id=boot, boottime=seconds, wall=1e9 + seconds)


def fault(*, oom: bool = False, luck: float = 0.0) -> Fault:
    return Fault(cause="it fell", is_oom=oom, luck=luck)


def after(*moments: float, ooms: frozenset[float] = frozenset()) -> Healing:
    """One that was READY at 0, failed at these, and was READY again a second after each pause."""
    record = serving(Healing(), at(0))
    for moment in moments:
        record = failed(record, fault(oom=moment in ooms), at(moment), LIMITS)
        if record.given_up is None and moment != moments[-1]:
            record = serving(record, at(moment + 1))
    return record


def test_pauses_double_from_one_second_to_five_minutes() -> None:
    found = [pause_seconds(n, 0.0, LIMITS) for n in range(1, 12)]
    assert found == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert pause_seconds(10**9, 0.0, LIMITS) == 300


@given(st.integers(1, 100), st.floats(0, 1, exclude_max=True))
def test_chance_takes_a_quarter_at_most(in_a_row: int, luck: float) -> None:
    whole = pause_seconds(in_a_row, 0.0, LIMITS)
    assert 0.75 * whole <= pause_seconds(in_a_row, luck, LIMITS) <= whole


def test_the_first_failure_is_tried_again_after_the_first_pause() -> None:
    record = after(50.0)
    assert record.retry is not None
    assert record.retry.remaining_seconds(at(50.0)) == 1.0
    assert (record.cause, record.served, record.given_up) == ("it fell", True, None)


def test_five_within_ten_minutes_are_a_loop() -> None:
    assert after(10, 70, 130, 190).given_up is None
    record = after(10, 70, 130, 190, 250)
    assert record.given_up is GivenUp.RESTART_LOOP
    assert (record.retry, len(record.failures)) == (None, 5)


def test_five_in_more_than_ten_minutes_are_none() -> None:
    """Each fell before it had been healthy for long, so the pauses grow all the same."""
    record = after(*(200.0 * n for n in range(1, 9)))
    assert record.given_up is None
    assert record.in_a_row == 8
    assert record.retry is not None
    assert record.retry.remaining_seconds(at(1600.0)) == 128


@pytest.mark.parametrize("load_seconds", [160.0, 300.0, 3600.0])
def test_slow_starters_are_given_up_after_ten_in_a_row(load_seconds: float) -> None:
    """No window ever holds five of them."""
    record, now, count = Healing(served=True), 0.0, 0
    while record.given_up is None:
        record, count = failed(record, fault(), at(now), LIMITS), count + 1
        assert count <= 10
        now += load_seconds
        if record.retry is not None:
            now = record.retry.boottime + load_seconds
    assert (count, record.given_up) == (10, GivenUp.RESTART_LOOP)
    assert len(record.failures) < LIMITS.breaker_failures


def test_a_healthy_spell_forgets_all() -> None:
    record = after(10, 20, 30, 40, 41 + LIMITS.healthy_spell)
    assert (record.in_a_row, len(record.failures), record.given_up) == (1, 1, None)


def test_the_spell_is_counted_while_it_serves_and_not_while_it_lies() -> None:
    record = after(10.0)
    late = failed(record, fault(), at(10.0 + 2 * LIMITS.healthy_spell), LIMITS)
    assert late.in_a_row == 2


def test_the_second_time_for_want_of_memory_is_the_last() -> None:
    assert after(10, ooms=frozenset({10})).given_up is None
    assert after(10, 20, ooms=frozenset({10})).given_up is None
    assert after(10, 20, 30, ooms=frozenset({10, 30})).given_up is GivenUp.OOM


def test_what_is_not_the_engine_s_doing_does_not_count() -> None:
    record = put_off(after(10.0), "the disk is full", at(11), 0.5)
    assert (record.in_a_row, len(record.failures), record.cause) == (1, 1, "the disk is full")
    assert record.retry is not None
    assert record.retry.remaining_seconds(at(11)) == 0.5


def test_what_goes_on_not_being_its_doing_is_tried_seldomer_until_it_serves() -> None:
    record, pauses = after(10.0), []
    for _ in range(12):
        pauses.append(put_off_seconds(record, 0.5, 0.0, LIMITS))
        record = put_off(record, "the card is hot", at(11), pauses[-1])
    assert pauses == [0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert put_off_seconds(record, 0.5, 1.0, LIMITS) == 225
    assert record.in_a_row == 1
    assert serving(record, at(12)).put_offs == 0
    assert failed(record, fault(), at(12), LIMITS).put_offs == 0


def test_a_loop_over_whatever_time_is_told_as_such() -> None:
    cause = "cannot keep instances/a: it fell"
    facts = {"instance": "instances/a", "phase": "LOAD", "output_tail": (), "cause": cause}
    told = RestartLoop(failures=10, window_seconds=None, **facts)  # type: ignore[arg-type]
    assert "its engine failed 10 times in a row, the last time: it fell" in told.summary


def test_a_reset_forgets_all_and_starts_at_once() -> None:
    record = closed(after(10, 20, 30), at(31))
    assert (record.in_a_row, record.failures, record.ooms) == (0, (), 0)
    assert record.retry is not None
    assert record.retry.remaining_seconds(at(31)) == 0
    assert record.served


def test_ready_again_it_waits_for_nothing() -> None:
    record = serving(after(10), at(12))
    assert (record.retry, record.cause, record.served) == (None, "", True)
    assert len(record.failures) == 1


@given(
    st.lists(st.tuples(st.floats(0.1, 1000), st.booleans()), min_size=1, max_size=40),
    st.integers(1, 8),
)
def test_no_more_starts_than_the_breaker_allows_in_any_window(
    gaps: list[tuple[float, bool]], most: int
) -> None:
    limits = Health(breaker_failures=most, healthy_spell=Span(1e9))
    record, now, moments = serving(Healing(), at(0)), 0.0, []
    for gap, _ in gaps:
        now += gap
        moments.append(now)
        record = failed(record, fault(), at(now), limits)
        if record.given_up is not None:
            break
        record = serving(record, at(now))
    window = float(limits.breaker_window)
    for end in moments[:-1]:
        assert len([each for each in moments if end - window < each <= end]) < most
    last = [each for each in moments if now - window < each <= now]
    is_over = len(last) >= most or len(moments) >= most_in_a_row(limits)
    assert is_over == (record.given_up is GivenUp.RESTART_LOOP)


@pytest.mark.parametrize("failures", [1, 3])
def test_the_breaker_is_a_setting(failures: int) -> None:
    limits = replace_failures(failures)
    record = Healing(served=True)
    for n in range(failures):
        assert record.given_up is None
        record = failed(record, fault(), at(float(n)), limits)
    assert record.given_up is GivenUp.RESTART_LOOP


def replace_failures(count: int) -> Health:
    return Health(breaker_failures=count)
