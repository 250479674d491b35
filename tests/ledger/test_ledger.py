"""What the ledger decides, one promise at a time."""

from __future__ import annotations

import pytest

from gpud.devices.snapshot import DeviceKind, Health, Sample
from gpud.errors import (
    DeviceUnavailable,
    GenerationMismatch,
    Reconciling,
    ReservationNotFound,
    SamplesStale,
    VramInsufficient,
    WrongState,
)
from gpud.ledger.admission.policy import LedgerSettings
from gpud.ledger.charge import Reserves
from gpud.ledger.ledger import Ledger
from gpud.ledger.reservation import Priority, Reservation, ReservationState, ReserveRequest
from gpud.units import GIB, MIB
from tests.fakes.cards import process, sample, snapshot
from tests.fakes.clock import FakeClock
from tests.ledger.desk import Desk, settled

SETTINGS = LedgerSettings(
    reserves=Reserves(device_bytes=GIB // 2, host_bytes=2 * GIB), release_deadline_seconds=10.0
)


class Bench:
    """A ledger, a clock, and the devices it is shown."""

    def __init__(self, *samples: Sample) -> None:
        self.clock = FakeClock()
        self.ledger = Ledger(SETTINGS)
        self.show(*(samples or (sample(0), sample(1))))

    def show(self, *samples: Sample) -> None:
        now = self.clock.now()
        self.ledger.observe(snapshot(*samples, boottime=now.boottime), now)

    def reserve(self, id_: str, size: int, **asked: object) -> Reservation:
        request = ReserveRequest(owner="me", bytes=size, **asked)  # type: ignore[arg-type]
        return self.ledger.reserve(request, id_, self.clock.now())[0]

    def grantable(self, alias: str = "gpu0") -> int | None:
        return self.ledger.charges()[f"U-{alias}"].grantable_bytes


def test_the_last_byte_fits_and_one_more_does_not() -> None:
    bench = Bench(sample(0))
    all_of_it = 24 * GIB - GIB // 2
    with pytest.raises(VramInsufficient) as refusal:
        bench.reserve("a", all_of_it + 1)
    assert refusal.value.never_fits
    bench.reserve("a", all_of_it)
    assert bench.grantable() == 0
    with pytest.raises(VramInsufficient) as refusal:
        bench.reserve("b", 1)
    assert not refusal.value.never_fits
    assert refusal.value.shortages[0].granted_bytes == all_of_it
    assert "granted 23.5 GiB" in str(refusal.value)


def test_best_fit_takes_the_fullest_that_still_carries_it() -> None:
    bench = Bench()
    assert bench.reserve("a", 4 * GIB).grants[0].device == "U-gpu0"
    assert bench.reserve("b", 4 * GIB).grants[0].device == "U-gpu0"
    assert bench.reserve("c", 20 * GIB).grants[0].device == "U-gpu1"


def test_several_devices_are_granted_together_or_not_at_all() -> None:
    bench = Bench()
    both = bench.reserve("a", 20 * GIB, device_count=2)
    assert [grant.device for grant in both.grants] == ["U-gpu0", "U-gpu1"]
    with pytest.raises(VramInsufficient):
        bench.reserve("b", 4 * GIB, device_count=2)
    assert bench.grantable("gpu0") == bench.grantable("gpu1") == int(3.5 * GIB)


def test_the_host_is_no_candidate_unless_asked_for() -> None:
    host = sample(kind=DeviceKind.HOST, total=64 * GIB)
    bench = Bench(sample(0), host)
    with pytest.raises(VramInsufficient):
        bench.reserve("a", 30 * GIB)
    assert bench.reserve("b", 30 * GIB, devices=("U-host",)).grants[0].device == "U-host"
    assert bench.reserve("c", GIB, device_kind=DeviceKind.HOST).grants[0].device == "U-host"


@pytest.mark.parametrize("health", [Health.LOST, Health.UNRESPONSIVE, Health.UNKNOWN])
def test_a_device_that_cannot_be_believed_grants_nothing(health: Health) -> None:
    bench = Bench(sample(0, health=health))
    with pytest.raises(DeviceUnavailable):
        bench.reserve("a", GIB)


def test_stale_samples_grant_nothing() -> None:
    bench = Bench(sample(0))
    bench.clock.advance(10.5)
    with pytest.raises(SamplesStale):
        bench.reserve("a", GIB)


def test_nothing_is_granted_before_the_first_snapshot() -> None:
    with pytest.raises(Reconciling):
        Ledger(SETTINGS).reserve(ReserveRequest(owner="me", bytes=1), "a", FakeClock().now())


def test_a_lease_ends_at_its_deadline_and_not_before() -> None:
    bench = Bench()
    bench.reserve("a", GIB, ttl_seconds=60.0)
    bench.clock.advance(59.9)
    assert not bench.ledger.expire(bench.clock.now())
    bench.clock.advance(0.2)
    (ended,) = bench.ledger.expire(bench.clock.now()).reservations
    assert ended.state is ReservationState.EXPIRED
    assert bench.grantable() == int(23.5 * GIB)


def test_a_renewal_moves_the_deadline_and_not_the_generation() -> None:
    bench = Bench()
    bench.reserve("a", GIB, ttl_seconds=60.0)
    bench.clock.advance(50)
    renewed, _ = bench.ledger.renew("a", 1, None, bench.clock.now())
    bench.clock.advance(50)
    assert not bench.ledger.expire(bench.clock.now())
    assert renewed.generation == 1


@pytest.mark.parametrize("step_seconds", [3600.0, -3600.0])
def test_setting_the_date_neither_ends_nor_stretches_a_lease(step_seconds: float) -> None:
    bench = Bench()
    bench.reserve("a", GIB, ttl_seconds=60.0)
    bench.clock.step_wall(step_seconds)
    assert not bench.ledger.expire(bench.clock.now())
    bench.clock.advance(61)
    assert bench.ledger.expire(bench.clock.now())


@pytest.mark.parametrize(("down_seconds", "left"), [(20.0, 40.0), (100.0, 0.0), (-7200.0, 60.0)])
def test_a_reboot_neither_refills_nor_forgets_a_lease(down_seconds: float, left: float) -> None:
    bench = Bench()
    reservation = bench.reserve("a", GIB, ttl_seconds=60.0)
    bench.clock.reboot(down_seconds)
    ledger = Ledger(SETTINGS)
    ledger.restore([reservation], (), bench.clock.now())
    deadline = ledger.books.reservations["a"].deadline
    assert deadline is not None
    assert deadline.remaining_seconds(bench.clock.now()) == pytest.approx(left)


@pytest.mark.parametrize(("down_seconds", "left"), [(5.0, 24.0), (100.0, 0.0), (-7200.0, 30.0)])
def test_a_reboot_leaves_a_notice_what_was_left_of_it(down_seconds: float, left: float) -> None:
    at_once = {"grace_seconds": 30.0, "min_tenure_seconds": 0.0}
    desk = Desk(sample(0), settings=settled(preemption=at_once))
    desk.reserve("v", 20, ttl_seconds=36_000.0, preemptible=True, priority=Priority.BATCH)
    desk.wait("head", 20, priority=Priority.CRITICAL)
    desk.clock.advance(0.999)
    desk.clock.reboot(down_seconds)
    desk.restart()
    notice = desk.held("v").notice
    assert notice is not None
    assert notice.deadline.remaining_seconds(desk.clock.now()) == pytest.approx(left)


def test_a_reboot_leaves_one_that_passed_its_time() -> None:
    """It may be renewed up to the moment from which the one that it passed may come in."""
    desk = Desk(sample(0))
    desk.reserve("a", 20, ttl_seconds=3600.0)
    desk.wait("head", 22)
    (passed,) = desk.reserve("p", 3, ttl_seconds=25.0).passes
    until = passed.deadline.wall
    desk.clock.reboot(5.0)
    desk.restart()
    desk.show(sample(0))
    renewed = desk.renew("p", 20.0).deadline
    assert renewed is not None
    left = min(20.0, until - desk.clock.wall)
    assert renewed.remaining_seconds(desk.clock.now()) == pytest.approx(left)
    assert left > 15


def test_release_of_an_unbound_promise_frees_in_the_same_step() -> None:
    bench = Bench()
    bench.reserve("a", GIB)
    released, _ = bench.ledger.release("a", 1, bench.clock.now())
    assert released.state is ReservationState.RELEASED
    assert bench.grantable() == int(23.5 * GIB)
    again, change = bench.ledger.release("a", None, bench.clock.now())
    assert again == released
    assert not change


def test_a_bound_promise_stays_booked_until_the_device_shows_its_bytes_back() -> None:
    bench = Bench(sample(0))
    bench.reserve("a", 8 * GIB)
    bench.show(sample(0, used=6 * GIB, processes=(process(1, 6 * GIB, "a"),)))
    released, _ = bench.ledger.release("a", None, bench.clock.now())
    assert released.state is ReservationState.RELEASING
    assert bench.grantable() == int(15.5 * GIB)
    assert bench.ledger.wants_list()
    bench.clock.advance(1)
    bench.show(sample(0, used=6 * GIB, processes=(), boottime=bench.clock.boottime))
    assert bench.ledger.books.reservations["a"].state is ReservationState.RELEASING
    bench.clock.advance(1)
    bench.show(sample(0, used=0, processes=(), boottime=bench.clock.boottime))
    assert bench.ledger.books.reservations["a"].state is ReservationState.RELEASED
    assert bench.grantable() == int(23.5 * GIB)


def test_bytes_that_do_not_come_back_are_leaked_and_told() -> None:
    bench = Bench(sample(0))
    bench.reserve("a", 8 * GIB)
    bench.show(sample(0, used=6 * GIB, processes=(process(1, 6 * GIB, "a"),)))
    bench.ledger.release("a", None, bench.clock.now())
    bench.clock.advance(11)
    stuck = sample(0, used=6 * GIB, processes=(), boottime=bench.clock.boottime)
    change = bench.ledger.observe(snapshot(stuck), bench.clock.now())
    assert "device.leaked" in [event.type for event in change.events]
    assert bench.ledger.charges()["U-gpu0"].leaked_bytes == 6 * GIB
    assert bench.grantable() == int(17.5 * GIB)
    bench.clock.advance(1)
    bench.show(sample(0, used=0, processes=(), boottime=bench.clock.boottime))
    assert bench.grantable() == int(23.5 * GIB)


def test_a_living_process_keeps_an_expired_promise_booked() -> None:
    bench = Bench(sample(0))
    bench.reserve("a", 8 * GIB, ttl_seconds=5.0)
    alive = (process(1, 6 * GIB, "a"),)
    bench.show(sample(0, used=6 * GIB, processes=alive))
    bench.clock.advance(6)
    bench.ledger.expire(bench.clock.now())
    bench.clock.advance(60)
    bench.show(sample(0, used=6 * GIB, processes=alive, boottime=bench.clock.boottime))
    assert bench.ledger.books.reservations["a"].state is ReservationState.RELEASING
    assert bench.grantable() == int(15.5 * GIB)


def test_the_residue_of_an_empty_card_is_absorbed_by_its_reserve() -> None:
    bench = Bench(sample(0, used=300 * MIB, processes=()))
    assert bench.grantable() == int(23.5 * GIB)
    bench = Bench(sample(0, used=3 * GIB, processes=()))
    assert bench.grantable() == 24 * GIB - 3 * GIB


def test_fencing() -> None:
    bench = Bench()
    bench.reserve("a", GIB)
    for act in (
        lambda: bench.ledger.release("a", 2, bench.clock.now()),
        lambda: bench.ledger.renew("a", 0, None, bench.clock.now()),
    ):
        with pytest.raises(GenerationMismatch):
            act()
    with pytest.raises(ReservationNotFound):
        bench.ledger.release("nobody", None, bench.clock.now())


def test_a_held_promise_is_ended_by_its_holder_alone() -> None:
    bench = Bench()
    held = bench.reserve("a", GIB, ttl_seconds=None, instance="tiny-1")
    with pytest.raises(WrongState, match="gpuctl unload tiny-1"):
        bench.ledger.release("a", None, bench.clock.now())
    with pytest.raises(WrongState):
        bench.ledger.renew("a", None, 60.0, bench.clock.now())
    bench.clock.advance(10**7)
    assert not bench.ledger.expire(bench.clock.now())
    assert held.deadline is None
    ended, _ = bench.ledger.release("a", None, bench.clock.now(), holder=True)
    assert ended.state is ReservationState.RELEASED


def test_what_ended_is_forgotten_after_ten_minutes() -> None:
    bench = Bench()
    bench.reserve("a", GIB)
    bench.ledger.release("a", None, bench.clock.now())
    bench.clock.advance(599)
    assert not bench.ledger.expire(bench.clock.now())
    bench.clock.advance(2)
    assert bench.ledger.expire(bench.clock.now()).forgotten == ("a",)


def test_a_lost_card_does_not_hold_an_ended_promise_for_ever() -> None:
    bench = Bench(sample(0))
    bench.reserve("a", 8 * GIB)
    alive = (process(1, 6 * GIB, "a"),)
    bench.show(sample(0, used=6 * GIB, processes=alive))
    bench.ledger.release("a", None, bench.clock.now())
    bench.clock.advance(11)
    bench.show(sample(0, used=6 * GIB, processes=alive, health=Health.LOST))
    assert bench.ledger.books.reservations["a"].state is ReservationState.RELEASED
    assert bench.ledger.charges()["U-gpu0"].leaked_bytes == 8 * GIB
    assert not bench.ledger.wants_list()


def listless(bench: Bench, used: int) -> Sample:
    """The card, which never lists, as it is now."""
    boottime = bench.clock.boottime
    return sample(0, used=used, processes=None, boottime=boottime, never_lists=True)


def test_a_card_that_refuses_lists_leaks_nothing_by_that() -> None:
    bench = Bench(sample(0, used=0, processes=None, never_lists=True))
    for id_ in ("a", "b", "c", "d"):
        bench.reserve(id_, 6 * GIB, ttl_seconds=None, instance=id_)
        bench.ledger.bind(id_)
        bench.show(listless(bench, 6 * GIB))
        bench.ledger.release(id_, None, bench.clock.now(), holder=True)
        bench.clock.advance(1)
        bench.show(listless(bench, 0))
        assert bench.ledger.books.reservations[id_].state is ReservationState.RELEASED
    assert bench.grantable() == int(23.5 * GIB)


def test_an_end_before_the_first_sample_invents_no_leak() -> None:
    bench = Bench(sample(0))
    reservation = bench.reserve("a", 8 * GIB, ttl_seconds=None, instance="i")
    bench.ledger.bind("a")
    ledger = Ledger(SETTINGS)
    ledger.restore([bench.ledger.books.reservations[reservation.id]], (), bench.clock.now())
    ledger.release("a", None, bench.clock.now(), holder=True)
    bench.clock.advance(11)
    own_residue = sample(0, used=400 * MIB, processes=(), boottime=bench.clock.boottime)
    ledger.observe(snapshot(own_residue), bench.clock.now())
    terms = ledger.charges()["U-gpu0"]
    assert terms.leaked_bytes == 0
    bench.clock.advance(1)
    again = sample(0, used=400 * MIB, processes=(), boottime=bench.clock.boottime)
    ledger.observe(snapshot(again), bench.clock.now())
    assert ledger.charges()["U-gpu0"].grantable_bytes == int(23.5 * GIB)


def test_a_lease_whose_expiry_waits_can_still_be_renewed() -> None:
    """After a stall or a sleep of the host its owner first gets time to renew."""
    bench = Bench()
    bench.reserve("a", GIB, ttl_seconds=30.0)
    bench.clock.advance(60)
    bench.ledger.renew("a", None, None, bench.clock.now())
    assert not bench.ledger.expire(bench.clock.now())


def test_renewals_leave_nothing_behind() -> None:
    bench = Bench()
    bench.reserve("a", GIB, ttl_seconds=30.0)
    for _ in range(1000):
        bench.clock.advance(1)
        bench.ledger.renew("a", None, None, bench.clock.now())
    assert len(bench.ledger.books._due) < 100
