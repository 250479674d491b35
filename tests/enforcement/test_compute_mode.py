"""The driver's compute mode: set, verified, remembered and restored, whatever happens between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gpud.devices.driver import ModeOutcome, ModeRefusal
from gpud.devices.snapshot import DeviceKind
from gpud.enforcement.compute_mode import (
    EXCLUSIVE,
    GIVE_UP_SECONDS,
    RETRY_FIRST_SECONDS,
    ModeKeeper,
    ModeSeams,
)
from gpud.errors import StoreReadOnly
from gpud.ledger.change import Change
from gpud.ledger.reservation import Enforcement, ReservationState
from gpud.store import Row
from tests.enforcement.office import GPU, Office
from tests.fakes.cards import sample

LEDGER, DRIVER = {Enforcement.LEDGER}, {Enforcement.DRIVER}
OTHER = sample(1).info.uuid


class Died(Exception):
    """The daemon, at this very point."""


class Cards:
    """What the driver does: it sets modes, unless the test says otherwise."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.modes = dict.fromkeys((GPU, OTHER), "default")
        self.orders: list[tuple[str, str]] = []
        self.refusal: ModeRefusal | None = None
        self.is_applied = True
        self.before: Callable[[], None] = lambda: None
        self.sync()

    async def set(self, uuid: str, mode: str) -> ModeOutcome:
        self.orders.append((uuid, mode))
        self.before()
        if self.refusal is ModeRefusal.NO_ANSWER:
            return ModeOutcome(refusal=self.refusal)
        if self.refusal is None and self.is_applied:
            self.modes[uuid] = mode
        return ModeOutcome(shown=self.modes[uuid], refusal=self.refusal)

    def sync(self) -> None:
        """Samples show the modes as they are."""
        self.office.set_mode("gpu0", self.modes[GPU])
        self.office.set_mode("gpu1", self.modes[OTHER])
        self.office.show()


def keeper(office: Office, cards: Cards, *, is_on: bool = True) -> ModeKeeper:
    seams = ModeSeams(
        promises=office.promises,
        store=office.store,
        snapshots=office.feed,
        clock=office.clock,
        set_mode=cards.set,
    )
    return ModeKeeper(seams, is_on=is_on)


async def tick(office: Office, cards: Cards, modes: ModeKeeper) -> None:
    cards.sync()
    assert office.feed.latest is not None
    await modes.reconcile(office.feed.latest)


async def test_it_is_set_verified_remembered_and_restored(office: Office) -> None:
    cards = Cards(office)
    modes = keeper(office, cards)

    def row_is_durable() -> None:
        assert office.rows("compute_mode")[GPU]["mode"] == "default"  # type: ignore[index]

    cards.before = row_is_durable
    held = await office.reserve("a", exclusive=True)
    assert await modes.enforce(held) is Enforcement.DRIVER
    assert cards.modes == {GPU: EXCLUSIVE, OTHER: "default"}
    assert office.enforcement("a") == DRIVER
    # While it stands nothing is touched; at its end the former mode comes back, then the row goes.
    await tick(office, cards, modes)
    assert len(cards.orders) == 1
    await office.release("a")
    await tick(office, cards, modes)
    assert cards.modes[GPU] == "default"
    assert office.rows("compute_mode") == {}
    told = await office.events("device.compute_mode")
    assert [type_ for type_, _ in told] == ["device.compute_mode"] * 2
    details = await office.details("device.compute_mode")
    assert [(each["from"], each["to"]) for each in details] == [
        ("default", EXCLUSIVE), (EXCLUSIVE, "default"),
    ]  # fmt: skip


async def test_a_mode_other_than_the_default_is_what_comes_back(office: Office) -> None:
    cards = Cards(office)
    cards.modes[GPU] = "exclusive_thread"
    cards.sync()
    modes = keeper(office, cards)
    await modes.enforce(await office.reserve("a", exclusive=True))
    await office.release("a")
    await tick(office, cards, modes)
    assert cards.modes[GPU] == "exclusive_thread"


async def test_shared_promises_and_a_policy_that_is_off_set_nothing(office: Office) -> None:
    cards = Cards(office)
    assert await keeper(office, cards).enforce(await office.reserve("a")) is Enforcement.LEDGER
    await office.release("a")
    off = keeper(office, cards, is_on=False)
    assert await off.enforce(await office.reserve("b", exclusive=True)) is Enforcement.LEDGER
    await tick(office, cards, off)
    assert cards.orders == []


async def test_a_policy_turned_off_restores_what_was_set(office: Office) -> None:
    cards = Cards(office)
    await keeper(office, cards).enforce(await office.reserve("a", exclusive=True))
    await tick(office, cards, keeper(office, cards, is_on=False))
    assert cards.modes[GPU] == "default"
    assert office.enforcement("a") == LEDGER
    assert office.rows("compute_mode") == {}


