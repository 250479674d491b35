"""Who may pass one that waits, and for how long."""

from __future__ import annotations

import pytest

from gpud.errors import VramInsufficient
from gpud.ledger.reservation import Priority, ReservationState, Shape, Sharing
from tests.fakes.cards import GIB, sample
from tests.ledger.desk import HOST, Desk, asking

EXCLUSIVE = {"sharing": Sharing.EXCLUSIVE}
BATCH, NORMAL, INTERACTIVE, CRITICAL = Priority
SPAN = 60.0


def test_what_delays_nobody_passes_for_as_long_as_it_likes() -> None:
    """With 20 held at once, 24 − 20 = 4 are of no use to the one that waits for 12."""
    desk = Desk(sample(0))
    desk.reserve("h", 20)
    desk.wait("head", 12)
    desk.reserve("small", 4, ttl_seconds=None)
    assert desk.held("small").passes == ()
    desk.release("h")
    assert desk.granted() == {"small", "head"}


def test_what_would_delay_the_first_is_kept_from_it() -> None:
    desk = Desk(sample(0))
    desk.reserve("h", 12)
    desk.wait("head", 20)
    # Without it the head comes in with the end of h; with 5 more it would not.
    with pytest.raises(VramInsufficient, match="kept for reservations/head, which waits before"):
        desk.reserve("five", 5, ttl_seconds=3600.0)
    desk.reserve("four", 4, ttl_seconds=3600.0)
    desk.release("h")
    assert desk.granted() == {"four", "head"}


@pytest.mark.parametrize(
    ("waited_seconds", "ttl_seconds", "may_pass"),
    [(0, 30.0, True), (0, 30.1, False), (10, 20.0, True), (10, 20.1, False), (29, 1.0, True),
     (31, 1.0, False), (0, None, False)],
)  # fmt: skip
def test_a_short_lease_passes_within_the_bound(
    waited_seconds: float, ttl_seconds: float | None, may_pass: bool
) -> None:
    desk = Desk(sample(0))
    desk.reserve("h", 12)
    desk.reserve("head", 24, max_wait_seconds=None)
    desk.pass_seconds(waited_seconds)
    desk.reserve("a", 12, ttl_seconds=ttl_seconds, max_wait_seconds=60.0)
    assert desk.state("a") is (ReservationState.GRANTED if may_pass else ReservationState.QUEUED)
    passes = desk.held("a").passes
    if may_pass:
        (passed,) = passes
        assert passed.by == "head"
        assert passed.deadline.remaining_seconds(desk.clock.now()) == 30.0 - waited_seconds
        (event,) = [e for e in desk.events if e.reason.startswith("passed")]
        assert event.reason == "passed reservations/head, for a bounded time"


def test_a_passer_is_renewed_up_to_the_bound_while_the_first_waits() -> None:
    desk = Desk(sample(0))
    desk.reserve("h", 12)
    desk.reserve("head", 24, max_wait_seconds=None)
    desk.reserve("a", 12, ttl_seconds=20.0)
    began = desk.clock.boottime
    desk.pass_seconds(15)
    renewed = desk.renew("a")
    assert renewed.deadline is not None
    assert renewed.deadline.boottime == began + 30
    assert desk.renew("a", 3600.0).deadline == renewed.deadline
    desk.release("h")
    desk.pass_seconds(15.1)
    assert desk.state("a") is ReservationState.EXPIRED
    assert desk.granted() == {"head"}


@pytest.mark.parametrize("how", ["came in", "left"])
def test_once_the_first_waits_no_more_a_passer_is_as_any_other(how: str) -> None:
    desk = Desk(sample(0), sample(1))
    desk.reserve("h", 12, devices=("U-gpu0",))
    desk.reserve("h2", 24, devices=("U-gpu1",))
    desk.reserve("head", 24, max_wait_seconds=None)
    desk.reserve("a", 12, ttl_seconds=20.0)
    assert desk.held("a").passes
    desk.release("h2" if how == "came in" else "head")
    assert desk.state("head") is not ReservationState.QUEUED
    renewed = desk.renew("a", 3600.0)
    assert renewed.deadline is not None
    assert renewed.deadline.remaining_seconds(desk.clock.now()) == 3600


