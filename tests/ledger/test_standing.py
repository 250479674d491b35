"""The fixed shares of the configuration, and what is promised inside them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpud.devices.snapshot import Health, Sample
from gpud.enforcement.relations import overuses
from gpud.errors import DeviceUnavailable, ReservationNotFound, VramInsufficient, WrongState
from gpud.ledger.reservation import Priority, ReservationKind, ReservationState, Sharing
from gpud.ledger.standing import Standing, requests_of
from tests.fakes.cards import GIB, process, sample, snapshot
from tests.ledger.desk import HOST, Desk

VOICE = Standing(name="voice", owner="voice@home", devices=("gpu0",), bytes=8 * GIB)


def stand(desk: Desk, *wanted: Standing) -> dict[str, list[str]]:
    """As the daemon does at each snapshot; what is missing."""
    shown = snapshot(*desk.cards)
    requests, missing = requests_of(wanted, shown)
    now, ledger = desk.clock.now(), desk.ledger
    held = [each for each in ledger.books.reservations.values() if each.request.standing]
    for each in held:
        if each.id not in requests and each.id not in missing:
            desk.keep(ledger.unstand(each.id, now))
    for id_, request in requests.items():
        desk.keep(ledger.stand(id_, request, now))
    return missing


def inside(desk: Desk, id_: str, gib: float, **asked: Any) -> None:
    asked = {"within": "voice", "instance": f"i-{id_}", "ttl_seconds": None, **asked}
    desk.reserve(id_, gib, **asked)


def using(*processes: tuple[str | None, float]) -> Sample:
    listed = tuple(
        process(pid, int(gib * GIB), claim) for pid, (claim, gib) in enumerate(processes, start=1)
    )
    return sample(0, used=sum(each.used_bytes or 0 for each in listed), processes=listed)


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
    stand(desk, replace(VOICE, bytes=20 * GIB))
    assert desk.grantable() == 4
    assert desk.held("voice").generation == 2
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
    stand(desk)
    assert desk.state("voice") is ReservationState.RELEASED
    assert desk.held("voice").reason == "no longer in the configuration"
    assert desk.grantable() == 24
    stand(desk)
    assert desk.told("reservation.released") == ["reservations/voice"]
    stand(desk, VOICE)
    assert desk.held("voice").generation == 2
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
    assert desk.why("voice") == "8 GiB on gpu0: lost"
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
    from tests.ledger.desk import settled

    desk = Desk(sample(0), settings=settled(queue={"max_reservations_per_owner": 1}))
    stand(desk, VOICE, replace(VOICE, name="chat"))
    assert desk.granted() == {"voice", "chat"}


# Inside.


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
    from gpud.ledger.books import Cordon

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
