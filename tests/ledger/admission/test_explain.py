"""Why a request fits or does not: who holds the bytes, until when, what helps; nothing changes."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from gpud.devices.snapshot import Health, Pressure
from gpud.errors import (
    DeviceUnavailable,
    QueueFull,
    QuotaExceeded,
    Reconciling,
    SamplesStale,
    VramInsufficient,
)
from gpud.ledger.admission.explain import DeviceExplanation, Explanation
from gpud.ledger.books import Cordon
from gpud.ledger.ledger import Ledger
from gpud.ledger.reservation import Priority, ReservationState, Shape, Sharing
from tests.fakes.cards import GIB, process, sample
from tests.ledger.desk import HOST, Desk, asking, settled

EXCLUSIVE = {"sharing": Sharing.EXCLUSIVE}


def explain(desk: Desk, gib: float, **asked: Any) -> Explanation:
    before = copy.deepcopy((vars(desk.ledger.books), desk.ledger.charges()))
    told = desk.ledger.explain(asking(gib, **asked), desk.clock.now())
    assert (vars(desk.ledger.books), desk.ledger.charges()) == before, "it changed something"
    return told


def on(told: Explanation, alias: str, shape: int = 0) -> DeviceExplanation:
    (found,) = [
        each
        for each in told.devices
        if each.candidate.charge.alias == alias and each.shape == shape
    ]
    return found


def seconds(desk: Desk, each: DeviceExplanation) -> float | None:
    """Until it is expected to fit."""
    return None if each.expected is None else each.expected.remaining_seconds(desk.clock.now())


def test_what_fits_says_where_and_names_no_rule() -> None:
    desk = Desk()
    desk.reserve("h", 20, devices=("U-gpu1",))
    told = explain(desk, 4)
    assert told.fit is not None
    assert [grant.device for grant in told.fit.grants] == ["U-gpu1"]
    assert told.refusal is None
    assert told.can_wait
    for alias in ("gpu0", "gpu1"):
        each = on(told, alias)
        assert (each.fits, each.rule, each.remedy, each.expected) == (True, "", "", None)
    assert desk.reserve("a", 4).grants == told.fit.grants


def test_who_holds_what_and_until_when() -> None:
    strangers = (process(7, 3 * GIB), process(8, GIB, "long"))
    desk = Desk(sample(0, used=5 * GIB, processes=strangers))
    desk.reserve("held", 4, owner="voice", ttl_seconds=None, instance="tiny-1")
    desk.reserve("long", 5, owner="anna", ttl_seconds=600.0)
    desk.reserve("short", 6, owner="bert", ttl_seconds=60.0)
    desk.show(*desk.cards)
    each = on(explain(desk, 10), "gpu0")
    assert [(h.reservation, h.what, h.bytes / GIB, h.pid) for h in each.holders] == [
        ("reservations/short", "bert", 6, None),
        ("reservations/long", "anna", 5, None),
        ("reservations/held", "voice", 4, None),
        ("", "foreign", 3, 7),
        ("", "unattributed", 1, None),
    ]
    until = [h.until and h.until.remaining_seconds(desk.clock.now()) for h in each.holders]
    assert until == [60.0, 600.0, None, None, None]
    assert each.candidate.room_bytes == 5 * GIB
    total = sum(h.bytes for h in each.holders) + (each.candidate.room_bytes or 0)
    assert total == 24 * GIB


def test_over_use_counts_with_what_is_used() -> None:
    desk = Desk(sample(0))
    desk.reserve("a", 4)
    desk.show(sample(0, used=6 * GIB, processes=(process(1, 6 * GIB, "a"),)))
    (holder,) = on(explain(desk, 20), "gpu0").holders
    assert holder.bytes == 6 * GIB


def test_the_expected_time_is_of_the_lease_whose_end_makes_room() -> None:
    desk = Desk(sample(0))
    for id_, size, ttl in (("c", 6, 300.0), ("a", 6, 60.0), ("b", 12, 120.0)):
        desk.reserve(id_, size, ttl_seconds=ttl)
    for gib, wanted in ((6, 60.0), (7, 120.0), (18, 120.0), (19, 300.0), (24, 300.0)):
        assert seconds(desk, on(explain(desk, gib), "gpu0")) == wanted
    each = on(explain(desk, 8), "gpu0")
    assert each.rule == "8 GiB too few"
    assert each.remedy == ("the end of reservations/a, reservations/b, in 120 s unless renewed")
    assert seconds(desk, on(explain(desk, 1, **EXCLUSIVE), "gpu0")) == 300.0


def test_what_has_no_end_of_its_own_makes_the_time_unknown() -> None:
    desk = Desk(sample(0))
    desk.reserve("held", 12, ttl_seconds=None, instance="i")
    desk.reserve("lease", 12, ttl_seconds=60.0)
    assert seconds(desk, on(explain(desk, 12), "gpu0")) == 60.0
    for gib, asked in ((13, {}), (1, EXCLUSIVE)):
        each = on(explain(desk, gib, **asked), "gpu0")
        assert each.expected is None
        assert each.remedy == "the end of reservations/lease, reservations/held"


def test_bytes_on_their_way_back_come_when_they_come() -> None:
    """Its lease has ended or been given up: the former deadline says nothing any more."""
    desk = Desk(sample(0))
    desk.reserve("h", 24, ttl_seconds=600.0)
    desk.show(sample(0, used=GIB, processes=(process(1, GIB, "h"),)))
    desk.release("h")
    assert desk.state("h") is ReservationState.RELEASING
    each = on(explain(desk, 8), "gpu0")
    assert each.expected is None
    assert each.holders[0].until is None
    assert each.remedy == "the end of reservations/h"


def test_strangers_are_told_as_what_no_promise_holds() -> None:
    desk = Desk(sample(0, used=20 * GIB, processes=(process(7, 20 * GIB),)))
    each = on(explain(desk, 8), "gpu0")
    assert each.remedy == "4 GiB that others use must come free: pid 7 (p7)"
    assert each.expected is None


def test_alone_where_strangers_are_the_time_is_unknown_whatever_the_leases() -> None:
    desk = Desk(sample(0))
    desk.reserve("h", 4, ttl_seconds=60.0)
    desk.show(sample(0, used=GIB, processes=(process(7, GIB),)))
    each = on(explain(desk, 1, **EXCLUSIVE), "gpu0")
    assert each.expected is None
    desk.release("h")
    each = on(explain(desk, 1, **EXCLUSIVE), "gpu0")
    assert "pid 7 (p7) uses 1 GiB there without a promise" in each.rule
    assert each.expected is None
    assert each.remedy == "what the rule names has to go first"


def test_one_that_waits_before_is_named_and_the_time_unknown() -> None:
    desk = Desk(sample(0))
    desk.reserve("h", 12, ttl_seconds=60.0)
    desk.wait("head", 24)
    told = explain(desk, 12, ttl_seconds=3600.0)
    each = on(told, "gpu0")
    assert told.queue_ahead == 1
    assert each.rule == "kept for reservations/head, which waits before it"
    assert each.expected is None
    assert each.remedy == "what the rule names has to go first"
    assert explain(desk, 12, ttl_seconds=3600.0, priority=Priority.CRITICAL).queue_ahead == 0
    short = explain(desk, 12, ttl_seconds=5.0)
    assert short.fit is not None
    assert short.fit.passes


def test_a_full_device_is_no_reason_for_a_reservation_but_for_a_load() -> None:
    used = 21 * GIB
    full = sample(0, used=used, processes=(process(1, used),))
    desk = Desk(replace(full, pressure=Pressure.CRITICAL))
    assert on(explain(desk, 2), "gpu0").fits
    each = on(explain(desk, 2, instance="i", ttl_seconds=None), "gpu0")
    assert "its memory pressure is CRITICAL" in each.rule
    assert (each.expected, each.remedy) == (None, "what the rule names has to go first")


def test_each_rule_is_told_and_can_be_waited_for() -> None:
    desk = Desk(sample(0), sample(1, health=Health.LOST), sample(2, total=8 * GIB))
    cordon = Cordon(reason="fan", actor="anna", wall=0.0)
    desk.keep(desk.ledger.cordon("U-gpu0", cordon, "anna", desk.clock.now()))
    told = explain(desk, 12)
    assert "cordoned (fan)" in on(told, "gpu0").rule
    assert on(told, "gpu1").rule == "lost"
    assert on(told, "gpu2").rule == "4 GiB too few"
    assert on(told, "gpu0").remedy == "see the rule; waiting helps once it no longer holds"
    assert on(told, "gpu2").remedy == "nothing: it holds 8 GiB at most; ask for less per device"
    assert on(told, "gpu0").expected is None
    assert isinstance(told.refusal, VramInsufficient)
    assert told.can_wait
    only = explain(desk, 12, devices=("U-gpu0", "U-gpu1"))
    assert isinstance(only.refusal, DeviceUnavailable)


def test_what_can_never_fit_says_so() -> None:
    told = explain(Desk(), 25)
    assert not told.can_wait
    assert isinstance(told.refusal, VramInsufficient)
    assert told.refusal.never_fits


def test_every_shape_and_the_ram_are_told_apart() -> None:
    desk = Desk(sample(0), sample(1), HOST)
    desk.reserve("h", 20, devices=("U-gpu0",), host_bytes=60 * GIB)
    told = explain(
        desk, 24, device_count=2, alternatives=(Shape(bytes=6 * GIB),), host_bytes=8 * GIB
    )
    assert [(e.shape, e.candidate.charge.alias, e.fits) for e in told.devices] == [
        (0, "gpu0", False),
        (0, "gpu1", True),
        (1, "gpu0", False),
        (1, "gpu1", True),
        (0, "host", False),
    ]
    assert on(told, "host").needed_bytes == 8 * GIB
    assert on(told, "host").rule == "4 GiB too few"
    assert told.fit is None


def test_stale_samples_are_the_reason_while_they_are() -> None:
    desk = Desk()
    desk.clock.advance(11)
    told = explain(desk, 1)
    assert isinstance(told.refusal, SamplesStale)
    assert "11 s old" in on(told, "gpu0").rule


def test_before_the_first_snapshot_nothing_can_be_told() -> None:
    desk = Desk()
    with pytest.raises(Reconciling):
        Ledger(settled()).explain(asking(1), desk.clock.now())


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({"gib": 12}, 60.0),  # gpu0's lease ends first
        ({"gib": 12, "device_count": 2}, 120.0),
        ({"gib": 12, "devices": ("U-gpu1",)}, 120.0),
        ({"gib": 24, "alternatives": (Shape(bytes=12 * GIB),)}, 60.0),
        ({"gib": 12, "host_bytes": 8 * GIB}, 300.0),  # its RAM comes last
        ({"gib": 12, "devices": ("U-gpu2",)}, None),
        ({"gib": 12, "device_count": 3}, None),
    ],
)
def test_when_the_next_in_line_comes_in(asked: dict[str, Any], wanted: float | None) -> None:
    desk = Desk(sample(0), sample(1), sample(2), HOST)
    desk.reserve("a", 24, devices=("U-gpu0",), ttl_seconds=60.0)
    desk.reserve("b", 24, devices=("U-gpu1",), ttl_seconds=120.0)
    desk.reserve("c", 24, devices=("U-gpu2",), ttl_seconds=None)
    desk.reserve("d", 60, devices=("U-host",), ttl_seconds=300.0)
    now = desk.clock.now()
    desk.wait("w", **asked)
    expected = desk.ledger.expected(desk.held("w"), now)
    assert (expected and expected.remaining_seconds(now)) == wanted


def test_the_limits_of_owner_and_queue_are_told() -> None:
    desk = Desk(sample(0), settings=settled({"max_reservations_per_owner": 1}))
    desk.reserve("a", 1)
    told = explain(desk, 1)
    assert isinstance(told.refusal, QuotaExceeded)
    assert (told.fit, told.can_wait) == (None, False)
    desk = Desk(sample(0), settings=settled({"max_queued": 1}))
    desk.reserve("a", 24)
    desk.wait("b", 8)
    told = explain(desk, 8, max_wait_seconds=60.0)
    assert isinstance(told.refusal, QueueFull)
    assert not told.can_wait


def test_a_reason_to_wait_tells_what_is_lacking() -> None:
    desk = Desk(sample(0), sample(1), HOST)
    desk.reserve("ram", 60, devices=("U-host",))
    desk.wait("beside", 2, host_bytes=10 * GIB)
    assert desk.why("beside").startswith("10 GiB on host: ")
    desk.reserve("a", 20, devices=("U-gpu0",))
    desk.wait("two", 12, device_count=2)
    assert desk.why("two").startswith("12 GiB on each of 2 of gpu0: ")