@pytest.mark.parametrize("refusal", [ModeRefusal.NOT_PERMITTED, ModeRefusal.NOT_SUPPORTED])
async def test_a_refusal_for_good_is_told_once_and_not_tried_again(
    office: Office, refusal: ModeRefusal
) -> None:
    cards = Cards(office)
    cards.refusal = refusal
    modes = keeper(office, cards)
    held = await office.reserve("a", exclusive=True)
    assert await modes.enforce(held) is Enforcement.LEDGER
    for _ in range(3):
        office.clock.advance(1000)
        await tick(office, cards, modes)
    assert len(cards.orders) == 1
    assert office.enforcement("a") == LEDGER
    assert office.rows("compute_mode") == {}
    ((_, reason),) = await office.events("device.compute_mode_refused")
    assert refusal.value in reason
    # Another promise is another try: the right may have been given meanwhile.
    await office.release("a")
    cards.refusal = None
    assert await modes.enforce(await office.reserve("b", exclusive=True)) is Enforcement.DRIVER


async def test_accepted_but_not_applied_is_not_enforced(office: Office) -> None:
    cards = Cards(office)
    cards.is_applied = False
    modes = keeper(office, cards)
    assert await modes.enforce(await office.reserve("a", exclusive=True)) is Enforcement.LEDGER
    ((_, reason),) = await office.events("device.compute_mode_refused")
    assert "accepted it, but the device shows default" in reason
    assert office.rows("compute_mode") == {}
    # It may pass: tried again after a while, and noted then.
    cards.is_applied = True
    await tick(office, cards, modes)
    office.clock.advance(RETRY_FIRST_SECONDS)
    await tick(office, cards, modes)
    assert office.enforcement("a") == DRIVER


async def test_what_was_exclusive_before_stays_so_and_counts(office: Office) -> None:
    cards = Cards(office)
    cards.modes[GPU] = EXCLUSIVE
    cards.refusal = ModeRefusal.NOT_PERMITTED
    cards.sync()
    modes = keeper(office, cards)
    assert await modes.enforce(await office.reserve("a", exclusive=True)) is Enforcement.DRIVER
    assert office.rows("compute_mode") == {}
    await office.release("a")
    await tick(office, cards, modes)
    assert cards.modes[GPU] == EXCLUSIVE


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (DeviceKind.SIMULATED, "a simulated card keeps nobody off"),
        (DeviceKind.MIG, "a MIG slice has no mode"),
    ],
)
async def test_a_device_without_modes_is_not_asked(
    office: Office, kind: DeviceKind, why: str
) -> None:
    office.become("gpu0", kind)
    cards = Cards(office)
    modes = keeper(office, cards)
    held = await office.reserve("a", exclusive=True)
    for _ in range(2):
        assert await modes.enforce(held) is Enforcement.LEDGER
        await tick(office, cards, modes)
    assert cards.orders == []
    ((_, reason),) = await office.events("device.compute_mode_refused")
    assert why in reason


async def test_one_device_of_two_that_refuses_leaves_the_ledger_alone(office: Office) -> None:
    cards = Cards(office)
    modes = keeper(office, cards)
    held = await office.reserve("a", exclusive=True, devices=(GPU, OTHER), device_count=2)
    office.become("gpu1", DeviceKind.SIMULATED)
    cards.sync()
    assert await modes.enforce(held) is Enforcement.LEDGER
    assert office.enforcement("a") == LEDGER
    # What was set keeps others off as long as the promise stands, and is restored all the same.
    assert cards.modes[GPU] == EXCLUSIVE
    await office.release("a")
    await tick(office, cards, modes)
    assert cards.modes[GPU] == "default"


async def test_a_crash_after_the_set_is_restored_by_the_next_life(
    office: Office, tmp_path: Path
) -> None:
    cards = Cards(office)
    await keeper(office, cards).enforce(await office.reserve("a", exclusive=True))
    # The next life knows what the disk knows; first the promise still stands.
    await tick(office, cards, keeper(office, cards))
    assert (cards.modes[GPU], len(cards.orders)) == (EXCLUSIVE, 1)
    await office.release("a")
    await tick(office, cards, keeper(office, cards))
    assert cards.modes[GPU] == "default"
    assert office.rows("compute_mode") == {}


async def test_a_crash_between_the_row_and_the_set_leaves_nothing(office: Office) -> None:
    cards = Cards(office)

    def die() -> None:
        raise Died

    cards.before = die
    held = await office.reserve("a", exclusive=True)
    with pytest.raises(ExceptionGroup):
        await keeper(office, cards).enforce(held)
    assert GPU in office.rows("compute_mode")
    cards.before = lambda: None
    await office.release("a")
    orders = len(cards.orders)
    await tick(office, cards, keeper(office, cards))
    assert office.rows("compute_mode") == {}
    assert len(cards.orders) == orders  # it shows its former mode: nothing to set


