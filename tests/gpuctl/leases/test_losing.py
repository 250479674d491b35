from __future__ import annotations

from signal import SIGCONT, SIGKILL, SIGTERM

from gpuctl.leases.losing import GRACE_SECONDS, LEAD_SECONDS, Losing

NOW = 1000.0


def test_a_notice_leaves_time_and_then_asks_and_then_kills() -> None:
    losing = Losing(acts=True)
    assert losing.announced(30.0, NOW) == 30.0 - LEAD_SECONDS
    term = NOW + 30.0 - LEAD_SECONDS
    assert losing.next_time == term
    assert losing.due(term - 0.1) == []
    assert losing.due(term) == [SIGTERM, SIGCONT]
    assert losing.next_time == term + GRACE_SECONDS
    assert losing.due(term + GRACE_SECONDS) == [SIGKILL]
    assert losing.next_time is None
    assert losing.due(term + 100) == []


def test_a_short_notice_is_halved_and_a_late_one_acts_at_once() -> None:
    assert Losing(acts=True).announced(4.0, NOW) == 2.0
    assert Losing(acts=True).announced(-5.0, NOW) == 0.0


def test_a_notice_that_is_withdrawn_before_it_acts_leaves_the_command_alone() -> None:
    losing = Losing(acts=True)
    losing.announced(30.0, NOW)
    losing.withdrawn()
    assert losing.next_time is None
    assert losing.due(NOW + 100) == []


def test_a_kill_is_not_put_off_by_further_news() -> None:
    losing = Losing(acts=True)
    losing.lost(NOW)
    assert losing.due(NOW) == [SIGTERM, SIGCONT]
    losing.lost(NOW + 1)
    assert losing.announced(30.0, NOW + 1) is None
    assert losing.due(NOW + 1) == []
    assert losing.due(NOW + GRACE_SECONDS) == [SIGKILL]


def test_one_that_only_warns_sends_nothing() -> None:
    losing = Losing(acts=False)
    assert losing.announced(30.0, NOW) is None
    losing.lost(NOW)
    assert losing.next_time is None
    assert losing.due(NOW + 1000) == []
