"""What each process on a device is, and who takes more than was promised."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from gpud.clock import Moment
from gpud.devices.snapshot import DeviceKind, ProcessUse, Sample
from gpud.enforcement.relations import (
    OVERUSE_SLACK_BYTES,
    Relation,
    belonging,
    overuses,
    relations,
    slices_of,
)
from gpud.ledger.books import Books
from gpud.ledger.reservation import (
    Grant,
    Reservation,
    ReservationState,
    ReserveRequest,
    Sharing,
)
from tests.enforcement.office import GIB, process
from tests.fakes import cards

NOW = Moment(boot_id="boot-1", boottime=1000.0, wall=1.7e9)
GPU, OTHER, HOST = "U-gpu0", "U-gpu1", "U-host"
OWNER, ATTACHED = Relation.OWNER, Relation.ATTACHED
FOREIGN, TRESPASSER = Relation.FOREIGN, Relation.TRESPASSER


def held(
    id_: str,
    *devices: str,
    exclusive: bool = False,
    state: ReservationState = ReservationState.GRANTED,
    within: str | None = None,
    size: int = 4 * GIB,
) -> Reservation:
    request = ReserveRequest(
        owner="me",
        bytes=size,
        sharing=Sharing.EXCLUSIVE if exclusive else Sharing.SHARED,
        within=within,
    )
    grants = tuple(Grant(device=uuid, bytes=size) for uuid in devices)
    return structs.replace(Reservation.asked(id_, request, NOW), state=state, grants=grants)


def books(*reservations: Reservation) -> Books:
    made = Books()
    for each in reservations:
        made.put(each)
    return made


def related(
    book: Books, listed: ProcessUse, sample: Sample | None = None
) -> tuple[Relation, str | None, str | None]:
    device = replace(sample or cards.sample(0), processes=(listed,))
    (found,) = relations(device, book)
    return found.relation, found.reservation, found.against


MINE = process(7, claim="mine")
NOBODYS = process(8)


@pytest.mark.parametrize(
    ("promises", "listed", "expected"),
    [
        # On a device that is shared, or nobody's.
        ([], NOBODYS, (FOREIGN, None, None)),
        ([held("mine", GPU)], MINE, (OWNER, "mine", None)),
        ([held("mine", GPU)], process(7, claim="mine", attached=True), (ATTACHED, "mine", None)),
        ([held("mine", GPU)], NOBODYS, (FOREIGN, None, None)),
        # A live promise that leaves this device out.
        ([held("mine", OTHER)], MINE, (TRESPASSER, "mine", None)),
        ([held("mine", OTHER)], process(7, claim="mine", attached=True),
         (TRESPASSER, "mine", None)),
        # A promise that waits, has ended, or never was, is none.
        ([held("mine", state=ReservationState.QUEUED)], MINE, (FOREIGN, None, None)),
        ([held("mine", GPU, state=ReservationState.EXPIRED)], MINE, (FOREIGN, None, None)),
        ([], MINE, (FOREIGN, None, None)),
        # Its bytes are still booked while it is released.
        ([held("mine", GPU, state=ReservationState.RELEASING)], MINE, (OWNER, "mine", None)),
        # On a device that is somebody's alone.
        ([held("mine", GPU, exclusive=True)], MINE, (OWNER, "mine", None)),
        ([held("mine", GPU, exclusive=True)], NOBODYS, (TRESPASSER, None, "mine")),
        ([held("its", GPU, exclusive=True), held("mine", OTHER)], MINE,
         (TRESPASSER, "mine", "its")),
        ([held("its", GPU, exclusive=True),
          held("mine", GPU, state=ReservationState.RELEASED)], MINE, (TRESPASSER, None, "its")),
        ([held("its", OTHER, exclusive=True)], NOBODYS, (FOREIGN, None, None)),
        # Placed into a standing reservation.
        ([held("its", GPU, exclusive=True), held("mine", GPU, within="its")], MINE,
         (OWNER, "mine", None)),
    ],
)  # fmt: skip
def test_on_a_card(
    promises: list[Reservation],
    listed: ProcessUse,
    expected: tuple[Relation, str | None, str | None],
) -> None:
    assert related(books(*promises), listed) == expected


def test_nobody_trespasses_on_the_hosts_memory() -> None:
    host = cards.sample(kind=DeviceKind.HOST)
    book = books(held("mine", GPU), held("its", HOST, exclusive=True))
    assert related(book, MINE, host) == (FOREIGN, "mine", None)
    assert related(book, NOBODYS, host) == (FOREIGN, None, None)
    assert related(book, process(9, claim="its"), host) == (OWNER, "its", None)


def test_a_card_in_mig_mode_is_its_slices() -> None:
    card = cards.sample(0)
    card = replace(
        card,
        processes=(MINE, NOBODYS, process(9, claim="else")),
        readings=card.readings.changed(mig_enabled=True),
    )
    part = cards.sample(1, kind=DeviceKind.MIG)
    part = replace(part, info=replace(part.info, parent_uuid=GPU))
    slices = slices_of(card, (card, part))
    assert slices == {part.info.uuid}
    book = books(held("mine", part.info.uuid, exclusive=True), held("else", "U-gpu7"))
    told = [each.relation for each in relations(card, book, slices)]
    assert told == [OWNER, FOREIGN, FOREIGN]


def test_what_belongs_to_an_ended_promise_is_foreign() -> None:
    assert belonging(MINE, held("mine", GPU)).relation is OWNER
    ended = held("mine", GPU, state=ReservationState.EXPIRED)
    assert belonging(MINE, ended).relation is FOREIGN


@pytest.mark.parametrize(
    ("sizes", "is_told"),
    [
        ((4 * GIB,), False),
        ((4 * GIB + OVERUSE_SLACK_BYTES,), False),
        ((4 * GIB + OVERUSE_SLACK_BYTES + 1,), True),
        ((2 * GIB, 2 * GIB, GIB), True),
        ((5 * GIB, None), True),
        ((None, None), False),
    ],
)
def test_over_use_is_of_all_its_processes_and_beyond_the_slack(
    sizes: tuple[int | None, ...], is_told: bool
) -> None:
    listed = tuple(process(7 + n, size, "mine") for n, size in enumerate(sizes))
    device = replace(cards.sample(0), processes=(*listed, NOBODYS))
    found = overuses(device, books(held("mine", GPU)))
    assert bool(found) is is_told
    for each in found:
        assert (each.reservation, each.device, each.granted_bytes) == ("mine", GPU, 4 * GIB)
        assert each.observed_bytes == sum(size or 0 for size in sizes)
        assert each.processes == listed


def test_a_trespasser_over_uses_nothing() -> None:
    device = replace(cards.sample(0), processes=(process(7, 9 * GIB, "mine"),))
    assert overuses(device, books(held("mine", OTHER))) == ()


def test_what_is_promised_inside_a_standing_one_is_not_its_own_to_use() -> None:
    standing, inside = held("its", GPU, size=10 * GIB), held("mine", GPU, within="its")
    both = books(standing, inside)

    def over(its: int, mine: int) -> list[tuple[str, int]]:
        listed = (process(7, its * GIB, "its"), process(8, mine * GIB, "mine"))
        found = overuses(replace(cards.sample(0), processes=listed), both)
        return [(each.reservation, each.granted_bytes // GIB) for each in found]

    assert over(6, 4) == []
    assert over(7, 1) == [("its", 6)]
    assert over(2, 5) == [("mine", 4)]
