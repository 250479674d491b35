"""Whether an instance's bytes are where they were promised."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpud.devices.snapshot import DeviceKind, ProcessUse
from gpud.instances.health.placed import Placed, fallback, works_alone
from gpud.ledger.books import Books
from gpud.ledger.charge import Reserves, charge
from gpud.models.model import Confidence, Footprint, FootprintItem, FootprintWhat
from tests.fakes.cards import GIB, process, sample

MIB = 1024**2
RESERVES = Reserves(device_bytes=0, host_bytes=0)
READY = 1000.0


def footprint(weights: int, kv: int = 0) -> Footprint:
    items = (
        FootprintItem(what=FootprintWhat.WEIGHTS, bytes=weights, source="file"),
        FootprintItem(what=FootprintWhat.KV_CACHE, bytes=kv, source="law"),
        FootprintItem(what=FootprintWhat.MARGIN, bytes=10 * GIB, source="5 %"),
    )
    return Footprint(items=items, confidence=Confidence.LAW)


PLACED = Placed(reservation="r-1", footprint=footprint(4 * GIB, GIB), ready_boottime=READY)


def found(
    *processes: ProcessUse,
    used: int,
    kind: DeviceKind = DeviceKind.GPU,
    placed: Placed = PLACED,
    listed: float = READY + 5,
) -> str:
    card = sample(0, used=used, processes=processes, kind=kind, boottime=READY + 5)
    card = replace(card, listed_boottime=listed)
    books = Books()
    terms = charge(card, books.device("U-gpu0"), RESERVES, 0)
    observed = {each.claim: each.used_bytes or 0 for each in processes if each.claim}
    terms = type(terms)(**{**_fields(terms), "observed_bytes": observed})
    return fallback(placed, card, terms)


def _fields(terms: object) -> dict[str, object]:
    return {name: getattr(terms, name) for name in terms.__struct_fields__}  # type: ignore[attr-defined]


def own(size: int | None) -> ProcessUse:
    return process(7, size, "r-1")


def test_one_whose_weights_are_on_the_card_is_well() -> None:
    assert found(own(5 * GIB), used=5 * GIB) == ""


def test_one_that_has_next_to_nothing_there_runs_on_the_cpu() -> None:
    assert found(own(100 * MIB), used=100 * MIB) == (
        "it runs on the CPU: 100 MiB of 5 GiB are on gpu0"
    )


def test_one_that_is_not_listed_there_at_all_runs_on_the_cpu() -> None:
    assert "0 B of 5 GiB" in found(used=0)


def test_others_there_do_not_count_for_it() -> None:
    assert "runs on the CPU" in found(process(8, 6 * GIB, "r-2"), used=6 * GIB)


@pytest.mark.parametrize("kind", [DeviceKind.SIMULATED, DeviceKind.HOST])
def test_only_real_cards_tell(kind: DeviceKind) -> None:
    assert found(used=0, kind=kind) == ""


def test_a_list_from_before_it_was_ready_tells_nothing() -> None:
    assert found(used=0, listed=READY - 1) == ""


def test_bytes_that_no_process_explains_may_be_its_own() -> None:
    """In a container the driver lists nobody."""
    assert found(used=5 * GIB) == ""


def test_a_process_without_a_size_tells_nothing() -> None:
    assert found(own(None), used=0) == ""


def test_a_small_model_or_one_kept_off_the_card_tells_nothing() -> None:
    small = replace(PLACED, footprint=footprint(10 * MIB))
    assert found(used=0, placed=small) == ""


@pytest.mark.parametrize(
    ("percent", "claims", "kind", "works"),
    [
        (90.0, ("r-1",), DeviceKind.GPU, True),
        (90.0, ("r-1", "r-2"), DeviceKind.GPU, False),  # it may be the other's work
        (90.0, (), DeviceKind.GPU, False),
        (2.0, ("r-1",), DeviceKind.GPU, False),
        (None, ("r-1",), DeviceKind.GPU, False),
        (90.0, ("r-1",), DeviceKind.HOST, False),
    ],
)
def test_a_device_works_for_one_where_nobody_else_is_on_it(
    percent: float | None, claims: tuple[str, ...], kind: DeviceKind, works: bool
) -> None:
    on_it = tuple(process(number, GIB, claim) for number, claim in enumerate(claims, 1))
    card = sample(0, processes=on_it, kind=kind)
    card = replace(card, readings=card.readings.changed(utilization_percent=percent))
    assert works_alone("r-1", card, 5.0) is works
