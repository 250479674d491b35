"""A device whose verdict is fatal: cordoned once for each sign, across restarts."""

from __future__ import annotations

import asyncio

import pytest

from gpud.devices.snapshot import Action, DeviceKind, Health, Verdict
from gpud.devices.verdict.tally import Tally
from gpud.devices.verdict.verdict import xid_sign
from gpud.enforcement.quarantine import ACTOR, KIND, Quarantine, QuarantineSeams
from gpud.errors import DeviceUnavailable, StoreReadOnly
from gpud.ledger.books import Cordon
from gpud.ledger.change import Change
from gpud.promises.promises import encoded
from gpud.promises.requests import Call
from gpud.store import Row
from tests.enforcement.office import GPU, Office


def fatal(*signs: str) -> Verdict:
    return Verdict(action=Action.RESET, reason="it is broken", is_fatal=True, signs=signs)


class Ward:
    """A quarantine in an office, and what it said is dealt with."""

    def __init__(self, office: Office, boot_id: str = "boot-1") -> None:
        self.office = office
        self.settled: list[str] = []
        self.tally = Tally()
        self.quarantine = Quarantine(
            QuarantineSeams(
                promises=office.promises,
                boot_id=boot_id,
                is_writable=lambda: not office.store.read_only_cause,
                settle=self.settle,
                open_xids=self.tally.still_open,
                restore_xids=self.tally.restore,
            )
        )
        self.quarantine.restore()

    def settle(self, uuid: str) -> None:
        self.settled.append(uuid)
        self.tally.settle(uuid)

    def report(self, *numbers: int) -> None:
        """The driver of gpu0 tells errors, and the next snapshot what speaks against it."""
        self.tally.take(GPU, numbers, 1.0)
        self.see_errors()

    def see_errors(self) -> None:
        still = self.tally.still_open(GPU).items()
        signs = tuple(xid_sign(number, each) for number, each in still)
        self.see(fatal(*signs) if signs else None)

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


async def test_a_slice_that_is_gone_is_not_cordoned_for_its_card(ward: Ward) -> None:
    ward.office.become("gpu0", DeviceKind.MIG)
    ward.see(fatal("xid 79 #1"), health=Health.LOST, vanished_boottime=1.0)
    assert await ward.cordon() is None
    ward.see(fatal("xid 79 #1"), health=Health.HEALTHY, vanished_boottime=None)
    assert await ward.cordon() is not None


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


async def test_a_device_that_was_forgotten_is_judged_anew_once_it_is_back(ward: Ward) -> None:
    ward.see(fatal("remap failed"))
    await ward.lift()
    ward.see(fatal("remap failed"))
    card = ward.office.samples.pop("gpu0")
    again = Ward(ward.office)
    again.quarantine.observe(ward.office.show())  # it may only not have been read yet
    ward.quarantine.observe(ward.office.show())
    await ward.office.events()
    assert ward.office.rows(KIND) == {}
    ward.office.samples["gpu0"] = card
    again.see(fatal("remap failed"))
    assert await ward.cordon() is None
    ward.see(fatal("remap failed"))
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


async def test_an_error_speaks_against_a_device_after_a_restart_until_it_is_dealt_with(
    ward: Ward,
) -> None:
    ward.report(79, 79)
    cordon = await ward.cordon()
    again = Ward(ward.office)
    assert again.tally.counts(GPU) == {79: 2}
    assert again.tally.still_open(GPU) == ward.tally.still_open(GPU)
    again.see_errors()
    assert await again.cordon() == cordon  # the same one: it is no news
    again.report(79)
    assert await again.cordon() is not None
    await again.lift()
    again.see_errors()
    again.see_errors()
    await again.office.events()
    assert again.office.rows(KIND) == {}
    assert Ward(ward.office).tally.counts(GPU) == {}


async def test_an_error_under_anothers_cordon_is_kept_as_well(ward: Ward) -> None:
    theirs = Cordon(reason="fan", actor="anna", wall=1.0)
    await ward.office.promises.cordon(GPU, theirs, "anna", Call(method="CordonDevice"))
    ward.report(79)
    assert await ward.cordon() == theirs
    again = Ward(ward.office)
    assert again.tally.counts(GPU) == {79: 1}
    await again.lift()
    again.see_errors()
    cordon = await again.cordon()
    assert cordon is not None
    assert cordon.actor == ACTOR


async def test_another_boot_and_who_lifted_the_cordon_end_an_error(ward: Ward) -> None:
    ward.tally.take(GPU, (79,), 1.0)
    ward.see(fatal("remap failed", "xid 79 #1"))
    assert await ward.cordon() is not None
    (kept,) = ward.office.rows(KIND).values()
    rebooted = Ward(ward.office, "boot-2")
    assert rebooted.tally.counts(GPU) == {}
    await ward.office.events()
    assert ward.office.rows(KIND) == {GPU: {"signs": ["remap failed"]}}
    # As if gpud had ended between the cordon's end and what follows from it.
    ward.office.promises.keep((Row(kind=KIND, id=GPU, body=encoded(kept)),))
    await ward.lift()
    assert Ward(ward.office).tally.counts(GPU) == {}


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