async def test_a_grant_whose_enforcement_never_began_is_enforced_by_the_next_life(
    office: Office,
) -> None:
    cards = Cards(office)
    await office.reserve("a", exclusive=True)
    await tick(office, cards, keeper(office, cards))
    assert cards.modes[GPU] == EXCLUSIVE
    assert office.enforcement("a") == DRIVER


async def test_no_answer_keeps_the_row_until_a_restore_is_seen(office: Office) -> None:
    cards = Cards(office)
    cards.refusal = ModeRefusal.NO_ANSWER
    modes = keeper(office, cards)
    assert await modes.enforce(await office.reserve("a", exclusive=True)) is Enforcement.LEDGER
    await office.release("a")
    # The device shows its former mode, but the order may still come to be: it is set anew.
    await tick(office, cards, modes)
    assert cards.orders[-1] == (GPU, "default")
    assert GPU in office.rows("compute_mode")
    cards.modes[GPU] = EXCLUSIVE  # as it now does
    cards.refusal = None
    office.clock.advance(RETRY_FIRST_SECONDS)
    await tick(office, cards, modes)
    assert cards.modes[GPU] == "default"
    assert office.rows("compute_mode") == {}


async def test_a_restore_that_fails_is_tried_until_it_succeeds(office: Office) -> None:
    cards = Cards(office)
    modes = keeper(office, cards)
    await modes.enforce(await office.reserve("a", exclusive=True))
    await office.release("a")
    cards.refusal = ModeRefusal.FAILED
    for _ in range(3):
        await tick(office, cards, modes)
        office.clock.advance(60)
    assert GPU in office.rows("compute_mode")
    assert len(await office.events("device.compute_mode_refused")) == 1
    cards.refusal = None
    office.clock.advance(600)
    await tick(office, cards, modes)
    assert cards.modes[GPU] == "default"
    assert office.rows("compute_mode") == {}


@pytest.mark.parametrize("since", ["default", EXCLUSIVE])
async def test_a_reboot_resets_modes_and_the_row_goes(office: Office, since: str) -> None:
    cards = Cards(office)
    modes = keeper(office, cards)
    await modes.enforce(await office.reserve("a", exclusive=True))
    await office.release("a")
    office.clock.reboot()
    cards.modes[GPU] = since  # exclusive: by whoever set it in this boot
    orders = len(cards.orders)
    await tick(office, cards, keeper(office, cards))
    assert office.rows("compute_mode") == {}
    assert len(cards.orders) == orders


async def test_after_a_reboot_the_mode_then_is_the_former_one(office: Office) -> None:
    cards = Cards(office)
    await keeper(office, cards).enforce(await office.reserve("a", exclusive=True))
    office.clock.reboot()
    cards.modes[GPU] = "exclusive_thread"
    modes = keeper(office, cards)
    await tick(office, cards, modes)
    assert cards.modes[GPU] == EXCLUSIVE
    await office.release("a")
    await tick(office, cards, modes)
    assert cards.modes[GPU] == "exclusive_thread"


async def test_what_somebody_else_sets_meanwhile(office: Office) -> None:
    cards = Cards(office)
    modes = keeper(office, cards)
    await modes.enforce(await office.reserve("a", exclusive=True))
    # While it is somebody's alone it is put right again.
    cards.modes[GPU] = "default"
    await tick(office, cards, modes)
    assert cards.modes[GPU] == EXCLUSIVE
    # Afterwards a mode that is neither ours nor the former one is left as it is.
    await office.release("a")
    cards.modes[GPU] = "prohibited"
    await tick(office, cards, modes)
    assert cards.modes[GPU] == "prohibited"
    assert office.rows("compute_mode") == {}


async def test_what_drifts_and_cannot_be_put_right_is_no_longer_called_enforced(
    office: Office,
) -> None:
    cards = Cards(office)
    modes = keeper(office, cards)
    await modes.enforce(await office.reserve("a", exclusive=True))
    cards.modes[GPU] = "default"
    cards.refusal = ModeRefusal.NOT_PERMITTED
    await tick(office, cards, modes)
    assert office.enforcement("a") == LEDGER


async def test_a_stale_or_unknown_mode_is_not_built_upon(office: Office) -> None:
    cards = Cards(office)
    modes = keeper(office, cards)
    held = await office.reserve("a", exclusive=True)
    office.set_mode("gpu0", None)
    office.show()
    assert await modes.enforce(held) is Enforcement.LEDGER
    cards.sync()
    office.clock.advance(11)
    assert await modes.enforce(held) is Enforcement.LEDGER
    assert cards.orders == []
    reasons = [reason for _, reason in await office.events("device.compute_mode_refused")]
    assert ["does not tell its mode" in reasons[0], "too old" in reasons[1]] == [True, True]


