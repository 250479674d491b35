"""The last step before an engine runs asks for a promise that stands."""

from __future__ import annotations

import pytest

from gpud.errors import WrongState
from tests.fakes.cards import sample
from tests.ledger.desk import Desk


def test_an_engine_cannot_start_in_a_promise_that_has_ended() -> None:
    desk = Desk(sample(0))
    desk.reserve("a", 4, instance="i", ttl_seconds=None)
    desk.keep(desk.ledger.bind("a"))
    assert desk.held("a").bound
    desk.release("a", holder=True)
    with pytest.raises(WrongState, match="reservations/a: it is RELEAS"):
        desk.ledger.bind("a")


def test_nor_in_one_that_still_waits() -> None:
    desk = Desk(sample(0))
    desk.reserve("a", 24)
    desk.wait("b", 24, instance="i", ttl_seconds=None)
    with pytest.raises(WrongState, match="QUEUED"):
        desk.ledger.bind("b")
