"""What errors, memory and the driver's own word come to."""

from __future__ import annotations

import pytest

from gpud.devices.snapshot import Action, Health, Readings, Verdict
from gpud.devices.verdict.tally import Open, Tally
from gpud.devices.verdict.verdict import (
    APP_SECONDS,
    CLEAN,
    RECOVERY_ACTIONS,
    SILENT_SECONDS,
    judge,
)
from gpud.devices.verdict.xids import XIDS, meaning

NOW = 5000.0


def of_xid(number: int, readings: Readings | None = None, *, ago: float = 1.0) -> Verdict:
    xids = {number: Open(count=1, boottime=NOW - ago, total=1)}
    return judge(Health.HEALTHY, readings or Readings(), xids, NOW)


def of(**readings: object) -> Verdict:
    return judge(Health.HEALTHY, Readings(**readings), {}, NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("numbers", "action", "is_fatal"),
    [
        ((79,), Action.REBOOT, True),
        (
            (46, 48, 62, 64, 74, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158),
            Action.RESET,
            True,
        ),
        ((13, 31, 32, 39, 40, 41, 69, 70, 71, 72, 94), Action.RESTART_APP, False),
        ((43, 44, 63, 92, 137), Action.NONE, False),
        # Left by every SIGKILL, ours too.
        ((45,), Action.NONE, False),
        # What the driver says itself, read from it.
        ((154,), Action.NONE, False),
        ((9999,), Action.NONE, False),
    ],
)
def test_the_table_of_xids(numbers: tuple[int, ...], action: Action, is_fatal: bool) -> None:
    for number in numbers:
        verdict = of_xid(number)
        assert (verdict.action, verdict.is_fatal) == (action, is_fatal), number
        assert bool(verdict.signs) == is_fatal
        if action is not Action.NONE:
            assert verdict.reason == f"Xid {number}: {meaning(number)}"


def test_the_table_is_whole() -> None:
    assert len(XIDS) == 35
    assert all(each.is_fatal == (each.action >= Action.RESET) for each in XIDS.values())


def test_an_application_that_failed_is_forgotten_a_card_that_failed_is_not() -> None:
    assert of_xid(31, ago=APP_SECONDS - 1).action is Action.RESTART_APP
    assert of_xid(31, ago=APP_SECONDS) == CLEAN
    assert of_xid(95, ago=10 * APP_SECONDS).action is Action.RESET


def test_the_driver_knows_better_than_the_table_whether_a_reset_is_needed() -> None:
    contained = of_xid(95, Readings(recovery_action="none"))
    assert (contained.action, contained.is_fatal) == (Action.RESTART_APP, False)
    # Nothing brings a card back that has left the bus; a lost one's last word is an old one.
    assert of_xid(79, Readings(recovery_action="none")).action is Action.REBOOT
    xids = {95: Open(count=1, boottime=NOW, total=1)}
    lost = judge(Health.LOST, Readings(recovery_action="none"), xids, NOW)
    assert lost.is_fatal


@pytest.mark.parametrize(
    ("word", "action", "is_fatal"),
    [
        ("none", Action.NONE, False),
        ("reset", Action.RESET, True),
        ("bus_reset", Action.RESET, True),
        ("drain_and_reset", Action.RESET, True),
        ("drain_p2p", Action.RESTART_APP, False),
        ("recover_imex_domain", Action.RESTART_APP, False),
        ("reboot", Action.REBOOT, True),
        ("system_reboot", Action.REBOOT, True),
    ],
)
def test_the_drivers_own_word(word: str, action: Action, is_fatal: bool) -> None:
    assert word in RECOVERY_ACTIONS
    verdict = of(recovery_action=word)
    assert (verdict.action, verdict.is_fatal) == (action, is_fatal)