async def test_granted_again_before_it_was_restored(office: Office) -> None:
    cards = Cards(office)
    modes = keeper(office, cards)
    await modes.enforce(await office.reserve("a", exclusive=True))
    await office.release("a")
    await office.reserve("b", exclusive=True)
    await tick(office, cards, modes)
    assert cards.modes[GPU] == EXCLUSIVE
    assert office.enforcement("b") == DRIVER
    await office.release("b")
    await tick(office, cards, modes)
    assert cards.modes[GPU] == "default"


async def test_without_a_disk_nothing_is_set(office: Office) -> None:
    cards = Cards(office)
    modes = keeper(office, cards)
    held = await office.reserve("a", exclusive=True)
    office.store.room_without_ballast = False
    office.store.full = True
    large = Row(kind="thing", id="large", body=bytes(2**20))
    with pytest.raises(StoreReadOnly):
        await office.promises.commit(Change(), (large,))
    assert await modes.enforce(held) is Enforcement.LEDGER
    assert cards.orders == []


async def test_who_waited_for_the_driver_or_nothing_has_nothing(office: Office) -> None:
    cards = Cards(office)
    cards.refusal = ModeRefusal.NOT_PERMITTED
    required = {"require_enforcement": Enforcement.DRIVER, "exclusive": True}
    await office.reserve("a", **required)  # type: ignore[arg-type]
    # As one that was granted out of the queue: nobody but the loop looks after it.
    await tick(office, cards, keeper(office, cards))
    ended = office.promises.durable.reservations["a"]
    assert ended.state is ReservationState.REVOKED
    assert ended.reason.startswith("cannot keep others off devices/U-gpu0 by its driver")
    ((_, reason),) = await office.events("reservation.unenforced")
    assert "required enforcement by the driver" in reason
    cards.refusal = None
    await office.reserve("b", **required)  # type: ignore[arg-type]
    await tick(office, cards, keeper(office, cards))
    assert office.enforcement("b") == DRIVER


@pytest.mark.parametrize("is_stale", [False, True])
async def test_what_may_pass_is_tried_again_before_anything_is_released(
    office: Office, is_stale: bool
) -> None:
    cards = Cards(office)
    cards.refusal = None if is_stale else ModeRefusal.NO_ANSWER
    modes = keeper(office, cards)
    await office.reserve("a", exclusive=True, require_enforcement=Enforcement.DRIVER)
    if is_stale:
        assert office.feed.latest is not None
        office.clock.advance(11.0)  # since the newest sample
        await modes.reconcile(office.feed.latest)
    else:
        await tick(office, cards, modes)
    assert office.promises.durable.reservations["a"].state is ReservationState.GRANTED
    cards.refusal = None
    office.clock.advance(RETRY_FIRST_SECONDS)
    await tick(office, cards, modes)
    assert office.enforcement("a") == DRIVER


async def test_what_does_not_pass_within_the_bound_is_released(office: Office) -> None:
    cards = Cards(office)
    cards.refusal = ModeRefusal.NO_ANSWER
    modes = keeper(office, cards)
    await office.reserve("a", exclusive=True, require_enforcement=Enforcement.DRIVER)
    await tick(office, cards, modes)
    begin = office.clock.boottime
    held = office.promises.durable.reservations
    while held["a"].state is ReservationState.GRANTED:
        assert office.clock.boottime <= begin + GIVE_UP_SECONDS + 1
        await tick(office, cards, modes)
    assert office.clock.boottime >= begin + GIVE_UP_SECONDS
    ((_, reason),) = await office.events("reservation.unenforced")
    assert "required enforcement by the driver" in reason


async def test_nothing_is_kept_of_devices_that_are_gone(office: Office) -> None:
    cards = Cards(office)
    cards.refusal = ModeRefusal.NOT_PERMITTED
    modes = keeper(office, cards)
    await modes.enforce(await office.reserve("a", exclusive=True))
    await office.release("a")
    assert set(modes._devices) == {GPU}
    del office.samples["gpu0"]
    snapshot = office.show()
    await modes.reconcile(snapshot)
    assert not modes._devices


async def test_of_a_device_that_is_gone_its_former_mode_is_kept(office: Office) -> None:
    cards = Cards(office)
    modes = keeper(office, cards)
    await modes.enforce(await office.reserve("a", exclusive=True))
    await office.release("a")
    gone = office.samples.pop("gpu0")
    await modes.reconcile(office.show())
    assert GPU in office.rows("compute_mode")
    office.samples["gpu0"] = gone
    await tick(office, cards, modes)
    assert cards.modes[GPU] == "default"
