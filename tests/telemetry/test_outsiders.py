"""Growth that no promise explains, sample by sample."""

from __future__ import annotations

import pytest

from gpud.devices.snapshot import DeviceKind, ProcessUse, Sample
from gpud.events import Event
from gpud.ledger.books import DeviceBook
from gpud.ledger.charge import Reserves, charge
from gpud.telemetry.outsiders import PAUSE_SECONDS, SETTLED_SECONDS, STEP_BYTES, Outsiders
from gpud.units import GIB, MIB
from tests.fakes.cards import later, process, sample, snapshot

RESERVES = Reserves(device_bytes=GIB // 2, host_bytes=2 * GIB)
PROMISED = DeviceBook(granted_bytes=2 * GIB, holders={"A": 2 * GIB}, leaked_bytes=0)


class Course:
    """One device, second by second."""

    def __init__(self, kind: DeviceKind = DeviceKind.GPU) -> None:
        self.outsiders, self.kind, self.boottime = Outsiders(), kind, 1000.0

    def listed(self, *processes: ProcessUse) -> tuple[Event, ...]:
        used = sum(each.used_bytes or 0 for each in processes)
        return self.see(sample(used=used, processes=processes, kind=self.kind))

    def see(self, card: Sample) -> tuple[Event, ...]:
        self.boottime += 1
        terms = charge(card, PROMISED, RESERVES, 0)
        return self.outsiders.see(snapshot(card, boottime=self.boottime), {card.info.uuid: terms})

    def told_for(self, seconds: float, *processes: ProcessUse) -> list[Event]:
        return [event for _ in range(int(seconds)) for event in self.listed(*processes)]


def test_what_is_there_from_the_start_has_not_grown() -> None:
    course = Course()
    assert course.told_for(5, process(7, 9 * GIB)) == []


def test_growth_is_told_at_once_with_who_and_how_much() -> None:
    course = Course()
    course.listed(process(1, GIB, "A"), process(7, GIB))
    (event,) = course.listed(process(1, GIB, "A"), process(7, 3 * GIB), process(8, MIB))
    assert (event.type, event.subject) == ("device.foreign", "devices/U-gpu0")
    assert event.reason == (
        "memory that no promise has grew by 2 GiB to 3 GiB: p7 (7) with 3 GiB, p8 (8) with 1 MiB"
    )
    assert event.details["pids"] == "7,8"
    assert event.details["grown_bytes"] == str(2 * GIB + MIB)


def test_the_growth_of_a_promise_is_no_news() -> None:
    course = Course()
    course.listed(process(1, GIB, "A"))
    assert course.told_for(3, process(1, 9 * GIB, "A")) == []


def test_bytes_of_nobody_yet_count_at_the_second_sample() -> None:
    """A promise may have taken more than it has: the list that is asked for then says so."""
    course = Course()
    card = sample(used=GIB, processes=(process(1, GIB, "A"),))
    course.see(card)
    assert course.see(later(card, 1002.0, 4 * GIB)) == ()
    (event,) = course.see(later(card, 1003.0, 4 * GIB))
    assert event.details["bytes"] == str(2 * GIB)


def test_a_list_that_explains_it_all_takes_it_back() -> None:
    course = Course()
    card = sample(used=GIB, processes=(process(1, GIB, "A"),))
    course.see(card)
    assert course.see(later(card, 1002.0, 4 * GIB)) == ()
    assert course.told_for(3, process(1, 4 * GIB, "A")) == []


def test_small_growth_adds_up_and_one_that_goes_on_is_told_seldomer() -> None:
    course = Course()
    course.listed(process(7, GIB))
    step = STEP_BYTES // 4
    seconds = range(1, 80)
    told = [n for n in seconds if course.listed(process(7, GIB + n * step))]
    pause = int(PAUSE_SECONDS)
    assert told == [4, 4 + pause, 4 + 3 * pause, 4 + 7 * pause]


def test_a_large_part_of_a_device_is_told_at_once_whatever_was_told_before() -> None:
    course = Course()
    course.listed(process(7, GIB))
    assert [len(course.listed(process(7, n * GIB))) for n in (3, 5, 7)] == [1] * 3
    assert course.listed(process(7, 7 * GIB + 2 * STEP_BYTES)) == ()


@pytest.mark.parametrize("is_listed", [True, False])
def test_a_leap_is_told_within_two_samples_whatever_went_on_before(is_listed: bool) -> None:
    """It may be of another. What goes on as fast from then is no leap."""
    course = Course()
    course.listed(process(7, GIB))
    begun = 0
    for n in range(400):
        begun = n * MIB * 10
        course.listed(process(7, GIB + begun))
    assert course.listed(process(7, GIB + begun)) == ()
    listed = process(7, GIB + begun)
    told = []
    for n in (2, 4, 6, 8):
        others = (process(8, n * STEP_BYTES),) if is_listed else ()
        card = sample(used=GIB + begun + n * STEP_BYTES, processes=(listed, *others))
        told.append(len(course.see(card)))
    assert told == ([1, 0, 0, 0] if is_listed else [0, 1, 0, 0])


def test_growth_after_a_rest_is_told_at_once_again() -> None:
    course = Course()
    for n in range(20):
        course.listed(process(7, GIB + n * STEP_BYTES))
    before = 2 * GIB
    course.told_for(200, process(7, before))
    assert len(course.listed(process(7, before + 2 * STEP_BYTES))) == 1
    assert course.told_for(PAUSE_SECONDS - 1, process(7, before + 4 * STEP_BYTES)) == []
    assert len(course.listed(process(7, before + 4 * STEP_BYTES))) == 1


def test_what_was_freed_for_a_moment_is_no_news_when_it_comes_again() -> None:
    course = Course()
    course.listed(process(7, 4 * GIB))
    assert course.told_for(SETTLED_SECONDS / 2, process(7, GIB)) == []
    assert course.told_for(2, process(7, 4 * GIB)) == []
    assert course.told_for(SETTLED_SECONDS + 2, process(7, GIB)) == []
    assert len(course.told_for(2, process(7, 4 * GIB))) == 1


def test_of_the_host_only_what_could_matter_to_a_load_is_told() -> None:
    course = Course(DeviceKind.HOST)
    course.listed(process(7, GIB))
    assert course.told_for(3, process(7, 2 * GIB)) == []
    assert len(course.listed(process(7, 3 * GIB))) == 1


def test_a_device_that_does_not_tell_is_left_alone() -> None:
    course = Course()
    course.listed(process(7, GIB))
    assert course.see(sample(used=None, processes=None)) == ()
