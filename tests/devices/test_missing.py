"""What is kept of a device that vanished, until somebody says that it is not missed."""

from __future__ import annotations

from dataclasses import replace

from gpud.devices.driver import NO_LONGER_LISTED, Aliases
from gpud.devices.sampling.board import MAX_NUMBERS, TOMBSTONE_SECONDS
from gpud.devices.sampling.frames import Answer
from gpud.devices.snapshot import (
    DeviceKind,
    Health,
    Readings,
)
from gpud.devices.verdict.tally import Open
from gpud.devices.verdict.telling import verdict_events
from gpud.devices.verdict.verdict import CLEAN
from tests.devices.tables import CARD, OTHER, SLICE, Table, info


def test_a_vanished_device_stays_as_it_was_last(table: Table) -> None:
    table.read(CARD, used=40)
    before = table.shown()[CARD.uuid]
    table.list(OTHER)
    vanished_boottime = table.at.boottime
    table.wait(5)
    table.list(OTHER)
    assert table.shown()[CARD.uuid] == replace(
        before,
        health=Health.LOST,
        health_reason=NO_LONGER_LISTED,
        pressure=None,
        vanished_boottime=vanished_boottime,
    )
    assert table.shown()[OTHER.uuid].health is Health.HEALTHY


def test_nothing_but_its_driver_brings_a_vanished_device_back(table: Table) -> None:
    table.list(OTHER)
    gone = table.shown()[CARD.uuid]
    table.read(CARD)  # asked before, answered late
    table.board.mark_unresponsive(CARD.uuid, "no answer", table.at)
    table.list(OTHER, opening=("nvml",))
    table.board.stop_awaiting(table.at)
    assert table.shown()[CARD.uuid] == gone
    table.list(CARD, OTHER)
    assert table.shown()[CARD.uuid].health is Health.LOST
    assert table.shown()[CARD.uuid].vanished_boottime is None
    table.read(CARD)
    assert table.shown()[CARD.uuid].health is Health.HEALTHY


def test_the_tombstone_of_a_slice_is_dropped_after_its_time(sliced: Table) -> None:
    sliced.list(CARD)
    sliced.wait(TOMBSTONE_SECONDS - 1)
    sliced.forget()
    assert SLICE.uuid in sliced.shown()
    sliced.wait(1)
    sliced.forget()
    assert list(sliced.shown()) == [CARD.uuid]
    assert sliced.board.known == (CARD,)


def test_the_tombstone_of_a_slice_outlives_the_last_promise_on_it(sliced: Table) -> None:
    sliced.list(CARD)
    sliced.wait(10 * TOMBSTONE_SECONDS)
    sliced.forget(SLICE)
    sliced.wait(TOMBSTONE_SECONDS - 1)
    sliced.forget()
    assert SLICE.uuid in sliced.shown()
    sliced.wait(1)
    sliced.forget()
    assert SLICE.uuid not in sliced.shown()


def test_a_card_is_missed_until_somebody_says_that_it_is_not(sliced: Table) -> None:
    sliced.board.take_xids(CARD.uuid, (79,), sliced.at)
    sliced.list()
    for _ in range(3):
        sliced.wait(10 * TOMBSTONE_SECONDS)
        sliced.forget()
        # Of a card that is gone nobody knows what became of its slices.
        assert set(sliced.shown()) == {CARD.uuid, SLICE.uuid}
    assert sliced.shown()[CARD.uuid].verdict.is_fatal
    sliced.board.dismiss(CARD.uuid, sliced.at)
    assert not sliced.shown()[CARD.uuid].verdict.is_fatal
    sliced.forget(CARD)
    assert set(sliced.shown()) == {CARD.uuid}
    sliced.forget()
    assert sliced.shown() == {}


def test_a_card_that_is_dismissed_and_comes_back_is_missed_anew(table: Table) -> None:
    table.board.dismiss(CARD.uuid, table.at)  # it is there
    table.list(OTHER)
    table.forget()
    assert CARD.uuid in table.shown()
    table.board.dismiss(CARD.uuid, table.at)
    table.list(CARD, OTHER)
    table.list(OTHER)
    table.forget()
    assert CARD.uuid in table.shown()
    table.board.dismiss(CARD.uuid, table.at)
    table.board.take_xids(CARD.uuid, (79,), table.at)
    table.forget()
    assert table.shown()[CARD.uuid].verdict.is_fatal


