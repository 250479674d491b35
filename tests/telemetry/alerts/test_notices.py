"""Who is told what, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpud.ledger.reservation import Deadline
from gpud.telemetry.alerts import notices
from gpud.telemetry.alerts.alert import Alert, AlertState, Delivery, Severity, Silence
from gpud.telemetry.alerts.machine import MOST_RETURNS, RETURN_SECONDS, Case
from gpud.telemetry.alerts.notices import Notice, Telling, due
from gpud.telemetry.alerts.silences import MAX_SECONDS, Silences
from tests.telemetry.alerts.scenes import START, WALL, alert, now, rule

F, R = AlertState.FIRING, AlertState.RESOLVED
W, C = Severity.WARNING, Severity.CRITICAL


def case(**fields) -> Case:
    return Case(seen=START, alert=alert(**fields), clear=START - 1)


def silence(seconds: float = 60.0, **fields) -> Silence:
    end = Deadline.after(now(), seconds)
    return Silence(**{"rule": "", "subject": "", "end": end, "actor": "anna"} | fields)


@pytest.mark.parametrize(
    ("of", "told"),
    [
        (case(), F),
        (case(sent=W), None),
        (case(sent=W, severity=C), F),
        (case(sent=C, severity=W), None),
        (case(state=AlertState.ACKNOWLEDGED), None),
        (case(state=AlertState.ACKNOWLEDGED, sent=W), None),
        (case(state=R, sent=W), R),
        (case(state=R), None),
        (case(state=R, sent=W, returns=MOST_RETURNS), None),
        (
            replace(case(state=R, sent=W, returns=MOST_RETURNS), clear=START - RETURN_SECONDS),
            R,
        ),
        (Case(seen=START, pending=alert(state=AlertState.PENDING)), None),
    ],
)
def test_what_is_due(of: Case, told: AlertState | None) -> None:
    assert due(of, Telling(), START, now()) is told
    # Nobody is told anything in a silence.
    assert due(of, Telling(silences=(silence(),)), START, now()) is None


def test_what_fires_is_told_again_where_that_is_wanted() -> None:
    telling, of = Telling(repeat_seconds=60.0), case(sent=W)
    assert due(of, telling, START, now(START + 59)) is None
    assert due(of, telling, START, now(START + 60)) is F
    assert due(of, telling, None, now(START + 60)) is None


GIVEN_UP = Delivery(sink="a", wall=WALL, told=F, is_waiting=False, problem="refused")


@pytest.mark.parametrize(
    ("state", "delivery", "owed"),
    [
        (F, GIVEN_UP, True),
        (R, replace(GIVEN_UP, told=R, knew=True), True),
        (R, replace(GIVEN_UP, told=R), False),  # it never heard that it fires
        (F, replace(GIVEN_UP, delivered=True), False),
        (F, replace(GIVEN_UP, is_waiting=True), False),
        (F, replace(GIVEN_UP, sink="b"), False),
        (F, replace(GIVEN_UP, wall=WALL + 1), False),  # it refuses this one, and takes others
        (R, GIVEN_UP, False),
        (AlertState.ACKNOWLEDGED, GIVEN_UP, False),
    ],
)
def test_what_a_sink_that_is_back_was_not_told(
    state: AlertState, delivery: Delivery, owed: bool
) -> None:
    taken = Delivery(sink="a", wall=WALL, told=F, delivered=True, is_waiting=False)
    assert notices.is_owed(alert(state=state, deliveries=(delivery,)), taken) is owed


def test_when_an_earlier_life_told_of_it() -> None:
    told = notices.sent(notices.sent(alert(), F, ["a"], WALL), F, ["b"], WALL + 20)
    assert notices.last_told(told, now(START + 50)) == pytest.approx(START + 20)
    assert notices.last_told(alert(), now()) == START
    # The wall clock was set back meanwhile.
    assert notices.last_told(told, replace(now(), wall=WALL - 1e6)) == START


@pytest.mark.parametrize(
    ("made", "covers"),
    [
        (silence(), True),
        (silence(rule="hungry"), True),
        (silence(rule="thermal"), False),
        (silence(subject="devices/U-gpu0"), True),
        (silence(subject="devices/U-gpu1"), False),
        (silence(rule="hungry", subject="devices/U-gpu1"), False),
    ],
)
def test_whom_a_silence_covers(made: Silence, covers: bool) -> None:
    until = Telling(silences=(made,)).silenced_until(alert(), now(START + 10))
    assert until == (pytest.approx(WALL + 60) if covers else None)
    assert Telling(silences=(made,)).silenced_until(alert(), now(START + 60)) is None


def test_silences_last_over_a_reboot_by_the_wall_clock() -> None:
    kept = Silences()
    elsewhere = replace(now(), boot_id="boot-2", boottime=5.0, wall=WALL + 40)
    kept.restore([silence(60.0)], elsewhere)
    (found,) = kept.all()
    assert found.end.remaining_seconds(elsewhere) == pytest.approx(20.0)
    kept.restore([silence(9 * MAX_SECONDS)], elsewhere)
    assert kept.all()[0].end.remaining_seconds(elsewhere) == pytest.approx(MAX_SECONDS)


def test_sinks_are_told_what_concerns_them() -> None:
    telling = Telling(least={"all": Severity.INFO, "pager": C})
    assert telling.sinks_of(alert(), F, rule()) == ["all"]
    assert telling.sinks_of(alert(severity=C), F, rule()) == ["all", "pager"]
    assert telling.sinks_of(alert(severity=C), F, rule(sinks=("pager",))) == ["pager"]
    assert telling.sinks_of(alert(severity=C), F, rule(sinks=())) == []
    assert telling.sinks_of(alert(severity=C), F, None) == ["all", "pager"]


def test_that_it_is_over_is_told_to_who_knows_of_it() -> None:
    """Also where it was less grave at the end."""
    telling = Telling(least={"all": Severity.INFO, "pager": C, "new": Severity.INFO})
    told = notices.sent(alert(severity=C), F, ["all", "pager"], WALL)
    assert telling.sinks_of(replace(told, severity=W), R, rule()) == ["all", "pager"]


def test_of_each_sink_the_newest_delivery_is_kept() -> None:
    first = notices.sent(alert(), F, ["a", "b"], WALL)
    assert first.sent is W
    second = notices.sent(first, R, ["a"], WALL + 5)
    assert second.sent is None
    assert [(each.sink, each.told) for each in second.deliveries] == [("b", F), ("a", R)]
    done = Delivery(sink="a", wall=WALL + 5, told=R, delivered=True, is_waiting=False, attempts=2)
    assert notices.settled(second, done).deliveries[1] == done
    late = replace(done, wall=WALL, told=F)
    assert notices.settled(second, late) == second


@pytest.mark.parametrize(
    ("took", "knows"),
    [((), False), ((F,), True), ((F, None), True), ((F, R), False), ((F, R, None), False)],
)
def test_what_a_sink_took_last_is_known(took: tuple[AlertState | None, ...], knows: bool) -> None:
    """None: a notice that it fires, which the sink did not take."""
    of = alert()
    for wall, told in enumerate(took):
        of = notices.sent(of, told or F, ["a"], wall)
        (delivery,) = of.deliveries
        taken = Delivery(
            sink="a", wall=wall, told=delivery.told, delivered=told is not None, is_waiting=False
        )
        of = notices.settled(of, taken)
    (newest,) = notices.sent(of, R, ["a"], 9.0).deliveries
    assert newest.knew is knows


def test_what_a_sink_gets() -> None:
    hot: Alert = alert(value=91.0, threshold=85.0, unit="celsius", returns=MOST_RETURNS)
    told = notices.body(Notice(sink="a", alert=hot, told=F, wall=WALL + 0.25), "host1")
    assert told["id"] == "hungry-1/firing/1700000000.250"
    assert (told["version"], told["node"], told["told"]) == (1, "host1", "firing")
    assert told["time"] == "2023-11-14T22:13:20.250+00:00"
    assert told["alert"]["severity"] == "warning"
    assert told["alert"]["value"] == 91.0
    assert told["alert"]["resolve_time"] is None
    assert told["alert"]["comes_and_goes"] is True
