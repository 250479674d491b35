"""Which devices a request gets, as tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpud.devices.snapshot import DeviceKind, Health, Sample, Trouble
from gpud.errors import DeviceUnavailable, VramInsufficient
from gpud.ledger.admission.admission import never_fits
from gpud.ledger.reservation import Placement, Shape, Sharing
from tests.fakes.cards import GIB, sample, snapshot
from tests.ledger.desk import HOST, Desk, settled


def near(index: int, node: int | None) -> Sample:
    """A card of a NUMA node."""
    card = sample(index)
    return replace(card, info=replace(card.info, numa_node=node))


def sized(*gib: int) -> Desk:
    return Desk(*(sample(index, total=size * GIB) for index, size in enumerate(gib)))


@pytest.mark.parametrize(
    ("held", "asked", "chosen"),
    [
        # Held GiB of gpu0, gpu1, gpu2; what is asked; where it goes.
        ((4, 12, 0), {}, ["gpu1"]),
        ((4, 12, 0), {"placement": Placement.SPREAD}, ["gpu2"]),
        ((4, 12, 0), {"device_count": 2}, ["gpu1", "gpu0"]),
        ((4, 12, 0), {"device_count": 2, "placement": Placement.SPREAD}, ["gpu2", "gpu0"]),
        ((0, 0, 0), {}, ["gpu0"]),  # ties by the devices' order
        ((0, 0, 0), {"placement": Placement.SPREAD}, ["gpu0"]),
        ((8, 8, 0), {"device_count": 2}, ["gpu0", "gpu1"]),
        ((4, 18, 0), {}, ["gpu0"]),  # the fullest has too little
        ((4, 12, 0), {"devices": ("U-gpu0", "U-gpu2")}, ["gpu0"]),
        ((4, 12, 0), {"devices": ("U-gpu2",)}, ["gpu2"]),
    ],
)
def test_pack_takes_the_fullest_and_spread_the_emptiest(
    held: tuple[int, ...], asked: dict[str, Any], chosen: list[str]
) -> None:
    desk = Desk(sample(0), sample(1), sample(2))
    for index, size in enumerate(held):
        if size:
            desk.reserve(f"h{index}", size, devices=(f"U-gpu{index}",))
    desk.reserve("a", 8, **asked)
    assert desk.places("a") == chosen


@pytest.mark.parametrize(
    ("nodes", "asked", "aware", "chosen"),
    [
        ((0, 0, 1, 1), {"numa_node": 1}, True, ["gpu2"]),
        ((0, 0, 1, 1), {"numa_node": 1, "placement": Placement.SPREAD}, True, ["gpu2"]),
        ((0, 0, 1, 1), {"numa_node": 7}, True, ["gpu0"]),  # preferred, not required
        ((None, None, 1, 1), {"numa_node": 1}, True, ["gpu2"]),
        ((0, 1, 0, 1), {"device_count": 2}, True, ["gpu0", "gpu2"]),
        ((0, 1, 1, 0), {"device_count": 2}, False, ["gpu0", "gpu1"]),
        ((0, 1, 1, 1), {"device_count": 3}, True, ["gpu1", "gpu2", "gpu3"]),
        ((0, 1, 0, 1), {"device_count": 3}, True, ["gpu0", "gpu1", "gpu2"]),  # no node has three
        ((None, None, 1, 1), {"device_count": 2}, True, ["gpu2", "gpu3"]),
        ((0, 0, 1, 1), {"device_count": 2, "numa_node": 1}, True, ["gpu2", "gpu3"]),
        # SPREAD spreads over nodes as well.
        ((0, 1, 1, 0), {"device_count": 2, "placement": Placement.SPREAD}, True, ["gpu0", "gpu1"]),
    ],
)
def test_a_numa_node_is_preferred_and_several_devices_share_one(
    nodes: tuple[int | None, ...], asked: dict[str, Any], aware: bool, chosen: list[str]
) -> None:
    cards = (near(index, node) for index, node in enumerate(nodes))
    desk = Desk(*cards, settings=settled(numa_aware=aware))
    desk.reserve("a", 8, **asked)
    assert sorted(desk.places("a")) == chosen


def test_a_fuller_card_of_another_node_does_not_break_a_pair_up() -> None:
    desk = Desk(near(0, 0), near(1, 1), near(2, 1))
    desk.reserve("h", 8, devices=("U-gpu0",))
    desk.reserve("a", 8, device_count=2)
    assert desk.places("a") == ["gpu1", "gpu2"]


def test_kinds_choose_and_the_host_is_never_meant_by_saying_nothing() -> None:
    simulated = replace(sample(1), info=replace(sample(1).info, kind=DeviceKind.SIMULATED))
    desk = Desk(sample(0), simulated, HOST)
    for id_, kind, chosen in (
        ("s", DeviceKind.SIMULATED, "gpu1"),
        ("g", DeviceKind.GPU, "gpu0"),
        ("h", DeviceKind.HOST, "host"),
    ):
        desk.reserve(id_, 8, device_kind=kind)
        assert desk.places(id_) == [chosen]
    with pytest.raises(VramInsufficient, match="no device of the kind mig here") as refusal:
        desk.reserve("m", 8, device_kind=DeviceKind.MIG)
    assert refusal.value.never_fits
    with pytest.raises(VramInsufficient):
        desk.reserve("big", 30)
    # Named devices count alone; the kind beside them says nothing more.
    desk.reserve("named", 8, devices=("U-host",), device_kind=DeviceKind.GPU)
    assert desk.places("named") == ["host"]


@pytest.mark.parametrize(
    ("shown", "asked", "why"),
    [
        ((HOST,), {}, "there is no card here; to run it in RAM: --device host"),
        (
            (),
            {},
            "there is no card here, and the host's RAM is no device here (devices.host is off); "
            "turn it on to run in RAM",
        ),
        (
            (HOST,),
            {"device_kind": DeviceKind.MIG},
            "there is no device of the kind mig here; `gpuctl devices` shows what there is",
        ),
        (
            (sample(0),),
            {"device_kind": DeviceKind.HOST},
            "the host's RAM is no device here (devices.host is off); "
            "ask for a card, or turn it on to use RAM",
        ),
    ],
)
def test_where_there_is_nothing_to_choose_among_it_says_what_there_is(
    shown: tuple[Sample, ...], asked: dict[str, Any], why: str
) -> None:
    desk = Desk(sample(0))
    desk.show(*shown)
    with pytest.raises(VramInsufficient) as refusal:
        desk.reserve("m", 8, **asked)
    assert str(refusal.value) == f"cannot promise 8 GiB: {why}"
    assert (refusal.value.reason, refusal.value.never_fits) == ("VRAM_INSUFFICIENT", True)


@pytest.mark.parametrize(
    ("shown", "rest"), [((HOST,), "; to run it in RAM: --device host"), ((), ", and the host's")]
)
def test_cards_that_cannot_be_used_are_not_called_absent(
    shown: tuple[Sample, ...], rest: str
) -> None:
    desk = Desk(sample(0))
    trouble = Trouble(driver="nvml", reason="not loaded")
    seen = replace(snapshot(*shown, boottime=desk.clock.boottime), troubles=(trouble,))
    desk.keep(desk.ledger.observe(seen, desk.clock.now()))
    with pytest.raises(VramInsufficient) as refusal:
        desk.reserve("m", 8)
    why = f"no card can be used here (cannot use the nvml driver: not loaded){rest}"
    assert why in str(refusal.value)


# Alternatives.


def test_alternatives_are_tried_in_their_order() -> None:
    desk = sized(24, 12, 12)
    one_large_or_two_small = {"alternatives": (Shape(bytes=12 * GIB, device_count=2),)}
    desk.reserve("large", 24, **one_large_or_two_small)
    desk.reserve("small", 24, **one_large_or_two_small)
    assert desk.places("large") == ["gpu0"]
    assert desk.places("small") == ["gpu1", "gpu2"]
    assert [grant.bytes for grant in desk.held("small").grants] == [12 * GIB] * 2
    with pytest.raises(VramInsufficient):
        desk.reserve("none", 24, **one_large_or_two_small)


@pytest.mark.parametrize(
    ("first", "second", "never", "needed_gib"),
    [
        (40, 24, False, 24),  # the second could fit another time
        (24, 40, False, 24),
        (40, 50, True, 40),  # neither ever: the most wanted tells
    ],
)
def test_the_refusal_is_of_a_shape_that_could_fit_later(
    first: int, second: int, never: bool, needed_gib: int
) -> None:
    desk = sized(24)
    desk.reserve("h", 10)
    with pytest.raises(VramInsufficient) as refusal:
        desk.reserve("a", first, alternatives=(Shape(bytes=second * GIB),), max_wait_seconds=0.0)
    assert never_fits(refusal.value) is never
    assert refusal.value.needed_bytes == needed_gib * GIB
    if never:
        with pytest.raises(VramInsufficient):
            desk.reserve("b", first, alternatives=(Shape(bytes=second * GIB),), max_wait_seconds=9)
    else:
        desk.wait("b", first, alternatives=(Shape(bytes=second * GIB),))


def test_an_alternative_on_a_device_that_refuses_is_no_reason_not_to_wait() -> None:
    desk = Desk(sample(0), sample(1, health=Health.LOST))
    elsewhere = (Shape(bytes=GIB, devices=("U-gpu1",)),)
    with pytest.raises(DeviceUnavailable):
        desk.reserve("a", 40, alternatives=elsewhere)
    desk.wait("b", 40, alternatives=elsewhere)
    desk.show(sample(0), sample(1))
    assert desk.places("b") == ["gpu1"]


# RAM beside the devices.


def test_the_ram_beside_is_part_of_the_same_grant() -> None:
    desk = Desk(sample(0), HOST)
    desk.reserve("a", 8, host_bytes=10 * GIB)
    assert [(g.device, g.bytes, g.beside) for g in desk.held("a").grants] == [
        ("U-gpu0", 8 * GIB, False),
        ("U-host", 10 * GIB, True),
    ]
    assert (desk.grantable("gpu0"), desk.grantable("host")) == (16, 54)
    desk.release("a")
    assert (desk.grantable("gpu0"), desk.grantable("host")) == (24, 64)


@pytest.mark.parametrize(("gib", "ram_gib"), [(8, 40), (20, 8), (20, 40)])
def test_where_either_lacks_neither_is_booked(gib: int, ram_gib: int) -> None:
    desk = Desk(sample(0), HOST)
    desk.reserve("h", 10, host_bytes=30 * GIB)
    with pytest.raises(VramInsufficient) as refusal:
        desk.reserve("a", gib, host_bytes=ram_gib * GIB)
    assert not refusal.value.never_fits
    assert (desk.grantable("gpu0"), desk.grantable("host")) == (14, 34)
    desk.wait("b", gib, host_bytes=ram_gib * GIB)
    desk.release("h")
    assert desk.granted() == {"b"}
    assert (desk.grantable("gpu0"), desk.grantable("host")) == (24 - gib, 64 - ram_gib)


def test_ram_that_can_never_be_had_is_refused_at_once_however_busy_the_cards() -> None:
    desk = Desk(sample(0), HOST)
    desk.reserve("h", 20)
    with pytest.raises(VramInsufficient) as refusal:
        desk.reserve("a", 8, host_bytes=65 * GIB, max_wait_seconds=60.0)
    assert refusal.value.never_fits
    assert refusal.value.needed_bytes == 65 * GIB


def test_ram_beside_the_host_itself_is_one_grant() -> None:
    desk = Desk(sample(0), HOST)
    desk.reserve("a", 8, devices=("U-host",), host_bytes=10 * GIB)
    assert [(g.device, g.bytes, g.beside) for g in desk.held("a").grants] == [
        ("U-host", 18 * GIB, False)
    ]
    with pytest.raises(VramInsufficient):
        desk.reserve("b", 40, devices=("U-host",), host_bytes=10 * GIB)
    desk.reserve("c", 40, devices=("U-host",), host_bytes=6 * GIB)
    assert desk.grantable("host") == 0


def test_the_whole_host_holds_the_ram_beside_it_too() -> None:
    desk = Desk(sample(0), HOST)
    desk.reserve("a", 8, devices=("U-host",), host_bytes=10 * GIB, sharing=Sharing.EXCLUSIVE)
    assert [(g.device, g.bytes) for g in desk.held("a").grants] == [("U-host", 64 * GIB)]
