"""What is kept of each device: its bands, what is said of it, its process list."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gpud.devices.bands import Bands, Law
from gpud.devices.sampling.board import LISTS_AWAITED
from gpud.devices.sampling.frames import Answer
from gpud.devices.snapshot import (
    Action,
    DeviceKind,
    Health,
    HostReadings,
    Pressure,
    ProcessUse,
    Readings,
    Thermal,
)
from gpud.devices.verdict.verdict import CLEAN, SILENT_SECONDS
from tests.devices.tables import CARD, HOLD_SECONDS, OTHER, Table, info
from tests.fakes.cards import process
from tests.fakes.driver import GIB

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


# What is said of one that does not answer.


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
