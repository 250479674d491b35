"""What is kept of each device: its bands, and the tombstones of those that vanished."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.devices.bands import Bands, Law
from gpud.devices.driver import NO_LONGER_LISTED, Aliases
from gpud.devices.sampling.board import LISTS_AWAITED, MAX_NUMBERS, TOMBSTONE_SECONDS, Board
from gpud.devices.sampling.frames import Answer, Inventory
from gpud.devices.snapshot import (
    Action,
    DeviceInfo,
    DeviceKind,
    Health,
    HostReadings,
    Pressure,
    ProcessUse,
    Readings,
    Sample,
    Thermal,
)
from gpud.devices.verdict.tally import Open
from gpud.devices.verdict.telling import verdict_events
from gpud.devices.verdict.verdict import CLEAN, SILENT_SECONDS
from tests.fakes.cards import process
from tests.fakes.driver import GIB

HOLD_SECONDS = 10.0
BANDS = Bands(
    pressure=Law(edges=(50.0, 70.0, 85.0), hysteresis=5.0, hold_seconds=HOLD_SECONDS),
    thermal=Law(edges=(65.0, 80.0, 85.0), hysteresis=5.0, hold_seconds=HOLD_SECONDS),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class At:
    boottime: float
    wall: float = 0.0


def info(number: int, kind: DeviceKind = DeviceKind.GPU, parent: str | None = None) -> DeviceInfo:
    return DeviceInfo(
        uuid=f"{kind.name}-{number}",
        alias=f"gpu{number}",
        index=number,
        kind=kind,
        model_name="fake",
        memory_total_bytes=100 * GIB,
        parent_uuid=parent,
    )


CARD, OTHER = info(0), info(1)
SLICE = info(2, DeviceKind.MIG, CARD.uuid)


class Table:
    """A board, and the moment that moves as the test says."""

    def __init__(self) -> None:
        self.board = Board(BANDS)
        self.at = At(boottime=1000.0)

    def wait(self, seconds: float) -> None:
        self.at = At(boottime=self.at.boottime + seconds)

    def list(self, *infos: DeviceInfo, **more: object) -> None:
        self.board.take_inventory(Inventory(devices=infos, **more), self.at)  # type: ignore[arg-type]

    def read(self, of: DeviceInfo, *, used: int | None = 10, celsius: float | None = None) -> None:
        readings = Readings(
            memory_used_bytes=None if used is None else used * GIB, temperature_celsius=celsius
        )
        self.board.take_answer(
            Answer(uuid=of.uuid, boottime=self.at.boottime, wall=0.0, readings=readings)
        )

    def shown(self) -> dict[str, Sample]:
        snapshot = self.board.snapshot(self.at, HostReadings())
        return {sample.info.uuid: sample for sample in snapshot.samples}

    def bands(self, of: DeviceInfo) -> tuple[Pressure | None, Thermal | None]:
        sample = self.shown()[of.uuid]
        return sample.pressure, sample.thermal

    def forget(self, *promised: DeviceInfo) -> None:
        kept = {each.uuid for each in promised}
        self.board.forget(lambda uuid: uuid in kept, self.at)


@pytest.fixture
def table() -> Table:
    table = Table()
    table.list(CARD, OTHER)
    table.read(CARD)
    table.read(OTHER)
    return table


@pytest.fixture
def sliced() -> Table:
    table = Table()
    table.list(CARD, SLICE)
    table.read(CARD)
    table.read(SLICE)
    return table


# Bands.


def test_a_sample_tells_its_bands(table: Table) -> None:
    assert table.bands(CARD) == (Pressure.LOW, None)
    table.read(CARD, used=86, celsius=70)
    assert table.bands(CARD) == (Pressure.CRITICAL, Thermal.WARNING)
    assert table.bands(OTHER) == (Pressure.LOW, None)
    table.wait(1)
    table.read(CARD, used=10, celsius=70)
    assert table.bands(CARD) == (Pressure.CRITICAL, Thermal.WARNING)
    table.wait(HOLD_SECONDS)
    table.read(CARD, used=10, celsius=70)
    assert table.bands(CARD) == (Pressure.LOW, Thermal.WARNING)


def test_it_counts_how_often_a_card_came_under_critical_pressure(table: Table) -> None:
    for used in (90, 99, 10):  # it comes, stays, and is on its way out
        table.read(CARD, used=used)
        table.wait(1)
    assert table.shown()[CARD.uuid].pressure_events == 1
    table.wait(HOLD_SECONDS)
    table.read(CARD, used=10)
    table.wait(1)
    table.read(CARD, used=10, celsius=40)  # only readings differ
    table.read(CARD, used=95, celsius=40)
    table.board.mark_unresponsive(CARD.uuid, "no answer", table.at)
    shown = table.shown()
    assert (shown[CARD.uuid].pressure_events, shown[OTHER.uuid].pressure_events) == (2, 0)


def test_a_hot_card_that_falls_silent_stays_hot_and_nothing_else_does(table: Table) -> None:
    table.read(CARD, used=75, celsius=90)
    table.board.mark_unresponsive(CARD.uuid, "no answer", table.at)
    assert table.bands(CARD) == (None, Thermal.CRITICAL)
    # Its silence is no proof that it cooled down: the wait begins with the first answer.
    table.wait(99)
    table.read(CARD, celsius=40)
    assert table.bands(CARD) == (Pressure.HIGH, Thermal.CRITICAL)
    table.wait(HOLD_SECONDS)
    table.read(CARD, celsius=40)
    assert table.bands(CARD) == (Pressure.LOW, Thermal.NORMAL)


def test_a_slice_is_as_hot_as_its_card(table: Table) -> None:
    slice_ = info(2, DeviceKind.MIG, CARD.uuid)
    table.list(CARD, OTHER, slice_)
    table.read(slice_)
    table.read(CARD, celsius=90)
    assert table.bands(slice_) == (Pressure.LOW, Thermal.CRITICAL)


# Tombstones.


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


def test_silence_is_judged_once_it_is_long_and_until_the_first_answer(table: Table) -> None:
    table.board.mark_unresponsive(CARD.uuid, "no answer", table.at)
    table.wait(SILENT_SECONDS - 1)
    assert table.shown()[CARD.uuid].verdict == CLEAN
    table.wait(1)
    silent = table.shown()[CARD.uuid].verdict
    assert (silent.action, silent.is_fatal) == (Action.INSPECT, False)
    assert silent.reason == "its driver has not answered for over 60 s"
    # What is told again and again would be an event each time.
    table.wait(30)
    table.board.mark_unresponsive(CARD.uuid, "no answer", table.at)
    assert table.shown()[CARD.uuid].verdict == silent
    assert table.shown()[OTHER.uuid].verdict == CLEAN
    table.read(CARD)
    assert table.shown()[CARD.uuid].verdict == CLEAN


def test_a_driver_that_does_not_finish_opening_is_told_until_it_does(table: Table) -> None:
    table.list(CARD, OTHER, opening=("nvml",))
    assert table.board.snapshot(table.at, HostReadings()).troubles == ()
    table.board.stop_awaiting(table.at, is_wanted=True)
    (trouble,) = table.board.snapshot(table.at, HostReadings()).troubles
    assert trouble.words == "cannot use the nvml driver: it does not finish opening"
    assert trouble.is_wanted
    table.list(CARD, OTHER)
    assert table.board.snapshot(table.at, HostReadings()).troubles == ()


def test_a_card_that_keeps_its_driver_from_opening_is_no_trouble_of_the_driver(
    table: Table,
) -> None:
    table.list(CARD, OTHER, opening=("nvml",), opening_asks="GPU-new")
    table.board.stop_awaiting(table.at, is_wanted=True)
    shown = table.board.snapshot(table.at, HostReadings())
    assert (shown.troubles, shown.complete) == ((), True)
    assert {each.health for each in shown.samples} == {Health.UNRESPONSIVE}


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


# Process lists.

USES = (process(7, GIB),)


def ask(
    table: Table, *, refused: bool = False, uses: tuple[ProcessUse, ...] | None = None
) -> None:
    table.board.take_answer(
        Answer(
            uuid=CARD.uuid,
            boottime=table.at.boottime,
            wall=0.0,
            readings=Readings(memory_used_bytes=2 * GIB),
            listed=True,
            refused=refused,
            processes=uses,
        )
    )


def told(table: Table) -> tuple[tuple[ProcessUse, ...] | None, float | None, bool]:
    sample = table.shown()[CARD.uuid]
    return sample.processes, sample.listed_boottime, sample.never_lists


def test_a_list_that_is_refused_once_leaves_the_last_one_and_its_time(table: Table) -> None:
    table.list(CARD)
    ask(table, uses=USES)
    first = table.at.boottime
    for _ in range(2 * LISTS_AWAITED):
        table.wait(1)
        ask(table, refused=True)
        assert told(table) == (USES, first, False)
    table.wait(1)
    ask(table, uses=())
    assert told(table) == ((), table.at.boottime, False)


def test_a_driver_that_says_so_never_lists_until_it_does(table: Table) -> None:
    table.list(CARD)
    ask(table, uses=USES)
    ask(table)
    assert told(table) == (None, None, True)
    table.read(CARD)
    ask(table, refused=True)
    assert told(table) == (None, None, True)
    ask(table, uses=USES)
    assert told(table) == (USES, table.at.boottime, False)


def test_a_card_that_was_never_seen_to_list_does_not_in_the_end(table: Table) -> None:
    table.list(CARD)
    for _ in range(LISTS_AWAITED):
        assert CARD.uuid not in table.shown() or told(table) == (None, None, False)
        ask(table, refused=True)
        table.read(CARD)
    assert told(table) == (None, None, True)


# Samples that rest.

STEPS = (
    *("same", "same", "same", "hotter", "colder", "listed"),
    *("silent", "xid", "settle", "bands", "info"),
)
TIGHT = Bands(pressure=Law(edges=(5.0, 6.0, 7.0), hysteresis=1.0, hold_seconds=HOLD_SECONDS))


@given(st.lists(st.sampled_from(STEPS), max_size=40))
def test_the_very_same_readings_come_to_what_equal_ones_do(steps: list[str]) -> None:
    """A board that is handed the same object is quicker, and shows nothing else."""
    one, other = Table(), Table()
    for table in (one, other):
        table.list(CARD)
    celsius, kept = 50.0, reading(50.0)
    for step in steps:
        celsius += {"hotter": 20.0, "colder": -20.0}.get(step, 0.0)
        if kept.temperature_celsius != celsius:
            kept = reading(celsius)
        for table in (one, other):
            table.wait(4)
            do(table, step, kept if table is one else reading(celsius))
        assert one.shown() == other.shown()


def reading(celsius: float) -> Readings:
    return Readings(memory_used_bytes=10 * GIB, temperature_celsius=celsius)


def do(table: Table, step: str, readings: Readings) -> None:
    match step:
        case "silent":
            table.board.mark_unresponsive(CARD.uuid, "no answer", table.at)
        case "xid":
            table.board.take_xids(CARD.uuid, (79,), table.at)
        case "settle":
            table.board.settle(CARD.uuid, table.at)
        case "bands":
            table.board.bands = TIGHT
        case "info":
            table.list(replace(CARD, model_name=f"{CARD.model_name} at {table.at.boottime}"))
        case _:
            table.board.take_answer(
                Answer(
                    uuid=CARD.uuid,
                    boottime=table.at.boottime,
                    wall=0.0,
                    readings=readings,
                    listed=step == "listed",
                    processes=() if step == "listed" else None,
                )
            )


def test_a_device_that_is_listed_again_as_it_was_keeps_its_facts(table: Table) -> None:
    before = table.shown()[CARD.uuid].info
    table.list(replace(CARD), replace(OTHER, model_name="another"))
    table.read(CARD)
    table.read(OTHER)
    shown = table.shown()
    assert shown[CARD.uuid].info is before
    assert shown[OTHER.uuid].info.model_name == "another"
