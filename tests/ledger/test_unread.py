"""A list that was not told says nothing of who is there: nothing comes back by it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpud.devices.snapshot import Health, Sample
from gpud.errors import VramInsufficient
from gpud.ledger.charge import Reserves
from gpud.ledger.reservation import ReservationState
from tests.fakes.cards import GIB, later, process, sample, snapshot
from tests.ledger.desk import Desk, settled

MINE = (process(5, 8 * GIB, "a"),)


def ended() -> Desk:
    """Of two promises of eight one has ended, and its process goes on."""
    desk = Desk(sample(0))
    desk.reserve("a", 8, ttl_seconds=600.0)
    desk.reserve("b", 8, ttl_seconds=600.0)
    desk.show(sample(0, used=8 * GIB, processes=MINE))
    desk.release("a")
    desk.clock.advance(1)
    return desk


def show_unread(desk: Desk, card: Sample) -> None:
    """A tick in which the card told all but its processes: the last list stays, and its time."""
    now = desk.clock.now()
    shown = snapshot(later(card, now.boottime, 8 * GIB), boottime=now.boottime)
    desk.keep(desk.ledger.observe(shown, now))
    desk.serve()


def test_a_list_that_is_not_told_frees_nothing() -> None:
    """One refused list counted as "it never lists": what still ran was sold again."""
    desk = ended()
    for card in (desk.cards[0], sample(0, used=8 * GIB, processes=None)):
        show_unread(desk, card)
        assert desk.state("a") is ReservationState.RELEASING
        with pytest.raises(VramInsufficient):
            desk.reserve("c", 16, ttl_seconds=600.0)
    desk.show(sample(0))
    assert desk.state("a") is ReservationState.RELEASED


def test_a_list_from_before_the_end_holds_no_promise_for_ever() -> None:
    """Its bytes are leaked then, and settled by the next list: never anybody else's between."""
    desk = ended()
    listed = desk.cards[0]
    for _ in range(12):
        desk.clock.advance(1)
        show_unread(desk, listed)
    assert desk.state("a") is ReservationState.RELEASED
    assert desk.ledger.charges()["U-gpu0"].leaked_bytes == 8 * GIB
    assert desk.grantable() == 0
    desk.show(sample(0, used=8 * GIB, processes=MINE))
    assert (desk.grantable(), desk.told("device.leak_settled")) == (8, ["devices/U-gpu0"])


def test_a_process_of_it_that_a_list_shows_is_waited_for() -> None:
    desk = ended()
    for _ in range(12):
        desk.clock.advance(1)
        desk.show(sample(0, used=8 * GIB, processes=MINE))
    assert desk.state("a") is ReservationState.RELEASING


def test_a_card_that_turns_to_never_listing_gives_back_by_its_memory() -> None:
    desk = ended()
    card = sample(0, used=8 * GIB, processes=None, never_lists=True)
    desk.show(replace(card, listed_boottime=None))
    assert desk.state("a") is ReservationState.RELEASED
    # What is still used fills the promise that is left: more is nobody's.
    assert desk.grantable() == 16


def test_what_leaked_is_not_settled_by_a_list_from_before() -> None:
    """A card that hangs is shown with its last list again: that freed what had just leaked."""
    desk = ended()
    before = replace(sample(0), boottime=desk.clock.boottime, listed_boottime=desk.clock.boottime)
    for _ in range(12):
        desk.clock.advance(1)
        hung = replace(before, health=Health.UNRESPONSIVE)
        desk.keep(desk.ledger.observe(snapshot(hung), desk.clock.now()))
    assert desk.ledger.charges()["U-gpu0"].leaked_bytes == 8 * GIB
    assert desk.told("device.leak_settled") == []
    desk.show(sample(0))
    assert desk.told("device.leak_settled") == ["devices/U-gpu0"]


def test_what_lagged_before_the_release_is_leaked_not_freed() -> None:
    """The process ends, a list is read without it, then its owner releases: nothing came back."""
    desk = Desk(sample(0))
    desk.reserve("a", 8)
    desk.show(sample(0, used=8 * GIB, processes=MINE))
    desk.clock.advance(1)
    desk.show(sample(0, used=8 * GIB))
    desk.release("a")
    desk.pass_seconds(1)
    assert desk.state("a") is ReservationState.RELEASING
    desk.pass_seconds(11)
    assert desk.ledger.charges()["U-gpu0"].leaked_bytes == 8 * GIB
    desk.clock.advance(1)
    desk.show(sample(0))
    assert desk.grantable() == 24


def test_what_lagged_and_came_back_is_free_at_once() -> None:
    desk = Desk(sample(0))
    desk.reserve("a", 8)
    desk.show(sample(0, used=8 * GIB, processes=MINE))
    desk.clock.advance(1)
    desk.show(sample(0, used=8 * GIB))
    desk.clock.advance(1)
    desk.show(sample(0))
    desk.release("a")
    desk.pass_seconds(1)
    assert desk.state("a") is ReservationState.RELEASED


def test_what_lags_is_not_learned_as_the_drivers_own() -> None:
    reserves = Reserves(device_bytes=GIB, host_bytes=0)
    desk = Desk(sample(0), settings=replace(settled(), reserves=reserves))
    desk.reserve("a", 0.5)
    desk.show(sample(0, used=GIB // 2, processes=(process(5, GIB // 2, "a"),)))
    desk.clock.advance(1)
    desk.show(sample(0, used=GIB // 2))
    desk.release("a")
    desk.pass_seconds(12)
    terms = desk.ledger.charges()["U-gpu0"]
    assert terms.leaked_bytes + (terms.unattributed_bytes or 0) == GIB // 2