def test_passers_delay_the_first_by_the_bound_at_most() -> None:
    """However many come: those that would end later than the bound are kept out."""
    desk = Desk(sample(0))
    desk.reserve("h", 12)
    desk.reserve("head", 24, max_wait_seconds=None)
    began, number = desk.clock.boottime, 0
    desk.release("h")
    assert desk.state("head") is ReservationState.GRANTED
    desk.release("head")
    desk.reserve("h", 12)
    desk.reserve("head2", 24, max_wait_seconds=None)
    began = desk.clock.boottime
    desk.reserve("p", 12, ttl_seconds=5.0)
    desk.release("h")
    while desk.state("head2") is ReservationState.QUEUED:
        number += 1
        desk.reserve(f"p{number}", 12, ttl_seconds=5.0, max_wait_seconds=60.0)
        desk.pass_seconds(2)
        assert number < 100
    assert desk.clock.boottime - began <= 30 + 2


@pytest.mark.parametrize("who", ["head", "newcomer"])
def test_alone_on_a_device_is_never_harmless(who: str) -> None:
    desk = Desk(sample(0))
    desk.reserve("h", 4)
    desk.wait("head", 24, **(EXCLUSIVE if who == "head" else {}))
    if who == "newcomer":
        desk.release("h")
        desk.release("head")
        desk.reserve("h", 20)
        desk.wait("head", 12)
        desk.wait("alone", 1, ttl_seconds=3600.0, **EXCLUSIVE)
        return
    with pytest.raises(VramInsufficient, match="kept for reservations/head"):
        desk.reserve("a", 1, ttl_seconds=3600.0)
    desk.reserve("b", 1, ttl_seconds=10.0)
    assert desk.held("b").passes


def test_a_first_that_could_never_be_on_a_device_keeps_nobody_off_it() -> None:
    desk = Desk(sample(0), sample(1, total=12 * GIB))
    desk.reserve("h", 8, devices=("U-gpu0",))
    desk.wait("head", 24)
    desk.reserve("a", 8, devices=("U-gpu1",), ttl_seconds=3600.0)
    assert desk.held("a").passes == ()


def test_of_alternatives_the_one_that_comes_in_first_is_kept() -> None:
    """20 on one or 10 on each of two: the end of h0, in a minute, is enough for the first."""
    desk = Desk(sample(0), sample(1))
    desk.reserve("h0", 12, devices=("U-gpu0",), ttl_seconds=60.0)
    desk.reserve("h1", 20, devices=("U-gpu1",))
    desk.wait("head", 20, alternatives=(Shape(bytes=10 * GIB, device_count=2),))
    with pytest.raises(VramInsufficient, match="gpu0: kept for reservations/head"):
        desk.reserve("a", 5, devices=("U-gpu0",), ttl_seconds=3600.0)
    desk.reserve("b", 4, devices=("U-gpu0",), ttl_seconds=3600.0)
    desk.reserve("c", 4, devices=("U-gpu1",), ttl_seconds=3600.0)  # it does not wait for that one
    desk.pass_seconds(60)
    assert desk.state("head") is ReservationState.GRANTED


def test_a_lease_that_is_renewed_for_ever_makes_nobody_starve() -> None:
    """Its end is always near: its device would be kept, and the other given to whoever comes."""
    desk = Desk(sample(0), sample(1))
    desk.reserve("service", 24, devices=("U-gpu0",), ttl_seconds=10.0)
    for id_ in ("j0", "j1"):
        desk.reserve(id_, 12, devices=("U-gpu1",), ttl_seconds=3600.0)
    desk.wait("head", 24, priority=CRITICAL)
    began, number = desk.clock.boottime, 2
    while desk.state("head") is ReservationState.QUEUED:
        assert desk.clock.boottime - began < 3 * SPAN + 30, "it starves"
        desk.renew("service")
        desk.pass_seconds(9)
        asked = {"devices": ("U-gpu1",), "ttl_seconds": 3600.0, "max_wait_seconds": 60.0}
        desk.reserve(f"j{number}", 12, priority=BATCH, **asked)
        number += 1
        jobs = sorted(desk.granted() - {"service", "head"})
        if jobs:
            desk.release(jobs[0])
    assert desk.places("head") == ["gpu1"]


