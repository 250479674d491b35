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


def caller(name: str, proof: Proof = Proof.USER) -> Caller:
    return Caller(name=name, role=Role.VIEWER, proof=proof, origin="")


A, B = caller("a"), caller("b")


def test_streams_of_one_owner_leave_those_of_others() -> None:
    made = Budgets(lambda owner: Allowance(key="quotas.a", streams=2) if owner == "a" else FREE)
    made.open_stream(A, changing=False)
    made.open_stream(A, changing=True)
    told = r"a has 2 open, no more may be \(quotas\.a\.streams\)"
    with pytest.raises(TooManyStreams, match=told):
        made.open_stream(A, changing=False)
    made.open_stream(B, changing=False)
    made.close_stream(A, changing=True)
    made.open_stream(A, changing=False)
    assert made.open_streams == 3


def test_a_thousand_watchers_leave_room_for_a_call_and_for_a_lease() -> None:
    made = Budgets(lambda _: FREE)
    for _ in range(budgets.MAX_STREAMS):
        made.open_stream(A, changing=False)
    with pytest.raises(TooManyStreams, match=f"there are {budgets.MAX_STREAMS} open"):
        made.open_stream(B, changing=False)
    made.open_call("b", 0.0, changing=True)
    made.open_stream(B, changing=True)


def test_callers_whom_nobody_knows_leave_room_for_those_who_are_known() -> None:
    made, nobody = Budgets(lambda _: FREE), caller("anonymous", Proof.NOTHING)
    for _ in range(budgets.MAX_ANONYMOUS_STREAMS):
        made.open_stream(nobody, changing=False)
    with pytest.raises(TooManyStreams, match=f"there are {budgets.MAX_ANONYMOUS_STREAMS} open"):
        made.open_stream(nobody, changing=False)
    made.open_stream(A, changing=False)
    made.close_stream(nobody, changing=False)
    made.open_stream(nobody, changing=False)


def test_calls_under_way_are_bounded() -> None:
    made = Budgets(lambda _: FREE)
    for _ in range(budgets.MAX_CALLS):
        made.open_call("a", 0.0, changing=False)
    with pytest.raises(TooManyCalls):
        made.open_call("b", 0.0, changing=False)
    made.open_call("b", 0.0, changing=True)
    made.close_call(changing=False)
    made.open_call("b", 0.0, changing=False)


def test_a_rate_lets_a_seconds_worth_through_at_once_and_then_as_many_a_second() -> None:
    made = Budgets(lambda _: Allowance(key="quotas.default", calls_per_second=2.0))
    for _ in range(2):
        made.open_call("a", 100.0, changing=False)
    with pytest.raises(TooOften) as refused:
        made.open_call("a", 100.0, changing=False)
    assert refused.value.wait_seconds == pytest.approx(0.5)
    assert "2 calls a second are the limit (quotas.default.calls_per_second)" in str(refused.value)
    made.open_call("b", 100.0, changing=False)
    made.open_call("a", 100.5, changing=False)
    with pytest.raises(TooOften):
        made.open_call("a", 100.75, changing=False)


@given(st.lists(st.floats(min_value=0, max_value=0.4), min_size=50, max_size=200))
def test_no_pattern_of_calls_gets_more_than_its_rate(pauses: list[float]) -> None:
    rate, now, done = 5.0, 0.0, 0
    made = Budgets(lambda _: Allowance(calls_per_second=rate))
    for pause in pauses:
        now += pause
        try:
            made.open_call("a", now, changing=False)
        except TooOften:
            continue
        done += 1
    assert done <= rate + rate * now + 1e-6
