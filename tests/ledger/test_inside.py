"""What is promised inside a standing share: its bytes are the share's, and never more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpud.enforcement.relations import overuses
from gpud.errors import DeviceUnavailable, ReservationNotFound, VramInsufficient, WrongState
from gpud.ledger.books import Cordon
from gpud.ledger.reservation import ReservationState, Sharing
from tests.fakes.cards import GIB, process, sample
from tests.ledger.desk import Desk
from tests.ledger.shares import VOICE, inside, stand, using


def test_what_lies_inside_takes_none_of_the_device() -> None:
    desk = Desk(sample(0))
    stand(desk, VOICE)
    inside(desk, "a", 5)
    assert desk.places("a") == ["gpu0"]
    assert desk.grantable() == 16
    assert desk.ledger.books.device("U-gpu0").granted_bytes == 8 * GIB
    desk.release("a", holder=True)
    assert desk.grantable() == 16


def test_all_that_lies_inside_is_no_more_than_it() -> None:
    desk = Desk(sample(0))
    stand(desk, VOICE)
    inside(desk, "a", 5)
    with pytest.raises(VramInsufficient) as refusal:
        inside(desk, "b", 4)
    assert not refusal.value.never_fits
    inside(desk, "b", 3)
    inside(desk, "c", 1, max_wait_seconds=None)
    assert desk.state("c") is ReservationState.QUEUED
    desk.release("a", holder=True)
    assert desk.state("c") is ReservationState.GRANTED


def test_more_than_the_whole_of_it_is_refused_at_once() -> None:
    desk = Desk(sample(0))
    stand(desk, VOICE)
    with pytest.raises(VramInsufficient) as refusal:
        inside(desk, "a", 9, max_wait_seconds=60.0)
    assert refusal.value.never_fits


def test_what_its_own_processes_use_is_not_promised_again() -> None:
    """The share's own program took 6 of its 8; an instance inside cannot have 5."""
    desk = Desk(sample(0))
    stand(desk, VOICE)
    desk.show(using(("voice", 6)))
    with pytest.raises(VramInsufficient):
        inside(desk, "a", 5)
    inside(desk, "b", 2)


def test_what_lies_inside_is_where_the_share_is() -> None:
    desk = Desk()
    stand(desk, VOICE)
    with pytest.raises(VramInsufficient):
        inside(desk, "a", 1, devices=("U-gpu1",), device_count=2)
    with pytest.raises(DeviceUnavailable, match="reservations/voice holds nothing on it"):
        inside(desk, "a", 1, devices=("U-gpu1",))
    inside(desk, "b", 1)
    assert desk.places("b") == ["gpu0"]


def test_a_share_that_is_alone_on_its_device_still_carries() -> None:
    desk = Desk(sample(0))
    stand(desk, replace(VOICE, sharing=Sharing.EXCLUSIVE))
    inside(desk, "a", 20)
    assert desk.grantable() == 0


def test_only_a_granted_share_carries() -> None:
    desk = Desk(sample(0))
    with pytest.raises(ReservationNotFound):
        inside(desk, "a", 1)
    desk.reserve("lease", 4)
    with pytest.raises(WrongState, match="only those of the configuration carry instances"):
        inside(desk, "a", 1, within="lease")
    desk.reserve("h", 20)
    stand(desk, VOICE)
    with pytest.raises(WrongState, match="wait for its grant"):
        inside(desk, "a", 1)


def test_a_cordon_holds_inside_as_well() -> None:
    desk = Desk(sample(0))
    stand(desk, VOICE)
    cordon = Cordon(reason="", actor="anna", wall=0.0)
    desk.keep(desk.ledger.cordon("U-gpu0", cordon, "anna", desk.clock.now()))
    with pytest.raises(DeviceUnavailable, match="cordoned"):
        inside(desk, "a", 1)


def test_use_inside_is_the_shares_use() -> None:
    desk = Desk(sample(0))
    stand(desk, VOICE)
    inside(desk, "a", 5)
    desk.show(using(("a", 4), ("voice", 2)))
    terms = desk.ledger.charges()["U-gpu0"]
    assert terms.observed_bytes == {"a": 4 * GIB, "voice": 2 * GIB}
    assert (terms.charged_bytes, terms.foreign_bytes) == (8 * GIB, 0)
    assert desk.grantable() == 16
    assert desk.held("a").bound
    assert desk.held("voice").bound


def test_over_use_inside_is_charged_only_beyond_the_share() -> None:
    desk = Desk(sample(0))
    stand(desk, VOICE)
    inside(desk, "a", 5)
    desk.show(using(("a", 7)))
    assert desk.grantable() == 16  # within the eight
    desk.show(using(("a", 10)))
    assert desk.ledger.charges()["U-gpu0"].charged_bytes == 10 * GIB
    assert desk.grantable() == 14
    (told,) = overuses(desk.cards[0], desk.ledger.books)
    assert (told.reservation, told.granted_bytes, told.observed_bytes) == ("a", 5 * GIB, 10 * GIB)


