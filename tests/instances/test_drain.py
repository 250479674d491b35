"""How long an engine is waited for that tells little of its requests."""

from __future__ import annotations

import pytest

from gpud.instances.draining.drain import SILENCES, WORK_SECONDS, Heard


def looks(heard: Heard, *told: tuple[int | None, float | None]) -> list[bool]:
    return [heard.waits_after(in_flight, taken) for in_flight, taken in told]


def test_it_is_waited_for_while_requests_are_in_flight() -> None:
    heard = Heard()
    assert looks(heard, (2, 1.0), (1, 1.0)) == [True, True]
    assert heard.told == "1 requests"
    assert looks(heard, (0, 1.0)) == [False]


@pytest.mark.parametrize("taken", [None, 7.0])
def test_one_that_never_tells_is_not_waited_for(taken: float | None) -> None:
    looked = looks(Heard(), *[(None, taken)] * SILENCES)
    assert looked == [*[True] * (SILENCES - 1), False]


def test_one_whose_requests_were_seen_may_be_late() -> None:
    assert all(looks(Heard(), (1, 1.0), *[(None, 1.0)] * (3 * SILENCES)))


def test_one_that_was_waited_for_before_a_restart_may_be_late() -> None:
    assert all(looks(Heard(awaited=True), *[(None, 1.0)] * (3 * SILENCES)))


def test_one_that_computes_a_batch_gives_no_answer_before_its_end() -> None:
    heard = Heard()
    work = [(None, 1.0 + 2 * WORK_SECONDS * look) for look in range(3 * SILENCES)]
    assert all(looks(heard, *work))
    assert heard.told == "unknown requests"
    # Then it is silent without work.
    assert looks(heard, *[(None, work[-1][1])] * SILENCES)[-1] is False
