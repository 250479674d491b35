"""The one formula of charging, row by row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpud.devices.snapshot import DeviceKind, Health
from gpud.ledger.books import DeviceBook
from gpud.ledger.charge import STALE_SECONDS, Reserves, charge, is_current
from gpud.units import GIB, MIB
from tests.fakes.cards import later, process, sample

RESERVES = Reserves(device_bytes=GIB // 2, host_bytes=2 * GIB)


def book(leaked: int = 0, **grants: int) -> DeviceBook:
    return DeviceBook(
        granted_bytes=sum(grants.values()), holders=dict(grants), leaked_bytes=leaked
    )


def test_the_worked_example_of_the_design() -> None:
    card = sample(
        used=14 * GIB + GIB // 4,
        processes=(process(1, 9 * GIB, "A"), process(2, 2 * GIB, "B"), process(3, 3 * GIB)),
    )
    terms = charge(card, book(A=8 * GIB, B=6 * GIB), RESERVES, 0)
    assert terms.charged_bytes == 15 * GIB
    assert terms.foreign_bytes == 3 * GIB
    assert terms.unattributed_bytes == GIB // 4
    assert terms.grantable_bytes == int(5.25 * GIB)


@pytest.mark.parametrize(
    ("grown", "unattributed", "unexplained"),
    [
        (0, 0, 0),
        (4 * GIB, 0, 0),  # fills B's grant below its promise
        (5 * GIB, GIB, GIB),  # what is more than that is nobody's
        (-GIB, 0, 0),  # no credit for what is gone until a list says whose it was
    ],
)
def test_growth_between_lists(grown: int, unattributed: int, unexplained: int) -> None:
    listed = sample(used=2 * GIB, processes=(process(2, 2 * GIB, "B"),))
    terms = charge(later(listed, 1001.0, 2 * GIB + grown), book(B=6 * GIB), RESERVES, 0)
    assert terms.unattributed_bytes == unattributed
    assert terms.unexplained_growth_bytes == unexplained


def test_a_card_that_refuses_lists_fills_grants_first() -> None:
    card = sample(used=7 * GIB, processes=None)
    terms = charge(card, book(A=6 * GIB), RESERVES, 0)
    assert terms.unattributed_bytes == GIB
    assert terms.grantable_bytes == 24 * GIB - GIB // 2 - 7 * GIB


def test_a_card_that_refuses_memory_grants_nothing() -> None:
    assert charge(sample(used=None), book(), RESERVES, 0).grantable_bytes is None


def test_the_memory_of_a_card_in_mig_mode_is_its_slices_to_grant() -> None:
    card = sample(used=GIB)
    sliced = replace(card, readings=card.readings.changed(mig_enabled=True))
    assert charge(card, book(), RESERVES, 0).grantable_bytes == 24 * GIB - GIB // 2 - GIB
    assert charge(sliced, book(), RESERVES, 0).grantable_bytes == 0


def test_a_claim_on_a_promise_that_is_not_here_is_foreign() -> None:
    card = sample(used=GIB, processes=(process(1, GIB, "elsewhere"),))
    assert charge(card, book(A=GIB), RESERVES, 0).foreign_bytes == GIB


def test_listed_without_sizes_the_residue_fills_the_promise() -> None:
    card = sample(used=5 * GIB, processes=(process(1, None, "A"),))
    assert charge(card, book(A=6 * GIB), RESERVES, 0).unattributed_bytes == 0


@pytest.mark.parametrize("claim", [None, "elsewhere"])
def test_what_is_listed_without_size_fills_no_promise_of_others(claim: str | None) -> None:
    """Eight foreign bytes of unknown size passed for those of an idle promise."""
    card = sample(used=8 * GIB, processes=(process(7, None, claim),))
    terms = charge(card, book(A=8 * GIB), RESERVES, 0)
    assert (terms.unattributed_bytes, terms.grantable_bytes) == (8 * GIB, int(7.5 * GIB))


def test_what_filled_a_promise_without_size_is_not_there_for_growth() -> None:
    listed = sample(used=8 * GIB, processes=(process(7, None, "A"),))
    terms = charge(later(listed, 1001.0, 16 * GIB), book(A=8 * GIB), RESERVES, 0)
    assert (terms.unattributed_bytes, terms.unexplained_growth_bytes) == (8 * GIB, 8 * GIB)
    # What it has not filled yet is.
    terms = charge(later(listed, 1001.0, 10 * GIB), book(A=10 * GIB), RESERVES, 0)
    assert (terms.unattributed_bytes, terms.unexplained_growth_bytes) == (0, 0)


def test_what_is_left_of_an_ended_promise_is_not_there_for_growth() -> None:
    listed = sample(used=8 * GIB)
    ended = book(A=8 * GIB)
    ended.releasing["A"] = 8 * GIB
    assert charge(listed, ended, RESERVES, 0).unattributed_bytes == 0
    terms = charge(later(listed, 1001.0, 12 * GIB), ended, RESERVES, 0)
    assert (terms.unattributed_bytes, terms.unexplained_growth_bytes) == (4 * GIB, 4 * GIB)


def test_what_is_left_within_a_promise_is_filled_by_nobody_else() -> None:
    """8 left of an ended part, 8 of the rest, 4 of a stranger: all three without size."""
    card = sample(used=20 * GIB, processes=(process(1, None, "S"), process(2, None)))
    outer = book(S=16 * GIB, B=4 * GIB)
    outer.within["C"], outer.releasing["C"] = "S", 8 * GIB
    assert charge(card, outer, RESERVES, 0).unattributed_bytes == 4 * GIB


def test_the_baseline_and_leaks_are_not_counted_twice() -> None:
    card = sample(used=3 * GIB)
    terms = charge(card, book(leaked=2 * GIB), RESERVES, 256 * MIB)
    assert terms.unattributed_bytes == GIB - 256 * MIB
    assert terms.grantable_bytes == 24 * GIB - GIB // 2 - 2 * GIB - (GIB - 256 * MIB)


def test_the_driver_reserve_wins_when_it_is_more() -> None:
    card = sample(driver_reserved=GIB)
    assert charge(card, book(), RESERVES, 0).reserve_bytes == GIB


def test_on_the_host_the_rest_of_the_system_is_foreign() -> None:
    host = sample(
        kind=DeviceKind.HOST, total=16 * GIB, used=5 * GIB, processes=(process(1, GIB, "A"),)
    )
    terms = charge(host, book(A=2 * GIB), RESERVES, 0)
    assert (terms.foreign_bytes, terms.unattributed_bytes) == (4 * GIB, 0)
    assert terms.grantable_bytes == (16 - 2 - 2 - 4) * GIB


@pytest.mark.parametrize(
    ("health", "age", "current"),
    [
        (Health.HEALTHY, STALE_SECONDS, True),
        (Health.HEALTHY, STALE_SECONDS + 0.1, False),
        (Health.UNKNOWN, 0.0, True),  # it answers
        (Health.UNRESPONSIVE, 0.0, False),
        (Health.LOST, 0.0, False),
    ],
)
def test_readings_are_current_while_a_card_answers(
    health: Health, age: float, current: bool
) -> None:
    assert is_current(sample(health=health, boottime=1000.0), 1000.0 + age) is current
