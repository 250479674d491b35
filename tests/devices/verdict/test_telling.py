"""Events of errors and of verdicts."""

from __future__ import annotations

from dataclasses import replace

from gpud.devices.crossings import crossings
from gpud.devices.snapshot import Action, DeviceKind, Health, Sample, Verdict
from gpud.events import Event
from tests.fakes import cards

FATAL = Verdict(
    action=Action.REBOOT,
    reason="Xid 79: it has fallen off the bus",
    is_fatal=True,
    signs=("xid 79 #1",),
)


def told(before: Sample, after: Sample) -> list[Event]:
    found = crossings(cards.snapshot(before), cards.snapshot(after, sequence=2), lambda _: {})
    return [each for each in found if each.type in ("device.xid", "device.ecc", "device.verdict")]


def test_each_new_error_is_told_with_its_meaning() -> None:
    card = cards.sample(0)
    before, after = replace(card, xids={31: 1}), replace(card, xids={31: 3, 45: 1})
    first, second = told(before, after)
    assert (first.type, first.subject) == ("device.xid", f"devices/{card.info.uuid}")
    assert first.reason.startswith("Xid 31, 2 times: an application used memory")
    assert (first.details["xid"], first.details["new"], first.details["count"]) == ("31", "2", "3")
    assert second.reason.startswith("Xid 45: it cleaned up after a process")
    assert told(after, replace(after)) == []


def test_memory_errors_that_grow_are_told_without_an_xid_and_a_verdict() -> None:
    def counts(errors: int | None) -> Sample:
        readings = cards.sample(0).readings
        return replace(
            cards.sample(0),
            readings=readings.changed(ecc_uncorrected_count=errors, remap_pending=False),
        )

    (one,) = told(counts(0), counts(1))
    assert (one.type, one.subject) == ("device.ecc", f"devices/{counts(0).info.uuid}")
    assert one.reason == "1 error of its memory could not be corrected"
    (more,) = told(counts(1), counts(4))
    assert more.reason.startswith("3 errors")
    assert (more.details["new"], more.details["count"]) == ("3", "4")
    # Counted from when its driver was loaded, or unknown: nothing has come.
    for before, after in ((4, 4), (4, 0), (None, 4), (4, None)):
        assert told(counts(before), counts(after)) == []


def test_a_verdict_is_told_as_it_changes_and_as_it_ends() -> None:
    card = cards.sample(0)
    bad = replace(card, verdict=FATAL)
    (event,) = told(card, bad)
    assert event.reason == "Xid 79: it has fallen off the bus; reboot the host"
    assert event.details["from"] == "NONE"
    assert (event.details["to"], event.details["fatal"]) == ("REBOOT", "true")
    assert told(bad, replace(bad, boottime=2.0)) == []
    (over,) = told(bad, card)
    assert over.reason == "it was: Xid 79: it has fallen off the bus"


def test_a_card_that_is_gone_is_told_as_that_alone() -> None:
    card = cards.sample(0)
    gone = replace(
        card, health=Health.LOST, verdict=Verdict(action=Action.REBOOT, reason="it is gone")
    )
    assert (told(card, gone), told(gone, card)) == ([], [])
    worse = replace(gone, verdict=FATAL)
    assert [event.details["fatal"] for event in told(gone, worse)] == ["true"]


def test_a_slice_says_nothing_of_what_its_card_met() -> None:
    card = cards.sample(0)
    piece = replace(card, info=replace(card.info, kind=DeviceKind.MIG))
    assert told(piece, replace(piece, verdict=FATAL, xids={79: 1})) == []