def test_a_lost_card_that_is_dismissed_stays_so_until_it_answers(table: Table) -> None:
    for answers in (False, True):
        table.list(CARD, OTHER)
        table.board.take_answer(
            Answer(uuid=CARD.uuid, boottime=1.0, wall=1.0, readings=Readings(), lost_reason="lost")
        )
        table.board.dismiss(CARD.uuid, table.at)
        table.list(CARD, OTHER)  # its driver has yet to cease to list it
        if answers:
            table.read(CARD)
        table.list(OTHER)
        table.forget()
        assert (CARD.uuid in table.shown()) is answers


def test_a_card_that_was_forgotten_comes_back_without_its_old_errors(table: Table) -> None:
    card = replace(CARD, tells_xids=True)
    table.board.tally.restore(CARD.uuid, {48: Open(count=1, boottime=900.0, total=1)})
    table.board.take_xids(CARD.uuid, (79, 79), table.at)
    table.list(OTHER)
    table.board.dismiss(CARD.uuid, table.at)
    table.forget()
    table.list(card, OTHER)
    table.read(card)
    back = table.shown()[CARD.uuid]
    assert (back.xids, back.verdict) == ({}, CLEAN)
    assert list(verdict_events(None, back, 0.0)) == []
    table.board.take_xids(CARD.uuid, (79,), table.at)
    again = table.shown()[CARD.uuid]
    assert (again.xids, again.verdict.signs) == ({79: 1}, ("xid 79 #1",))


def test_errors_of_an_earlier_life_still_speak_against_a_card() -> None:
    table = Table()
    table.board.tally.restore(CARD.uuid, {79: Open(count=2, boottime=900.0, total=3)})
    table.list(replace(CARD, tells_xids=True))
    table.read(CARD)
    shown = table.shown()[CARD.uuid]
    assert (shown.verdict.signs, shown.xids) == (("xid 79 #3",), {79: 3})
    # What was told then is no news; what comes now is.
    assert [event.type for event in verdict_events(None, shown, 0.0)] == ["device.verdict"]
    table.board.take_xids(CARD.uuid, (79,), table.at)
    again = table.shown()[CARD.uuid]
    assert again.verdict.signs == ("xid 79 #4",)
    for last in (None, shown):
        told = [event for event in verdict_events(last, again, 0.0) if event.type == "device.xid"]
        assert [event.details["new"] for event in told] == ["1"]


def test_a_device_that_is_listed_is_never_dropped(table: Table) -> None:
    table.board.take_answer(
        Answer(uuid=CARD.uuid, boottime=1.0, wall=1.0, readings=Readings(), lost_reason="lost")
    )
    table.list(OTHER)
    table.list(CARD, OTHER)  # it came back in time
    table.wait(2 * TOMBSTONE_SECONDS)
    table.forget()
    assert set(table.shown()) == {CARD.uuid, OTHER.uuid}


# Numbers.


def test_the_number_of_a_forgotten_device_is_nobody_elses(table: Table) -> None:
    table.list(CARD)
    table.board.dismiss(OTHER.uuid, table.at)
    table.forget()
    assert table.board.known == (CARD,)
    aliases = Aliases(table.board.numbers)
    assert aliases.index("GPU-new") == 2
    assert aliases.index(OTHER.uuid) == 1


def test_slices_made_anew_for_ever_do_not_fill_the_memory(table: Table) -> None:
    count = 2 * MAX_NUMBERS
    table.list(CARD)
    table.board.dismiss(OTHER.uuid, table.at)
    for number in range(2, count):
        table.list(CARD, info(number, DeviceKind.MIG, CARD.uuid))
        table.wait(TOMBSTONE_SECONDS)
        table.forget()
    numbers = table.board.numbers
    assert len(numbers) == MAX_NUMBERS
    assert len(table.board.known) <= 2
    # What is there keeps its own, and no number is given twice.
    assert numbers[CARD.uuid] == 0
    assert Aliases(numbers).index("GPU-new") == count
