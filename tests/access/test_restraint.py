"""The same refusal is told five times a minute, then counted; what is counted is told once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpud.access.auditing.restraint import (
    MAX_KINDS,
    MINUTE_SECONDS,
    MOST_PER_MINUTE,
    OTHERS,
    Refusal,
    Restraint,
    Suppressed,
)

ANNA = Refusal("anna", "ReservationService/Release", "NOT_OWNER")


def kind(number: int) -> Refusal:
    return Refusal("anna", f"Unknown/{number}", "ROLE_MISSING")


def test_five_are_told_and_the_rest_is_counted_until_the_minute_is_over() -> None:
    restraint = Restraint()
    told = [restraint.admits(ANNA, 100.0 + each) for each in range(12)]
    assert told == [True] * 5 + [False] * 7
    assert restraint.over(159.9) == []
    assert restraint.over(160.0) == [Suppressed(refusal=ANNA, count=7, since=100.0)]
    assert restraint.over(1000.0) == []


def test_a_new_minute_tells_again_and_keeps_what_the_last_counted() -> None:
    restraint = Restraint()
    for _ in range(8):
        restraint.admits(ANNA, 100.0)
    assert restraint.admits(ANNA, 160.0)
    assert restraint.over(160.0) == [Suppressed(refusal=ANNA, count=3, since=100.0)]
    assert [restraint.admits(ANNA, 161.0) for _ in range(5)] == [True] * 4 + [False]
    assert restraint.over(219.0) == []


def test_five_and_no_more_leave_nothing_to_tell() -> None:
    restraint = Restraint()
    for _ in range(MOST_PER_MINUTE):
        assert restraint.admits(ANNA, 0.0)
    assert restraint.over(60.0) == []


def test_caller_method_and_reason_are_told_apart() -> None:
    restraint = Restraint()
    for _ in range(6):
        restraint.admits(ANNA, 0.0)
    for other in (
        ANNA._replace(name="bert"),
        ANNA._replace(method="InstanceService/UnloadModel"),
        ANNA._replace(reason="ROLE_MISSING"),
    ):
        assert restraint.admits(other, 0.0)
    assert not restraint.admits(ANNA, 0.0)


def test_names_made_up_without_end_are_told_a_bounded_number_of_times() -> None:
    restraint = Restraint()
    told = sum(restraint.admits(kind(number), 0.0) for number in range(20 * MAX_KINDS))
    assert told == MAX_KINDS + MOST_PER_MINUTE
    (rest,) = restraint.over(MINUTE_SECONDS)
    assert (rest.refusal, rest.count) == (OTHERS, 20 * MAX_KINDS - told)
    assert restraint.admits(kind(0), MINUTE_SECONDS)


@given(
    st.lists(
        st.tuples(st.integers(0, MAX_KINDS + 3), st.sampled_from([0.0, 0.0, 0.0, 1.0, 59.0])),
        max_size=200,
    )
)
def test_each_refusal_is_either_told_or_counted(calls: list[tuple[int, float]]) -> None:
    restraint, now, told = Restraint(), 0.0, 0
    for number, pause in calls:
        now += pause
        told += restraint.admits(kind(number % 3), now)
    counted = sum(each.count for each in restraint.over(now + MINUTE_SECONDS))
    assert told + counted == len(calls)
