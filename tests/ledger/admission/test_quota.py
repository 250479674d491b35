"""What one owner may have: granted, on its way back and waiting, by kind; said with numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from google.rpc import error_details_pb2

from gpud.devices.snapshot import DeviceKind, Sample
from gpud.errors import QueueFull, QuotaExceeded, VramInsufficient
from gpud.ledger.admission.policy import LedgerSettings, OwnerQuota, QuotaSettings
from gpud.ledger.reservation import Priority, ReservationState, Shape, Sharing
from gpud.rpc.errors import status_of
from gpud.rpc.reservation_messages import explanation
from tests.fakes.cards import GIB, process, sample
from tests.ledger.desk import HOST, Desk, asking, settled

EXCLUSIVE = {"sharing": Sharing.EXCLUSIVE}
ON_HOST = {"devices": ("U-host",)}


def bounded(
    *, queue: dict[str, int] | None = None, anna: dict[str, int] | None = None, **default: int
) -> LedgerSettings:
    """All owners have the same quota, but anna if she is given her own."""
    owners = {} if anna is None else {"anna": OwnerQuota(key="quotas.anna", **anna)}
    quotas = QuotaSettings(default=OwnerQuota(key="quotas.default", **default), owners=owners)
    return settled(queue=queue, quotas=quotas)


def desk(*cards: Sample, **quota: Any) -> Desk:
    return Desk(*(cards or (sample(0), sample(1), HOST)), settings=bounded(**quota))


def refused(attempt: Callable[..., object], *args: Any, **asked: Any) -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as caught:
        attempt(*args, **asked)
    return caught.value


# Bytes.


def test_what_is_held_and_what_is_asked_is_told_with_the_limit() -> None:
    table = desk(gpu_bytes=24 * GIB)
    table.reserve("a", 18, owner="anna@host")
    error = refused(table.reserve, "b", 8, owner="anna@host")
    assert str(error) == (
        "cannot give anna@host more: 18 GiB held and 8 GiB asked exceed quotas.default.gpu_bytes "
        "= 24 GiB; release one (`gpuctl reservations`)"
    )
    info = error_details_pb2.ErrorInfo()
    status = status_of(error)
    assert status.code == 8
    assert status.details[0].Unpack(info)
    assert info.reason == "QUOTA_EXCEEDED"
    assert dict(info.metadata) | {"advice": ""} == {
        "owner": "anna@host",
        "limit_name": "quotas.default.gpu_bytes",
        "limit": str(24 * GIB),
        "held": str(18 * GIB),
        "asked": str(8 * GIB),
        "unit": "bytes",
        "advice": "",
    }
    assert set(table.ledger.books.reservations) == {"a"}


def test_as_much_as_the_quota_is_had_and_not_a_byte_more() -> None:
    table = desk(gpu_bytes=20 * GIB)
    table.reserve("a", 12)
    refused(table.reserve, "b", 8 + 1 / GIB)
    table.reserve("b", 8)
    assert refused(table.reserve, "c", 1 / GIB).held == 20 * GIB


def test_each_owner_has_its_own() -> None:
    table = desk(gpu_bytes=10 * GIB)
    table.reserve("a", 10, owner="anna")
    table.reserve("b", 10, owner="bert")
    refused(table.reserve, "c", 1, owner="bert")


def test_a_table_of_ones_own_stands_for_the_default_as_a_whole() -> None:
    table = desk(gpu_bytes=10 * GIB, reservations=1, anna={"gpu_bytes": 20 * GIB})
    for id_ in ("a1", "a2"):
        table.reserve(id_, 10, owner="anna")
    assert refused(table.reserve, "a3", 1, owner="anna").limit_name == "quotas.anna.gpu_bytes"
    table.reserve("b1", 1, owner="bert")
    error = refused(table.reserve, "b2", 1, owner="bert")
    assert error.limit_name == "quotas.default.reservations"


def test_without_a_table_for_an_owner_nothing_bounds_it() -> None:
    quotas = QuotaSettings(owners={"anna": OwnerQuota(key="quotas.anna", gpu_bytes=GIB)})
    table = Desk(sample(0), settings=settled(quotas=quotas))
    table.reserve("b", 23, owner="bert")
    refused(table.reserve, "a", 1.5, owner="anna")


def test_every_device_asked_for_counts() -> None:
    table = desk(gpu_bytes=15 * GIB)
    assert refused(table.reserve, "a", 8, device_count=2).asked == 16 * GIB
    table.reserve("a", 7, device_count=2)


def test_the_hosts_memory_is_counted_apart() -> None:
    table = desk(gpu_bytes=10 * GIB, host_bytes=8 * GIB)
    table.reserve("a", 6, host_bytes=3 * GIB)
    table.reserve("b", 5, **ON_HOST)
    error = refused(table.reserve, "c", 1, host_bytes=GIB)
    assert (error.limit_name, error.held, error.asked) == (
        "quotas.default.host_bytes", 8 * GIB, GIB,
    )  # fmt: skip
    kind = {"device_kind": DeviceKind.HOST}
    assert refused(table.reserve, "c", 1, **kind).limit_name == "quotas.default.host_bytes"
    assert desk(gpu_bytes=1).reserve("a", 5, **kind).booked
    # Who has too much of the one may still have of the other.
    table.reserve("c", 4)
    assert refused(table.reserve, "d", 1).limit_name == "quotas.default.gpu_bytes"


def test_ram_beside_the_host_itself_counts_with_it() -> None:
    table = desk(host_bytes=8 * GIB)
    assert refused(table.reserve, "a", 5, host_bytes=4 * GIB, **ON_HOST).asked == 9 * GIB
    table.reserve("a", 5, host_bytes=3 * GIB, **ON_HOST)
    assert refused(table.reserve, "b", 1, **ON_HOST).held == 8 * GIB


def test_slices_and_simulated_cards_are_devices() -> None:
    cards = (sample(0, kind=DeviceKind.MIG), sample(1, kind=DeviceKind.SIMULATED))
    table = desk(*cards, gpu_bytes=10 * GIB)
    table.reserve("a", 5, devices=("U-gpu0",))
    table.reserve("b", 5, devices=("U-gpu1",))
    refused(table.reserve, "c", 1)


def test_what_comes_back_late_is_held_until_it_is_back() -> None:
    table = desk(sample(0), gpu_bytes=10 * GIB)
    table.reserve("a", 8)
    table.show(sample(0, used=8 * GIB, processes=(process(1, 8 * GIB, "a"),)))
    table.release("a")
    assert table.state("a") is ReservationState.RELEASING
    assert refused(table.reserve, "b", 4).held == 8 * GIB
    table.clock.advance(1)
    table.show(sample(0))
    table.reserve("b", 10)


def test_an_instances_promise_counts_for_its_owner() -> None:
    table = desk(gpu_bytes=10 * GIB)
    table.reserve("a", 8, owner="anna", instance="tiny-1", ttl_seconds=None)
    assert refused(table.reserve, "b", 4, owner="anna").held == 8 * GIB


# The largest of its shapes, whether it is granted now or waits.


def test_the_largest_of_its_shapes_counts() -> None:
    table = desk(gpu_bytes=10 * GIB)
    other = (Shape(bytes=12 * GIB),)
    assert refused(table.reserve, "a", 4, alternatives=other).asked == 12 * GIB
    table.reserve("a", 4, alternatives=(Shape(bytes=10 * GIB),))
    # Granted it counts as what it got.
    assert refused(table.reserve, "b", 7).held == 4 * GIB
    table.reserve("b", 6)


def full(**quota: Any) -> Desk:
    """Another has all of the one card."""
    table = desk(sample(0), HOST, **quota)
    table.reserve("h", 24, owner="h")
    return table


def test_what_waits_counts_as_what_it_may_get() -> None:
    table = full(anna={"gpu_bytes": 20 * GIB, "host_bytes": 4 * GIB})
    table.wait("a", 6, owner="anna", alternatives=(Shape(bytes=9 * GIB),), host_bytes=GIB)
    error = refused(table.reserve, "b", 12, owner="anna", max_wait_seconds=9.0)
    assert (error.held, error.asked) == (9 * GIB, 12 * GIB)
    table.wait("b", 11, owner="anna", host_bytes=3 * GIB)
    assert refused(table.reserve, "c", 1, owner="anna", **ON_HOST).held == 4 * GIB
    table.release("h")
    assert table.granted() == {"a", "b"}
    table.reserve("c", 3, owner="anna")  # 6 of the 9 were enough


def test_what_others_wait_for_is_not_ones_own() -> None:
    table = full(anna={"gpu_bytes": 10 * GIB}, gpu_bytes=24 * GIB)
    table.wait("b", 20, owner="bert")
    table.wait("a1", 6, owner="anna")
    table.wait("a2", 4, owner="anna")


def test_the_hosts_memory_that_one_waits_for_is_all_it_asks_of_it() -> None:
    table = full(anna={"host_bytes": 10 * GIB})
    table.reserve("r", 60, owner="h", **ON_HOST)
    table.wait("a", 5, owner="anna", host_bytes=4 * GIB, **ON_HOST)
    assert refused(table.reserve, "b", 2, owner="anna", **ON_HOST).held == 9 * GIB


def test_who_gives_up_waiting_has_it_again() -> None:
    table = full(anna={"gpu_bytes": 10 * GIB})
    table.wait("a", 10, owner="anna", max_wait_seconds=60.0)
    refused(table.reserve, "b", 1, owner="anna", max_wait_seconds=9.0)
    table.release("a")
    table.wait("b", 10, owner="anna", max_wait_seconds=5.0)
    table.pass_seconds(6)
    table.wait("c", 10, owner="anna")


def test_too_much_is_refused_before_it_is_said_what_others_hold() -> None:
    table = full(anna={"gpu_bytes": 10 * GIB})
    refused(table.reserve, "a", 12, owner="anna")
    with pytest.raises(VramInsufficient):
        table.reserve("a", 8, owner="anna")


# A device alone is all that there is of it.


def test_a_device_alone_is_weighed_with_what_its_owner_waits_for() -> None:
    table = desk(anna={"gpu_bytes": 30 * GIB})
    table.reserve("h", 20, owner="h", devices=("U-gpu0",))
    table.wait("a", 9, owner="anna", devices=("U-gpu0",))
    error = refused(table.reserve, "b", 1, owner="anna", **EXCLUSIVE)
    assert (error.held, error.asked) == (9 * GIB, 24 * GIB)
    told = table.ledger.explain(asking(1, owner="anna", **EXCLUSIVE), table.clock.now())
    assert str(told.refusal) == str(error)


def test_a_device_alone_counts_as_what_is_given_of_it() -> None:
    table = desk(sample(0, used=4 * GIB, processes=None), sample(1), gpu_bytes=40 * GIB)
    table.reserve("a", 1, devices=("U-gpu0",), **EXCLUSIVE)
    error = refused(table.reserve, "b", 1, devices=("U-gpu1",), **EXCLUSIVE)
    assert (error.held, error.asked) == (20 * GIB, 24 * GIB)
    assert refused(table.reserve, "b", 21).held == 20 * GIB
    table.reserve("b", 20)


def test_a_device_alone_that_waits_counts_as_the_largest_it_may_get() -> None:
    cards = (sample(0), sample(1, total=32 * GIB), HOST)
    table = desk(*cards, anna={"gpu_bytes": 30 * GIB})
    for index in (0, 1):
        table.reserve(f"h{index}", 1, owner="h", devices=(f"U-gpu{index}",))
    error = refused(table.reserve, "a", 1, owner="anna", max_wait_seconds=9.0, **EXCLUSIVE)
    assert error.asked == 32 * GIB
    table.wait("a", 1, owner="anna", devices=("U-gpu0",), **EXCLUSIVE)
    assert refused(table.reserve, "b", 7, owner="anna").held == 24 * GIB
    table.reserve("b", 6, owner="anna", devices=("U-gpu1",))
    table.release("h0")
    assert "a" in table.granted()


def test_the_host_alone_counts_as_all_of_it() -> None:
    table = desk(host_bytes=32 * GIB)
    assert refused(table.reserve, "a", 1, **ON_HOST, **EXCLUSIVE).asked == 64 * GIB
    table.reserve("h", 1, owner="h", **ON_HOST)
    waits = {"max_wait_seconds": 9.0, **ON_HOST, **EXCLUSIVE}
    assert refused(table.reserve, "a", 1, **waits).asked == 64 * GIB


def test_a_card_that_is_cut_into_slices_is_nobodys_alone() -> None:
    """Its slices are what a request without a kind may wait for."""
    whole = sample(0, total=80 * GIB)
    whole = replace(whole, readings=whole.readings.changed(mig_enabled=True))
    cards = (whole, sample(1, total=10 * GIB, kind=DeviceKind.MIG))
    table = desk(*cards, anna={"gpu_bytes": 20 * GIB})
    table.reserve("h", 1, owner="h")
    table.wait("a", 1, owner="anna", **EXCLUSIVE)
    table.release("h")
    assert table.granted() == {"a"}


# Standing reservations.


def stand(table: Desk, id_: str, gib: float, **asked: Any) -> None:
    held = {"ttl_seconds": None, "max_wait_seconds": None, "priority": Priority.CRITICAL}
    request = asking(gib, standing=True, **held, **asked)
    table.keep(table.ledger.stand(id_, request, table.clock.now()))
    table.serve()


def test_a_standing_one_counts_and_is_never_refused() -> None:
    table = desk(gpu_bytes=10 * GIB, reservations=1)
    stand(table, "voice", 16, owner="voice", devices=("U-gpu0",))
    stand(table, "more", 4, owner="voice", devices=("U-gpu0",))
    assert table.granted() == {"voice", "more"}
    assert refused(table.reserve, "a", 1, owner="voice").unit == "reservations"
    table = desk(gpu_bytes=20 * GIB)
    stand(table, "voice", 16, owner="voice", devices=("U-gpu0",))
    assert refused(table.reserve, "a", 5, owner="voice").held == 16 * GIB


def test_one_that_waits_for_its_bytes_counts_too() -> None:
    table = full(gpu_bytes=24 * GIB)
    stand(table, "voice", 16, owner="voice", devices=("U-gpu0",))
    assert refused(table.reserve, "a", 9, owner="voice", max_wait_seconds=9.0).held == 16 * GIB


def test_what_is_placed_into_one_counts_once() -> None:
    table = desk(gpu_bytes=16 * GIB)
    stand(table, "voice", 12, owner="voice", devices=("U-gpu0",))
    inside = {"within": "voice", "devices": ("U-gpu0",)}
    table.reserve("a", 8, owner="voice", instance="tiny-1", ttl_seconds=None, **inside)
    assert refused(table.reserve, "b", 5, owner="voice").held == 12 * GIB
    table.reserve("b", 4, owner="voice")
    table.reserve("c", 4, owner="voice", **inside)  # it takes nothing that was not counted
    table.wait("d", 4, owner="voice", **inside)
    table.release("b")
    table.reserve("b", 4, owner="voice")


# How many.


def test_as_many_reservations_as_the_smaller_of_both_limits() -> None:
    for policy, quota, key in (
        (2, 3, "policy.max_reservations_per_owner"),
        (3, 2, "quotas.default.reservations"),
        (0, 2, "quotas.default.reservations"),
        (2, 0, "policy.max_reservations_per_owner"),
    ):
        table = desk(reservations=quota, queue={"max_reservations_per_owner": policy})
        table.reserve("a", 20, device_count=2)
        table.wait("b", 20)
        error = refused(table.reserve, "c", 1)
        assert str(error) == (
            f"cannot give me more: 2 reservations and 1 asked exceed {key} = 2; "
            "release one (`gpuctl reservations`)"
        )
        assert (error.limit, error.held, error.asked) == (2, 2, 1)


def test_as_many_waiting_as_the_smaller_of_both_limits() -> None:
    for policy, quota, key in (
        (1, 2, "policy.max_queue_per_owner"),
        (2, 1, "quotas.default.queued"),
        (64, 1, "quotas.default.queued"),
        (1, 0, "policy.max_queue_per_owner"),
    ):
        table = desk(queued=quota, queue={"max_queued_per_owner": policy})
        table.reserve("a", 20, device_count=2)
        table.wait("b", 20)
        error = refused(table.reserve, "c", 20, max_wait_seconds=9.0)
        assert (error.limit_name, error.limit, error.held) == (key, 1, 1)
        assert "1 waiting requests and 1 asked exceed" in str(error)
        table.reserve("c", 1)  # one that need not wait


# A quota that became smaller, or a device that became larger.


def lowered(table: Desk, **quota: Any) -> None:
    """The daemon comes back with another configuration."""
    table.settings = bounded(**quota)
    table.restart()
    table.show(*table.cards)


def test_after_a_smaller_quota_what_is_held_stays_and_what_waits_waits_on() -> None:
    table = full(anna={"gpu_bytes": 24 * GIB})
    table.wait("a", 10, owner="anna")
    table.wait("b", 6, owner="anna")
    lowered(table, anna={"gpu_bytes": 8 * GIB})
    table.release("h")
    assert table.granted() == {"b"}
    assert "exceed quotas.anna.gpu_bytes = 8 GiB" in table.why("a")
    assert table.ledger.expected(table.held("a"), table.clock.now()) is None
    # Nothing is kept for it meanwhile, and nobody is ended for it.
    table.reserve("c", 18, owner="c")
    lowered(table, anna={"gpu_bytes": 16 * GIB})
    table.release("c")
    assert table.granted() == {"a", "b"}


def test_for_whom_its_quota_keeps_out_nobody_is_ended() -> None:
    ends = {"grace_seconds": 3.0, "min_tenure_seconds": 0.0}
    table = Desk(sample(0), settings=settled(preemption=ends))
    table.reserve("h", 24, owner="h", preemptible=True, priority=Priority.BATCH)
    quotas = QuotaSettings(owners={"anna": OwnerQuota(key="quotas.anna", gpu_bytes=8 * GIB)})
    table.wait("a", 16, owner="anna", priority=Priority.CRITICAL)
    assert table.held("h").notice is not None
    table.settings = settled(preemption=ends, quotas=quotas)
    table.restart()
    table.pass_seconds(10)
    assert table.granted() == {"h"}
    assert table.held("h").notice is None


def test_a_larger_device_that_came_meanwhile_is_not_given_beyond_the_quota() -> None:
    table = desk(sample(0), anna={"gpu_bytes": 24 * GIB})
    table.reserve("h", 1, owner="h")
    table.wait("a", 1, owner="anna", **EXCLUSIVE)
    table.show(*table.cards, sample(1, total=48 * GIB))
    assert table.granted() == {"h"}
    table.release("h")
    assert table.places("a") == ["gpu0"]


# Asked without reserving.


def test_explain_and_a_dry_run_say_the_same() -> None:
    table = desk(gpu_bytes=24 * GIB)
    table.reserve("a", 18)
    now = table.clock.now()
    error = refused(table.ledger.propose, asking(8), "x", now)
    told = table.ledger.explain(asking(8, max_wait_seconds=60.0), now)
    assert (told.fit, told.can_wait) == (None, False)
    assert isinstance(told.refusal, QuotaExceeded)
    assert str(told.refusal) == str(error)
    answer = explanation(told, asking(8))
    assert (answer.reason, answer.fits, answer.can_wait) == ("QUOTA_EXCEEDED", False, False)
    assert answer.summary.startswith(str(error))
    assert [each.alias for each in answer.devices] == ["gpu0", "gpu1"]
    assert table.ledger.explain(asking(6), now).fit is not None


def test_explain_says_when_leases_of_its_own_make_room() -> None:
    table = desk(gpu_bytes=20 * GIB, reservations=4)
    leases = (("long", 6, 600.0), ("short", 3, 16.0), ("tiny", 1, 16.0), ("middle", 8, 60.0))
    for id_, size, ttl in leases:
        table.reserve(id_, size, ttl_seconds=ttl)

    def told(gib: float) -> str:
        found = table.ledger.explain(asking(gib), table.clock.now())
        assert not found.can_wait
        return explanation(found, asking(gib)).summary

    # One of four has to end before a fifth; of the bytes as many as it takes.
    assert told(1).endswith("ask again in 16 s, when leases of its own have ended, unless renewed")
    table.pass_seconds(17.0)
    assert "14 GiB held and 10 GiB asked" in told(10)
    assert "; or ask again in 43 s" in told(10)
    assert "; or ask again in 583 s" in told(20)
    table.reserve("held", 1, ttl_seconds=None, instance="i")
    assert "ask again" not in told(20)


def test_more_than_the_quota_is_no_matter_of_what_is_held() -> None:
    table = desk(gpu_bytes=8 * GIB)
    told = str(refused(table.reserve, "a", 9, owner="anna"))
    assert told == (
        "cannot give anna more: 9 GiB asked exceed quotas.default.gpu_bytes = 8 GiB; "
        "ask for at most 8 GiB"
    )
    table.reserve("b", 1, owner="anna")
    told = str(refused(table.reserve, "c", 9, owner="anna"))
    assert "1 GiB held and 9 GiB asked exceed" in told
    assert told.endswith("ask for at most 8 GiB")
    found = table.ledger.explain(asking(9, owner="anna"), table.clock.now())
    assert found.room_in_seconds is None


def test_explain_knows_what_a_device_alone_takes() -> None:
    table = desk(gpu_bytes=20 * GIB)
    told = table.ledger.explain(asking(1, **EXCLUSIVE), table.clock.now())
    assert (told.fit, told.can_wait) == (None, False)
    assert isinstance(told.refusal, QuotaExceeded)
    assert told.refusal.asked == 24 * GIB


def test_explain_says_that_waiting_cannot_help_where_no_more_may_wait() -> None:
    for quota, kind in (({"queued": 1}, QuotaExceeded), ({"queue": {"max_queued": 1}}, QueueFull)):
        table = full(**quota)
        table.wait("a", 1)
        now = table.clock.now()
        told = table.ledger.explain(asking(1), now)
        assert isinstance(told.refusal, VramInsufficient)
        assert not told.can_wait
        told = table.ledger.explain(asking(1, max_wait_seconds=9.0), now)
        assert isinstance(told.refusal, kind)
        assert not told.can_wait
