"""The life of one alert, as a table and as a property over any history."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.telemetry.alerts.alert import AlertState, Delivery, Severity
from gpud.telemetry.alerts.machine import (
    GONE_SECONDS,
    LISTED_SECONDS,
    MOST_RETURNS,
    RETURN_SECONDS,
    UNTOLD_SECONDS,
    Case,
    Terms,
    acknowledged,
    restored,
    step,
    told,
)
from gpud.telemetry.alerts.silences import MAX_SECONDS
from tests.telemetry.alerts.scenes import START, WALL, alert, now, rule, seen

QUIET = 10.0
YES, NO, UNKNOWN, GONE = seen(True), seen(False), seen(None), None
P, F, A, R = (
    AlertState.PENDING,
    AlertState.FIRING,
    AlertState.ACKNOWLEDGED,
    AlertState.RESOLVED,
)


def terms(for_seconds: float = 0.0, *, absence_clears: bool = False) -> Terms:
    return Terms(rule=rule(for_seconds), quiet_seconds=QUIET, absence_clears=absence_clears)


def lived(history, by: Terms) -> list[AlertState | None]:
    """The states after each look: (seconds since the start, what was seen)."""
    case, states = None, []
    for at, observation in history:
        case = step(case, observation, "hungry-1", by, now(START + at))
        states.append(case.shown.state if case is not None else None)
    return states


@pytest.mark.parametrize(
    ("for_seconds", "history", "states"),
    [
        pytest.param(0, [(0, NO), (1, YES)], [None, F], id="at once"),
        pytest.param(30, [(0, YES), (29, YES), (30, YES)], [P, P, F], id="after its time"),
        pytest.param(30, [(0, YES), (29, NO), (30, YES)], [P, None, P], id="interrupted"),
        pytest.param(30, [(0, UNKNOWN), (40, UNKNOWN)], [None, None], id="nothing is known"),
        pytest.param(
            30,
            [(0, YES), (10, UNKNOWN), (40, UNKNOWN), (41, YES), (69, YES), (70, YES)],
            [P, P, P, P, P, F],
            id="time in the dark does not count",
        ),
        pytest.param(
            0, [(0, YES), (1, NO), (10, NO), (11, NO)], [F, F, F, R], id="over once it stays quiet"
        ),
        pytest.param(
            0,
            [(0, YES), (1, NO), (6, YES), (7, NO), (16, NO), (17, NO)],
            [F, F, F, F, F, R],
            id="a short silence is none",
        ),
        pytest.param(
            0,
            [(0, YES), (1, NO), (2, UNKNOWN), (300, UNKNOWN), (301, NO), (309, NO), (310, NO)],
            [F, F, F, F, F, F, R],
            id="what is unknown does not clear",
        ),
        pytest.param(
            0,
            [(0, YES), (1, GONE), (GONE_SECONDS - 1, GONE), (GONE_SECONDS, GONE)],
            [F, F, F, R],
            id="a subject that is gone",
        ),
        pytest.param(0, [(0, YES), (30, GONE), (59, YES)], [F, F, F], id="one that comes back"),
        pytest.param(30, [(0, YES), (1, GONE), (31, YES)], [P, None, P], id="gone while pending"),
        pytest.param(
            0,
            [(0, YES), (1, NO), (11, NO), (11 + LISTED_SECONDS, NO)],
            [F, F, R, None],
            id="forgotten",
        ),
        pytest.param(
            5,
            [(0, YES), (5, YES), (6, NO), (16, NO), (20, YES), (25, YES)],
            [P, F, F, R, P, F],
            id="again",
        ),
    ],
)
def test_what_it_comes_to(for_seconds, history, states) -> None:
    assert lived(history, terms(for_seconds)) == states


def test_a_sign_that_is_not_told_any_more_is_clear() -> None:
    by = terms(absence_clears=True)
    assert lived([(0, YES), (1, GONE), (10, GONE), (11, GONE)], by) == [F, F, F, R]


def test_it_tells_since_when_and_with_which_numbers() -> None:
    by = terms(30)
    case = step(None, seen(True, words="120 W", value=120.0), "x", by, now(START))
    case = step(case, seen(True, words="130 W", value=130.0), "x", by, now(START + 30))
    assert case is not None
    told = case.shown
    assert (told.since_wall, told.fire_wall) == (WALL, WALL + 30)
    assert (told.value, told.summary, told.remedy) == (130.0, "gpu0: 130 W", "feed it less")
    case = step(case, seen(True, words="140 W", value=140.0), "x", by, now(START + 31))
    assert case is not None
    assert (case.shown.value, case.shown.fire_wall) == (140.0, WALL + 30)


def test_what_grows_graver_is_news_to_who_acknowledged_it() -> None:
    by = terms()
    case = Case(seen=START, alert=acknowledged(alert(), "anna", "I know"))
    same = step(case, seen(True, severity=Severity.INFO), "x", by, now(START + 1))
    assert same is not None
    assert (same.shown.state, same.shown.severity) == (A, Severity.INFO)
    graver = step(case, seen(True, severity=Severity.CRITICAL), "x", by, now(START + 2))
    assert graver is not None
    assert (graver.shown.state, graver.shown.acknowledged_by) == (F, "")


def fallen(case: Case, at: float, by: Terms) -> tuple[Case, float]:
    """It is over, and fires again."""
    for after, observation in ((1, NO), (1 + QUIET, NO), (20, YES)):
        found = step(case, observation, "x", by, now(at + after))
        assert found is not None
        case = found
    return case, at + 20


def test_one_that_comes_and_goes_stays_acknowledged() -> None:
    by, at = terms(), START
    case = step(None, YES, "x", by, now(at))
    assert case is not None
    for count in range(1, MOST_RETURNS):
        case, at = fallen(case, at, by)
        assert (case.shown.returns, case.shown.state) == (count, F)
    assert case.alert is not None
    case = replace(case, alert=acknowledged(case.alert, "anna", "I know"))
    case, at = fallen(case, at, by)
    assert (case.shown.returns, case.shown.state) == (MOST_RETURNS, A)
    over = step(case, NO, "x", by, now(at + 1))
    over = step(over, NO, "x", by, now(at + 1 + QUIET))
    anew = step(over, YES, "x", by, now(at + 1 + QUIET + RETURN_SECONDS))
    assert anew is not None
    assert (anew.shown.returns, anew.shown.state, anew.shown.acknowledged_by) == (0, F, "")


def test_a_restart_takes_up_what_fires_and_what_is_over() -> None:
    at = now(START + 5)
    assert restored(alert(), at).fires
    over = restored(alert(state=R, resolve_wall=WALL - 100), at)
    assert over.clear == pytest.approx(START + 5 - 105)
    # A wall clock that was set back makes nothing over that is yet to be.
    ahead = restored(alert(state=R, resolve_wall=WALL + 9000), at)
    assert ahead.clear == START + 5


ON_ITS_WAY = Delivery(sink="hook", wall=WALL, told=R)


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"deliveries": (replace(ON_ITS_WAY, is_waiting=False),)}, LISTED_SECONDS),
        ({"deliveries": (ON_ITS_WAY,)}, UNTOLD_SECONDS),
        ({"sent": Severity.WARNING}, UNTOLD_SECONDS),
    ],
)
def test_what_is_over_is_kept_until_who_knows_of_it_was_told(fields, seconds) -> None:
    """A silence may keep that for long."""
    assert UNTOLD_SECONDS > MAX_SECONDS
    case = Case(seen=START, clear=START, alert=alert(state=R, resolve_wall=WALL, **fields))
    assert step(case, NO, "x", terms(), now(START + seconds - 1)) is not None
    assert step(case, NO, "x", terms(), now(START + seconds)) is None


LOOKS = st.lists(
    st.tuples(
        st.floats(0.5, 40.0),
        st.sampled_from([YES, YES, NO, UNKNOWN, GONE]),
        st.booleans(),
    ),
    min_size=1,
    max_size=40,
)


@dataclass
class Judge:
    """What must be true of each change, kept in another way than the machine does."""

    held: float = 0.0  # known to hold without a break
    quiet: float = 0.0  # known not to, since it last did
    gone: float = 0.0

    def look(self, passed: float, observation, before: AlertState | None) -> None:
        if observation is UNKNOWN:
            self.gone = 0.0
        elif observation is YES:
            was_holding = self.held > 0 or before in (P, F, A)
            self.held = self.held + passed if was_holding and before is P else 0.0
            self.quiet = self.gone = 0.0
        elif observation is NO:
            self.quiet += passed
            self.held = self.gone = 0.0
        else:
            self.gone += passed
            self.held = 0.0
            # Who is not there does not hold; but that alone takes longer to count.
            self.quiet += passed if self.quiet > 0 else 0.0


def test_what_may_be_over_before_long_says_so_for_as_long_as_it_may() -> None:
    case, words, yes = None, [], seen(True, words="hungry")
    for at, observation in ((0, yes), (1, NO), (5, NO), (6, yes), (7, NO), (17, NO)):
        case = step(case, observation, "hungry-1", terms(), now(START + at))
        assert case is not None
        words.append(told(case, now(START + at)).summary)
    hungry = "gpu0: hungry"
    assert words == [
        hungry,
        f"{hungry} (no longer so for 0 s)",
        f"{hungry} (no longer so for 4 s)",
        hungry,
        f"{hungry} (no longer so for 0 s)",
        "gpu0: over; it was: hungry",
    ]


@given(LOOKS, st.sampled_from([0.0, 5.0, 30.0]), st.booleans())
def test_property_it_fires_and_clears_only_by_what_is_known(looks, for_seconds, clears) -> None:
    by = terms(for_seconds, absence_clears=clears)
    case, at, judge = None, START, Judge()
    for passed, observation, acknowledges in looks:
        at += passed
        before = case.shown.state if case is not None else None
        fired = case.alert.fire_wall if case is not None and case.alert is not None else None
        known = NO if observation is GONE and clears else observation
        judge.look(passed, known, before)
        case = step(case, observation, "x", by, now(at))
        after = case.shown.state if case is not None else None
        if after is not before:
            if after in (P, F):
                assert observation is YES
            if after is F:
                assert before in (None, P, R)
                assert for_seconds == 0.0 or before is P
                assert judge.held >= for_seconds - 1e-6
            if after is R and before in (F, A):
                assert known in (NO, GONE)
                assert judge.quiet >= QUIET - 1e-6 or judge.gone >= GONE_SECONDS - 1e-6
            if after is None:
                assert before in (P, R)
        if after in (F, A):
            assert case is not None
            assert case.alert is not None
            assert before not in (F, A) or case.alert.fire_wall == fired
        if acknowledges and after is F:
            assert case is not None
            assert case.alert is not None
            case = replace(case, alert=acknowledged(case.alert, "anna", ""))