def test_it_ends_after_what_lies_inside() -> None:
    desk = Desk(sample(0))
    stand(desk, VOICE)
    inside(desk, "a", 5)
    stand(desk)
    assert desk.state("voice") is ReservationState.RELEASING
    assert desk.state("a") is ReservationState.GRANTED
    with pytest.raises(WrongState):
        inside(desk, "b", 1)
    desk.pass_seconds(60)
    assert desk.grantable() == 16
    desk.release("a", holder=True)
    desk.pass_seconds(1)
    assert desk.state("voice") is ReservationState.RELEASED
    assert desk.grantable() == 24


def test_a_change_waits_for_what_lies_inside() -> None:
    desk = Desk(sample(0))
    stand(desk, VOICE)
    inside(desk, "a", 5)
    larger = replace(VOICE, bytes=12 * GIB)
    stand(desk, larger)
    assert desk.held("voice").grants[0].bytes == 8 * GIB
    assert desk.granted() == {"voice", "a"}
    desk.release("a", holder=True)
    stand(desk, larger)
    assert desk.held("voice").grants[0].bytes == 12 * GIB


def test_a_leak_inside_stays_inside() -> None:
    desk = Desk(sample(0))
    stand(desk, VOICE)
    inside(desk, "a", 5)
    desk.show(using(("a", 5)))
    desk.release("a", holder=True)
    stuck = sample(0, used=5 * GIB, processes=())
    desk.clock.advance(1)
    desk.show(stuck)
    desk.pass_seconds(11)
    assert desk.told("device.leaked") == ["devices/U-gpu0"]
    assert desk.ledger.charges()["U-gpu0"].leaked_bytes == 0
    assert desk.grantable() == 16  # not charged to the device a second time
    with pytest.raises(VramInsufficient):
        inside(desk, "b", 4)
    inside(desk, "c", 3)
    desk.pass_seconds(60)
    assert desk.told("device.leaked") == ["devices/U-gpu0"]
    desk.clock.advance(1)
    desk.show(sample(0))
    assert desk.state("a") is ReservationState.RELEASED
    inside(desk, "b", 4)


def test_inside_survives_a_restart() -> None:
    desk = Desk(sample(0))
    stand(desk, VOICE)
    inside(desk, "a", 5)
    desk.restart()
    desk.show(sample(0))
    stand(desk, VOICE)
    assert desk.ledger.books.inside("voice", "U-gpu0") == {"a": 5 * GIB}
    assert desk.grantable() == 16
    with pytest.raises(VramInsufficient):
        inside(desk, "b", 4)


def test_bytes_that_come_back_late_inside_are_not_charged_twice() -> None:
    desk = Desk(sample(0))
    stand(desk, VOICE)
    inside(desk, "a", 5)
    desk.show(using(("a", 5)))
    desk.release("a", holder=True)
    desk.clock.advance(1)
    desk.show(sample(0, used=5 * GIB, processes=()))
    assert desk.state("a") is ReservationState.RELEASING
    assert desk.grantable() == 16
    # What is beyond the share is somebody else's all the same.
    desk.clock.advance(1)
    desk.show(sample(0, used=7 * GIB, processes=()))
    assert desk.grantable() == 14
    # Nor does it hide a stranger while its process still runs.
    desk.clock.advance(1)
    desk.show(sample(0, used=8 * GIB, processes=(process(1, 5 * GIB, "a"),)))
    assert desk.grantable() == 13
    desk.clock.advance(1)
    desk.show(sample(0))
    assert desk.state("a") is ReservationState.RELEASED
    assert desk.grantable() == 16


def test_a_share_that_ends_with_what_was_inside_counts_its_bytes_once() -> None:
    desk = Desk(sample(0))
    stand(desk, VOICE)
    inside(desk, "a", 5)
    desk.show(using(("a", 5)))
    stand(desk)
    desk.release("a", holder=True)
    desk.clock.advance(1)
    desk.show(sample(0, used=12 * GIB, processes=()))
    assert desk.grantable() == 24 - 8 - 4


def test_who_waits_inside_is_not_passed_by_those_who_come_later() -> None:
    """A hundred small loads passed a large one of a higher class, for ever."""
    desk = Desk()
    stand(desk, VOICE)
    asked: dict[str, Any] = {"within": "voice", "ttl_seconds": None}
    desk.reserve("a", 4, instance="a", **asked)
    desk.wait("large", 6, instance="large", **asked)
    desk.wait("small", 4, instance="small", **asked)
    assert "kept for reservations/large" in desk.why("small")
    desk.release("a", holder=True)
    assert desk.state("large") is ReservationState.GRANTED


def test_a_refusal_inside_names_what_is_left_there() -> None:
    desk = Desk()
    stand(desk, VOICE)
    asked: dict[str, Any] = {"within": "voice", "ttl_seconds": None}
    desk.reserve("a", 6, instance="a", **asked)
    with pytest.raises(VramInsufficient, match=r"2 GiB left of 8 GiB in reservations/voice"):
        desk.reserve("b", 4, instance="b", **asked)
