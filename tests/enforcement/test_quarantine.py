"""A device whose verdict is fatal: cordoned once for each sign, across restarts."""

from __future__ import annotations

import asyncio

import pytest

from gpud.devices.snapshot import Action, Health, Verdict
from gpud.enforcement.quarantine import ACTOR, KIND, Quarantine, QuarantineSeams
from gpud.errors import DeviceUnavailable, StoreReadOnly
from gpud.ledger.books import Cordon
from gpud.ledger.change import Change
from gpud.promises.requests import Call
from gpud.store import Row
from tests.enforcement.office import GPU, Office


def fatal(*signs: str) -> Verdict:
    return Verdict(action=Action.RESET, reason="it is broken", is_fatal=True, signs=signs)


class Ward:
    """A quarantine in an office, and what it said is dealt with."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.settled: list[str] = []
        self.quarantine = Quarantine(
            QuarantineSeams(
                promises=office.promises,
                is_writable=lambda: not office.store.read_only_cause,
                settle=self.settled.append,
            )
        )

    def see(self, verdict: Verdict | None = None, **changes: object) -> None:
        """A snapshot in which gpu0 shows this."""
        self.office.change("gpu0", verdict=verdict or Verdict(), **changes)
        self.quarantine.observe(self.office.show())

    async def cordon(self) -> Cordon | None:
        await self.office.events()
        return self.office.promises.durable.cordons.get(GPU)

    async def lift(self) -> None:
        await self.office.promises.cordon(GPU, None, "anna", Call(method="UncordonDevice"))


@pytest.fixture
def ward(office: Office) -> Ward:
    return Ward(office)


async def test_a_fatal_verdict_cordons_and_is_told(ward: Ward) -> None:
    ward.see(Verdict(action=Action.RESTART_APP, reason="an application failed"))
    assert await ward.cordon() is None
    ward.see(fatal("recovery reset"))
    cordon = await ward.cordon()
    assert cordon is not None
    assert (cordon.actor, cordon.reason) == (
        ACTOR, "it is broken; reset it once nothing runs on it",
    )  # fmt: skip
    assert await ward.office.events("device.cordoned") == [("device.cordoned", cordon.reason)]
    with pytest.raises(DeviceUnavailable, match="cordoned"):
        await ward.office.reserve("r-1")


async def test_what_an_admin_lifts_is_not_cordoned_again_by_the_same_sign(ward: Ward) -> None:
    ward.see(fatal("remap failed"))
    assert await ward.cordon() is not None
    await ward.lift()
    ward.see(fatal("remap failed"))
    ward.see(fatal("remap failed"))
    assert await ward.cordon() is None
    assert ward.settled == [GPU]
    # Another one is news.
    ward.see(fatal("remap failed", "xid 79 #1"))
    assert await ward.cordon() is not None


async def test_the_same_error_once_more_is_another_sign(ward: Ward) -> None:
    ward.see(fatal("xid 79 #1"))
    await ward.lift()
    ward.see(fatal("xid 79 #1"))
    ward.see()  # it was settled
    ward.see(fatal("xid 79 #1"))
    assert await ward.cordon() is not None


async def test_a_sign_that_left_counts_anew_but_not_while_the_device_is_silent(
    ward: Ward,
) -> None:
    ward.see(fatal("recovery reset"))
    await ward.lift()
    ward.see(fatal("recovery reset"))
    ward.see(health=Health.UNRESPONSIVE)
    ward.see(fatal("recovery reset"), health=Health.HEALTHY)
    assert await ward.cordon() is None
    ward.see()
    ward.see(fatal("recovery reset"))
    assert await ward.cordon() is not None


async def test_a_restart_forgets_neither_the_cordon_nor_what_was_lifted(ward: Ward) -> None:
    ward.see(fatal("remap failed", "xid 48 #1"))
    await ward.lift()
    ward.see(fatal("remap failed"))
    await ward.office.events()
    assert ward.office.rows(KIND) == {GPU: {"signs": ["remap failed"]}}
    ward.office.promises.restore()
    again = Ward(ward.office)
    again.see(fatal("remap failed"))
    assert await again.cordon() is None
    # Errors are counted from 1 in each life.
    again.see(fatal("remap failed", "xid 48 #1"))
    assert await again.cordon() is not None
    third = Ward(ward.office)
    third.see(fatal("remap failed"))
    await third.lift()
    third.see(fatal("remap failed"))
    assert third.settled == [GPU]
    third.see()
    await third.office.events()
    assert third.office.rows(KIND) == {}


async def test_anothers_cordon_stays_and_gpuds_comes_after_it(ward: Ward) -> None:
    theirs = Cordon(reason="fan", actor="anna", wall=1.0)
    await ward.office.promises.cordon(GPU, theirs, "anna", Call(method="CordonDevice"))
    ward.see(fatal("remap failed"))
    assert await ward.cordon() == theirs
    await ward.lift()
    ward.see(fatal("remap failed"))
    cordon = await ward.cordon()
    assert cordon is not None
    assert (cordon.actor, ward.settled) == (ACTOR, [])


async def test_a_full_disk_puts_it_off(ward: Ward) -> None:
    store = ward.office.store
    ward.see()
    store.room_without_ballast, store.full = False, True
    large = Row(kind="thing", id="large", body=bytes(2**20))
    lost = ward.office.promises.commit(Change(), (large,))
    ward.see(fatal("remap failed"))  # goes to the disk with what does not fit
    with pytest.raises(StoreReadOnly):
        await lost
    assert ward.office.promises.ledger.books.cordons == {}
    ward.see(fatal("remap failed"))
    store.full = False
    assert await asyncio.to_thread(store.recovered.wait, 60)
    assert await ward.cordon() is None
    ward.see(fatal("remap failed"))
    assert await ward.cordon() is not None