def test_rows_and_pages_of_its_memory() -> None:
    assert of(remap_pending=False, remap_failed=False, retired_page_count=59) == CLEAN
    pending, failed = of(remap_pending=True), of(remap_failed=True)
    assert (pending.action, pending.is_fatal) == (Action.RESET, False)
    assert (failed.action, failed.signs) == (Action.INSPECT, ("remap failed",))
    worn = of(retired_page_count=60)
    assert (worn.action, worn.is_fatal) == (Action.INSPECT, False)


def test_errors_count_where_nothing_better_is_told() -> None:
    old = of(ecc_uncorrected_count=2)
    assert old.action is Action.RESET
    assert "2 errors" in old.reason
    assert of(ecc_corrected_count=1000) == CLEAN
    assert of(ecc_uncorrected_count=2, remap_pending=False) == CLEAN
    assert of(ecc_uncorrected_count=2, recovery_action="none") == CLEAN


def test_the_worst_is_told_and_every_fatal_sign_kept() -> None:
    xids = {31: Open(count=4, boottime=NOW, total=4), 79: Open(count=1, boottime=NOW, total=1)}
    verdict = judge(Health.HEALTHY, Readings(remap_failed=True, remap_pending=True), xids, NOW)
    assert (verdict.action, verdict.signs) == (Action.INSPECT, ("remap failed", "xid 79 #1"))
    apps = judge(Health.HEALTHY, Readings(), {31: xids[31]}, NOW)
    assert apps.reason.endswith("(4 times)")


def test_a_device_that_is_gone_is_judged_by_that() -> None:
    last = Readings(remap_failed=True)
    assert judge(Health.LOST, last, {}, NOW).action is Action.REBOOT
    assert not judge(Health.LOST, last, {}, NOW).is_fatal  # it may come back
    # One that is only silent is what it was.
    assert judge(Health.UNRESPONSIVE, last, {}, NOW) == judge(Health.HEALTHY, last, {}, NOW)
    assert judge(Health.UNRESPONSIVE, Readings(), {}, NOW) == CLEAN
    silent = judge(Health.UNRESPONSIVE, Readings(), {}, NOW, SILENT_SECONDS)
    assert (silent.action, silent.is_fatal) == (Action.INSPECT, False)
    # It says nothing of one that answers; what is fatal stays the reason.
    assert judge(Health.HEALTHY, Readings(), {}, NOW, SILENT_SECONDS) == CLEAN
    hung = judge(Health.UNRESPONSIVE, last, {}, NOW, SILENT_SECONDS)
    assert (hung.is_fatal, hung.signs) == (True, ("remap failed",))
    # One that waits for a reset does not come back by itself.
    waits = judge(Health.LOST, Readings(recovery_action="reset"), {}, NOW)
    assert (waits.action, waits.is_fatal) == (Action.RESET, True)
    # Its driver lists it no more: somebody took it out.
    assert judge(None, last, {}, NOW) == CLEAN


def test_the_tally_counts_on_and_forgets_what_is_settled() -> None:
    tally = Tally()
    assert (tally.counts("a"), tally.still_open("a")) == ({}, {})
    tally.take("a", (31, 31, 79), 1.0)
    tally.take("b", (13,), 2.0)
    shown = tally.counts("a")
    tally.settle("a")
    tally.take("a", (79,), 3.0)
    assert shown == {31: 2, 79: 1}  # a snapshot keeps what it was given
    assert tally.counts("a") == {31: 2, 79: 2}
    assert tally.still_open("a") == {79: Open(count=1, boottime=3.0, total=2)}
    assert tally.all_counts() == {"a": {31: 2, 79: 2}, "b": {13: 1}}


def test_an_error_after_it_was_dealt_with_is_another_sign() -> None:
    """So that it is acted on, however soon it comes again."""
    tally, seen = Tally(), set[str]()
    for _ in range(3):
        tally.take("a", (79,), NOW)
        (sign,) = judge(Health.LOST, Readings(), tally.still_open("a"), NOW).signs
        assert sign not in seen
        seen.add(sign)
        tally.settle("a")
