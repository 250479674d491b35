"""The fixed shares of the configuration: held from the start, changed and ended with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpud.devices.snapshot import Health
from gpud.errors import DeviceUnavailable, VramInsufficient, WrongState
from gpud.ledger.reservation import Priority, ReservationKind, ReservationState, Sharing
from tests.fakes.cards import GIB, sample
from tests.ledger.desk import HOST, Desk, settled
from tests.ledger.shares import VOICE, stand, using

# Held.


def test_it_is_held_like_any_other_and_has_no_end() -> None:
    desk = Desk()
    stand(desk, VOICE)
    held = desk.held("voice")
    assert (held.state, held.kind) == (ReservationState.GRANTED, ReservationKind.HELD)
    assert (held.owner, desk.places("voice")) == ("voice@home", ["gpu0"])
    assert desk.grantable("gpu0") == 16
    desk.pass_seconds(10**7)
    assert desk.state("voice") is ReservationState.GRANTED
    assert desk.told("reservation.granted") == ["reservations/voice"]


def test_on_every_device_named_with_ram_and_labels() -> None:
    desk = Desk(sample(0), sample(1), HOST)
    both = replace(
        VOICE, devices=("gpu0", "U-gpu1"), host_bytes=4 * GIB, labels={"room": "kitchen"}
    )
    stand(desk, both)
    assert [(g.device, g.bytes // GIB, g.beside) for g in desk.held("voice").grants] == [
        ("U-gpu0", 8, False),
        ("U-gpu1", 8, False),
        ("U-host", 4, True),
    ]
    assert desk.held("voice").request.labels == {"room": "kitchen"}


def test_alone_where_it_says_so() -> None:
    desk = Desk(sample(0))
    stand(desk, replace(VOICE, sharing=Sharing.EXCLUSIVE))
    assert desk.held("voice").grants[0].bytes == 24 * GIB
    with pytest.raises(DeviceUnavailable, match="reservations/voice has it exclusively"):
        desk.reserve("a", 1)


def test_it_comes_before_all_that_wait() -> None:
    desk = Desk(sample(0))
    desk.reserve("h", 24)
    desk.wait("a", 20, priority=Priority.CRITICAL)
    stand(desk, VOICE)
    assert desk.state("voice") is ReservationState.QUEUED
    desk.release("h")
    assert desk.granted() == {"voice"}


def test_again_and_again_is_once() -> None:
    desk = Desk(sample(0))
    stand(desk, VOICE)
    before, told = desk.held("voice"), len(desk.events)
    for _ in range(3):
        desk.pass_seconds(1)
        stand(desk, VOICE)
    assert (desk.held("voice"), len(desk.events)) == (before, told)


def test_it_is_the_same_after_a_restart_and_after_a_reboot() -> None:
    desk = Desk(sample(0))
    stand(desk, VOICE)
    before = desk.held("voice")
    desk.restart()
    desk.show(sample(0))
    stand(desk, VOICE)
    assert desk.held("voice") == before
    desk.clock.reboot()
    desk.restart()
    desk.show(sample(0))
    stand(desk, VOICE)
    assert desk.held("voice").generation == before.generation
    assert desk.grantable() == 16


def test_its_size_changes_with_the_configuration() -> None:
    desk = Desk(sample(0))
    stand(desk, VOICE)
    first = desk.held("voice").generation
    stand(desk, replace(VOICE, bytes=20 * GIB))
    assert desk.grantable() == 4
    assert desk.held("voice").generation > first  # whoever knew the former one is fenced
    desk.reserve("h", 4)
    stand(desk, replace(VOICE, bytes=24 * GIB))
    # What it had is free for others only after itself, who has to wait for the rest.
    assert desk.state("voice") is ReservationState.QUEUED
    with pytest.raises(VramInsufficient, match="kept for reservations/voice"):
        desk.reserve("a", 4, ttl_seconds=3600.0)
    desk.release("h")
    assert desk.state("voice") is ReservationState.GRANTED
    assert desk.grantable() == 0


def test_while_its_process_lives_a_change_waits_for_its_bytes() -> None:
    desk = Desk(sample(0))
    stand(desk, VOICE)
    desk.show(using(("voice", 6)))
    larger = replace(VOICE, bytes=12 * GIB)
    stand(desk, larger)
    assert desk.state("voice") is ReservationState.RELEASING
    assert desk.held("voice").grants[0].bytes == 8 * GIB
    desk.pass_seconds(5)
    stand(desk, larger)
    assert desk.state("voice") is ReservationState.RELEASING
    desk.clock.advance(1)
    desk.show(sample(0))
    stand(desk, larger)
    assert desk.state("voice") is ReservationState.GRANTED
    assert desk.held("voice").grants[0].bytes == 12 * GIB


def test_out_of_the_configuration_it_ends() -> None:
    desk = Desk(sample(0))
    stand(desk, VOICE)
    first = desk.held("voice").generation
    stand(desk)
    assert desk.state("voice") is ReservationState.RELEASED
    assert desk.held("voice").reason == "no longer in the configuration"
    assert desk.grantable() == 24
    stand(desk)
    assert desk.told("reservation.released") == ["reservations/voice"]
    stand(desk, VOICE)
    assert desk.held("voice").generation > first
    assert desk.grantable() == 16


def test_out_of_the_configuration_while_it_waits() -> None:
    desk = Desk(sample(0))
    desk.reserve("h", 24)
    stand(desk, VOICE)
    stand(desk)
    assert desk.state("voice") is ReservationState.RELEASED


def test_a_device_that_is_not_there_yet_is_waited_for() -> None:
    desk = Desk(sample(0))
    two = replace(VOICE, devices=("gpu0", "gpu1"))
    assert stand(desk, two) == {"voice": ["gpu1"]}
    assert "voice" not in desk.ledger.books.reservations
    desk.show(sample(0), sample(1))
    assert stand(desk, two) == {}
    assert desk.places("voice") == ["gpu0", "gpu1"]
    # Gone again, it keeps what it has.
    desk.show(sample(0))
    assert stand(desk, two) == {"voice": ["gpu1"]}
    assert desk.state("voice") is ReservationState.GRANTED


def test_a_lost_device_is_waited_for_too() -> None:
    desk = Desk(sample(0, health=Health.LOST))
    stand(desk, VOICE)
    assert desk.why("voice") == "gpu0: lost"
    desk.show(sample(0))
    assert desk.state("voice") is ReservationState.GRANTED


def test_it_is_neither_released_nor_renewed_by_a_client() -> None:
    desk = Desk(sample(0))
    stand(desk, VOICE)
    with pytest.raises(WrongState) as refusal:
        desk.release("voice")
    assert "take [reservations.voice] out of it and restart gpud" in str(refusal.value)
    with pytest.raises(WrongState, match="it has no deadline"):
        desk.renew("voice")
    desk.reserve("h", 16)
    stand(desk, VOICE, replace(VOICE, name="late"))
    with pytest.raises(WrongState, match=r"\[reservations\.late\]"):
        desk.release("late")


def test_it_counts_for_its_owner_but_is_not_refused_by_a_limit() -> None:
    desk = Desk(sample(0), settings=settled(queue={"max_reservations_per_owner": 1}))
    stand(desk, VOICE, replace(VOICE, name="chat"))
    assert desk.granted() == {"voice", "chat"}


def test_what_one_that_stands_has_alone_is_not_waited_for() -> None:
    desk = Desk(sample(0))
    stand(desk, replace(VOICE, sharing=Sharing.EXCLUSIVE))
    with pytest.raises(DeviceUnavailable, match="stands in the configuration"):
        desk.reserve("a", 1, max_wait_seconds=60.0)
