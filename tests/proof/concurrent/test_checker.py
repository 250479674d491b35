"""The checker accepts what is right by its making, and nothing of what was spoiled in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.proof.concurrent import honest
from tests.proof.concurrent.checker import check
from tests.proof.concurrent.history import History
from tests.proof.concurrent.spoiled import FAR_NS, SPOILED

SEEDS = range(5)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_right_is_accepted(seed: int) -> None:
    history = honest.history(seed)
    assert check(history) == []
    assert {entry.ending for entry in history.journal} == {"", "RELEASED", "EXPIRED"}


@pytest.mark.parametrize("seed", range(3))
def test_what_takes_longer_is_right_too(seed: int) -> None:
    """Wider calls leave more orders; the journal's is still one of them."""
    history = honest.history(seed)
    wider = [
        replace(each, begin_ns=each.begin_ns - FAR_NS, end_ns=each.end_ns + FAR_NS)
        for each in history.operations
    ]
    assert check(replace(history, operations=tuple(wider))) == []


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("spoil", SPOILED)
def test_what_is_spoiled_is_rejected(spoil: Callable[[History], History], seed: int) -> None:
    history = honest.history(seed)
    assert check(history) == []
    assert check(spoil(history)) != []