def test_ram_beside_is_kept_for_the_first_too() -> None:
    desk = Desk(sample(0), HOST)
    desk.reserve("h", 8, host_bytes=32 * GIB)
    desk.wait("head", 20, host_bytes=60 * GIB)
    with pytest.raises(VramInsufficient, match="host: kept for reservations/head"):
        desk.reserve("a", 30, devices=("U-host",), ttl_seconds=3600.0)
    with pytest.raises(VramInsufficient, match="host: kept for reservations/head"):
        # 3 and 3 are harmless each, 6 together are not.
        desk.reserve("b", 3, devices=("U-host",), host_bytes=3 * GIB, ttl_seconds=3600.0)
    desk.reserve("c", 4, devices=("U-host",), ttl_seconds=3600.0)
    desk.release("h")
    assert desk.state("head") is ReservationState.GRANTED


def test_what_needs_no_bytes_of_its_own_passes_everybody() -> None:
    """Inside a standing reservation the bytes are the standing one's."""
    desk = Desk(sample(0))
    request = asking(12, standing=True, ttl_seconds=None, max_wait_seconds=None)
    desk.keep(desk.ledger.stand("voice", request, desk.clock.now()))
    desk.serve()
    desk.reserve("beside", 12, ttl_seconds=600.0)
    desk.wait("head", 12)
    desk.reserve("a", 12, within="voice", instance="i", ttl_seconds=None)
    assert desk.held("a").passes == ()


def test_what_never_fits_beside_a_standing_share_is_refused_at_once() -> None:
    """Waiting does not end what stands in the configuration."""
    desk = Desk(sample(0))
    request = asking(12, standing=True, ttl_seconds=None, max_wait_seconds=None)
    desk.keep(desk.ledger.stand("voice", request, desk.clock.now()))
    desk.serve()
    for asked in ({"gib": 13}, {"gib": 1, "sharing": Sharing.EXCLUSIVE}):
        with pytest.raises(VramInsufficient) as refusal:
            desk.wait("head", asked.pop("gib"), **asked)
        assert refusal.value.never_fits


def test_the_bound_holds_as_long_as_anybody_waits_whom_it_passed() -> None:
    """It passed two; the first of them left, and it was renewed for ever."""
    desk = Desk(sample(0))
    desk.reserve("short", 9, ttl_seconds=40.0)
    desk.reserve("long", 5, ttl_seconds=600.0)
    desk.wait("first", 12)
    desk.wait("second", 17)
    passer = desk.reserve("passer", 4, ttl_seconds=20.0)
    assert {each.by for each in passer.passes} == {"first", "second"}
    desk.release("first")
    desk.pass_seconds(15)
    assert desk.renew("passer").deadline == desk.ledger.renewable_until(passer)
    desk.pass_seconds(26)
    assert desk.state("passer") is ReservationState.EXPIRED
    assert desk.state("second") is ReservationState.GRANTED


def test_the_bound_holds_on_every_device_of_a_passer() -> None:
    desk = Desk(sample(0), sample(1))
    for at in (0, 1):
        desk.reserve(f"held{at}", 20, devices=(f"U-gpu{at}",), ttl_seconds=60.0)
        desk.wait(f"waits{at}", 22, devices=(f"U-gpu{at}",))
    passer = desk.reserve("passer", 4, device_count=2, ttl_seconds=20.0)
    assert {each.by for each in passer.passes} == {"waits0", "waits1"}
