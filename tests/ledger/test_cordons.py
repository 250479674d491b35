"""Cordons and the drain: nothing new, what is there stays, and it survives a restart."""

from __future__ import annotations

import pytest

from gpud.errors import DeviceUnavailable, VramInsufficient
from gpud.ledger.books import Cordon
from gpud.ledger.change import Change
from gpud.ledger.reservation import ReservationState
from tests.fakes.cards import sample
from tests.ledger.desk import Desk

FAN = Cordon(reason="fan", actor="anna", wall=5.0)


def cordon(desk: Desk, uuid: str, value: Cordon | None = FAN) -> Change:
    change = desk.ledger.cordon(uuid, value, "anna", desk.clock.now())
    desk.keep(change)
    if value is None:
        desk.serve()
    return change


@pytest.mark.parametrize("uuid", ["U-gpu0", ""])
def test_nothing_new_and_what_is_there_stays(uuid: str) -> None:
    desk = Desk(sample(0))
    desk.reserve("h", 8, ttl_seconds=600.0)
    cordon(desk, uuid)
    with pytest.raises(DeviceUnavailable):
        desk.reserve("a", 1)
    desk.wait("b", 1)
    assert desk.renew("h").state is ReservationState.GRANTED
    desk.release("h")
    assert desk.state("b") is ReservationState.QUEUED
    cordon(desk, uuid, None)
    assert desk.granted() == {"b"}


def test_another_device_goes_on() -> None:
    desk = Desk()
    cordon(desk, "U-gpu0")
    desk.reserve("a", 8)
    assert desk.places("a") == ["gpu1"]


def test_a_drain_and_a_cordon_are_apart() -> None:
    desk = Desk(sample(0))
    cordon(desk, "U-gpu0")
    cordon(desk, "")
    cordon(desk, "", None)
    with pytest.raises(DeviceUnavailable, match="cordoned"):
        desk.reserve("a", 1)
    cordon(desk, "U-gpu0", None)
    desk.reserve("a", 1)


@pytest.mark.parametrize(
    ("uuid", "events"),
    [
        ("U-gpu0", ["device.cordoned", "device.uncordoned"]),
        ("", ["node.draining", "node.resumed"]),
    ],
)
def test_it_is_told_once_each_way(uuid: str, events: list[str]) -> None:
    desk = Desk(sample(0))
    assert not cordon(desk, uuid, None)  # nothing to lift
    for value in (FAN, FAN, None, None):
        cordon(desk, uuid, value)
    assert [event.type for event in desk.events] == events
    assert {event.actor for event in desk.events} == {"anna"}
    assert desk.events[0].reason == "fan"
    assert desk.events[0].subject == (f"devices/{uuid}" if uuid else "node")


def test_a_new_reason_is_a_change() -> None:
    desk = Desk(sample(0))
    cordon(desk, "U-gpu0")
    change = cordon(desk, "U-gpu0", Cordon(reason="smoke", actor="bert", wall=6.0))
    assert change.cordons[0][1] is not None
    assert desk.ledger.books.cordons["U-gpu0"].reason == "smoke"


@pytest.mark.parametrize("uuid", ["U-gpu0", ""])
@pytest.mark.parametrize("boot", ["same", "new"])
def test_it_outlives_the_daemon_and_the_boot(uuid: str, boot: str) -> None:
    desk = Desk(sample(0))
    desk.reserve("h", 24, ttl_seconds=7 * 86400.0)
    desk.wait("w", 8)
    cordon(desk, uuid)
    if boot == "new":
        desk.clock.reboot()
    desk.restart()
    desk.show(sample(0))
    desk.release("h")
    assert desk.state("w") is ReservationState.QUEUED
    with pytest.raises(DeviceUnavailable, match="fan"):
        desk.reserve("a", 1)
    cordon(desk, uuid, None)
    assert desk.granted() == {"w"}


def test_a_device_is_cordoned_though_it_is_not_there() -> None:
    """One that is gone for repair must not grant the moment it is plugged in again."""
    desk = Desk(sample(0))
    cordon(desk, "U-gpu1")
    desk.show(sample(0), sample(1))
    desk.reserve("a", 20)
    with pytest.raises(VramInsufficient, match="gpu1: cordoned"):
        desk.reserve("b", 20)
