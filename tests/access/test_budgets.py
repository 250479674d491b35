"""How much may be open, and how often may be called: counted apart, by owner and in all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.access import budgets
from gpud.access.budgets import Allowance, Budgets
from gpud.access.identity import Caller, Proof, Role
from gpud.access.refusals import TooManyCalls, TooManyStreams, TooOften

FREE = Allowance()
PART, KEPT = budgets.OWNERS_PART, budgets.ADMINS_PART


def caller(name: str, role: Role = Role.OPERATOR) -> Caller:
    return Caller(name=name, role=role, proof=Proof.USER, origin="")


A, B, ROOT = caller("a"), caller("b"), caller("root", Role.ADMIN)


def crowd(count: int) -> list[Caller]:
    return [caller(f"c{number}") for number in range(count)]


def test_streams_of_one_owner_leave_those_of_others() -> None:
    made = Budgets(lambda owner: Allowance(key="quotas.a", streams=2) if owner == "a" else FREE)
    made.open_stream(A, changing=False)
    made.open_stream(A, changing=True)
    with pytest.raises(TooManyStreams, match=r"a has 2 open, no more may be \(quotas"):
        made.open_stream(A, changing=False)
    made.open_stream(B, changing=False)
    made.close_stream(A, changing=True)
    made.open_stream(A, changing=False)
    assert made.open_streams == 3


@pytest.mark.parametrize("changing", [False, True])
def test_one_owner_has_a_part_and_an_admin_what_is_kept(changing: bool) -> None:
    limit = budgets.MAX_CHANGING_STREAMS if changing else budgets.MAX_STREAMS
    made, share = Budgets(lambda _: FREE), limit // PART
    for _ in range(share):
        made.open_stream(A, changing=changing)
    with pytest.raises(TooManyStreams, match=f"a has {share} open"):
        made.open_stream(A, changing=changing)
    for each in crowd(limit - limit // KEPT - share):
        made.open_stream(each, changing=changing)
    with pytest.raises(TooManyStreams, match="there are"):
        made.open_stream(B, changing=changing)
    for _ in range(limit // KEPT):
        made.open_stream(ROOT, changing=changing)
    with pytest.raises(TooManyStreams, match=f"there are {limit} open"):
        made.open_stream(ROOT, changing=changing)


def test_a_quota_says_otherwise_within_what_there_is() -> None:
    made = Budgets(lambda _: Allowance(key="quotas.a", streams=10_000))
    most = budgets.MAX_STREAMS - budgets.MAX_STREAMS // KEPT
    for _ in range(most):
        made.open_stream(A, changing=False)
    with pytest.raises(TooManyStreams, match=f"there are {most} open"):
        made.open_stream(A, changing=False)


def test_a_thousand_watchers_leave_room_for_a_call_and_for_a_lease() -> None:
    made = Budgets(lambda _: FREE)
    for each in crowd(budgets.MAX_STREAMS - budgets.MAX_STREAMS // KEPT):
        made.open_stream(each, changing=False)
    made.open_call(B, 0.0, changing=True)
    made.open_stream(B, changing=True)


def test_calls_under_way_are_bounded() -> None:
    made, share = Budgets(lambda _: FREE), budgets.MAX_CALLS // PART
    for _ in range(share):
        made.open_call(A, 0.0, changing=False)
    with pytest.raises(TooManyCalls, match=f"a has {share} calls"):
        made.open_call(A, 0.0, changing=False)
    made.open_call(A, 0.0, changing=True)
    for each in crowd(budgets.MAX_CALLS - budgets.MAX_CALLS // KEPT - share):
        made.open_call(each, 0.0, changing=False)
    with pytest.raises(TooManyCalls, match="calls are under way"):
        made.open_call(B, 0.0, changing=False)
    made.open_call(ROOT, 0.0, changing=False)
    made.close_call(A, changing=False)
    made.close_call(ROOT, changing=False)
    made.open_call(B, 0.0, changing=False)


def test_a_rate_lets_a_seconds_worth_through_at_once_and_then_as_many_a_second() -> None:
    made = Budgets(lambda _: Allowance(key="quotas.default", calls_per_second=2.0))
    for _ in range(2):
        made.open_call(A, 100.0, changing=False)
    with pytest.raises(TooOften) as refused:
        made.open_call(A, 100.0, changing=False)
    assert refused.value.wait_seconds == pytest.approx(0.5)
    assert "2 calls a second are the limit (quotas.default.calls_per_second)" in str(refused.value)
    made.open_call(B, 100.0, changing=False)
    made.open_call(A, 100.5, changing=False)
    with pytest.raises(TooOften):
        made.open_call(A, 100.75, changing=False)


@given(st.lists(st.floats(min_value=0, max_value=0.4), min_size=50, max_size=200))
def test_no_pattern_of_calls_gets_more_than_its_rate(pauses: list[float]) -> None:
    rate, now, done = 5.0, 0.0, 0
    made = Budgets(lambda _: Allowance(calls_per_second=rate))
    for pause in pauses:
        now += pause
        try:
            made.open_call(A, now, changing=False)
        except TooOften:
            continue
        done += 1
    assert done <= rate + rate * now + 1e-6
