"""In no history has an owner more than its quota, and a refusal tells what the owner has."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from gpud.devices.snapshot import DeviceKind
from gpud.errors import GpudError, QuotaExceeded
from gpud.ledger.admission.policy import OwnerQuota, QuotaSettings
from gpud.ledger.reservation import Priority, Reservation, Shape, Sharing
from tests.fakes.cards import GIB, process, sample
from tests.ledger.desk import HOST, Desk, settled

OWNERS = ("anna", "bert")
LIMITS = {"anna": (20 * GIB, 6 * GIB), "bert": (30 * GIB, 70 * GIB)}
MACHINE = settled(
    preemption={"grace_seconds": 3.0, "min_tenure_seconds": 2.0},
    queue={"max_queued": 12},
    quotas=QuotaSettings(
        owners={
            name: OwnerQuota(key=name, gpu_bytes=gpu, host_bytes=host)
            for name, (gpu, host) in LIMITS.items()
        }
    ),
)
SIZES = st.sampled_from([0.5, 1, 3, 6, 9, 12, 20, 24])
ASKED = st.fixed_dictionaries(
    {
        "owner": st.sampled_from(OWNERS),
        "device_count": st.sampled_from([1, 1, 2]),
        "devices": st.sampled_from([(), (), ("U-gpu0",), ("U-gpu0", "U-host"), ("U-host",)]),
        "device_kind": st.sampled_from([None, None, None, DeviceKind.HOST]),
        "alternatives": st.sampled_from(
            [
                (),
                (Shape(bytes=GIB),),
                (Shape(bytes=15 * GIB), Shape(bytes=2 * GIB, device_count=2)),
            ]
        ),
        "sharing": st.sampled_from([Sharing.SHARED] * 3 + [Sharing.EXCLUSIVE]),
        "priority": st.sampled_from(Priority),
        "preemptible": st.booleans(),
        "ttl_seconds": st.sampled_from([5.0, 600.0]),
        "max_wait_seconds": st.sampled_from([0.0, 20.0, None]),
        "host_bytes": st.sampled_from([0, 0, 0, GIB, 4 * GIB]),
    }
)


class QuotaMachine(RuleBasedStateMachine):
    """Two owners, two cards of different sizes and the host; counted by what is on the disk."""

    def __init__(self) -> None:
        super().__init__()
        self.cards = (sample(0), sample(1, total=32 * GIB), HOST)
        self.desk = Desk(*self.cards, settings=MACHINE)
        self.made = 0

    @rule(size=SIZES, asked=ASKED)
    def reserve(self, size: float, asked: dict[str, Any]) -> None:
        self.made += 1
        before = self.held(asked["owner"])
        try:
            self.desk.reserve(f"r{self.made}", size, **asked)
        except QuotaExceeded as error:
            self.is_told_right(error, before)
        except GpudError:
            pass

    def is_told_right(self, error: QuotaExceeded, before: tuple[int, int]) -> None:
        assert error.limit in LIMITS[error.owner]
        assert error.held + error.asked > error.limit
        held = before[LIMITS[error.owner].index(error.limit)]
        waits = any(each.queued and each.owner == error.owner for each in self.all())
        assert error.held >= held if waits else error.held == held

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        alive = [held.id for held in self.all() if held.queued or held.booked]
        if alive:
            self.desk.release(data.draw(st.sampled_from(alive)))

    @rule(seconds=st.sampled_from([1.0, 6.0]), used=st.sampled_from([0, 0, 5, 20]))
    def pass_seconds(self, seconds: float, used: int) -> None:
        """Time, in which a stranger comes to the first card or goes."""
        strangers = (process(7, used * GIB),) if used else ()
        first = sample(0, used=used * GIB, processes=strangers)
        self.desk.show(first, *self.cards[1:])
        self.desk.pass_seconds(seconds)

    @rule(larger=st.booleans())
    def another_card(self, larger: bool) -> None:
        more = (sample(2, total=48 * GIB),) if larger else ()
        self.cards = (*self.cards[:2], HOST, *more)
        self.desk.show(*self.cards)

    @rule()
    def restart(self) -> None:
        self.desk.restart()
        self.desk.show(*self.cards)

    def all(self) -> list[Reservation]:
        return list(self.desk.ledger.books.reservations.values())

    def held(self, owner: str) -> tuple[int, int]:
        """Bytes of devices and of the host, summed from the reservations alone."""
        grants = [g for each in self.all() if each.booked and each.owner == owner
                  for g in each.grants]  # fmt: skip
        host = sum(grant.bytes for grant in grants if grant.device == "U-host")
        return sum(grant.bytes for grant in grants) - host, host

    @invariant()
    def nobody_has_more_than_its_quota(self) -> None:
        for owner, limits in LIMITS.items():
            for held, limit in zip(self.held(owner), limits, strict=True):
                assert held <= limit, f"{owner} has {held} of {limit}"


def test_in_no_history_an_owner_has_more_than_its_quota() -> None:
    searched = examples(
        max_examples=60,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(QuotaMachine, settings=searched)
