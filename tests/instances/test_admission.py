"""What refuses a start whose promise is made already."""

from __future__ import annotations

from dataclasses import replace

import grpc
import pytest

from gpud.devices.snapshot import Sample
from gpud.instances.instance import Instance, InstanceState
from gpud.instances.starting.admission import (
    ContextsRefused,
    Held,
    MemoryTaken,
    check_contexts,
    check_room,
)
from gpud.ledger.reservation import (
    Deadline,
    Enforcement,
    Grant,
    Reservation,
    ReservationKind,
    ReservationState,
    ReserveRequest,
)
from gpud.models.model import EngineKind, ModelOptions
from gpud.rpc.errors import status_of
from tests.fakes.cards import GIB, later, process, sample


def held(own_gib: int) -> Held:
    """A promise alone on its device."""
    return Held(own=own_gib * GIB, others={}, observed={})


def refusal(card: Sample, terms: Held) -> MemoryTaken:
    with pytest.raises(MemoryTaken) as caught:
        check_room("instances/i", card, terms)
    return caught.value


def test_an_empty_card_has_room_to_its_last_byte() -> None:
    check_room("instances/i", sample(used=0), held(24))
    assert refusal(sample(used=1), held(24)).free_bytes == 24 * GIB - 1


def test_a_process_that_came_in_between_is_told_with_its_numbers() -> None:
    card = sample(used=20 * GIB, processes=(process(7, 20 * GIB),))
    error = refusal(card, held(8))
    assert (error.needed_bytes, error.free_bytes, error.owed_bytes) == (8 * GIB, 4 * GIB, 0)
    assert (error.unpromised_bytes, error.overused_bytes) == (20 * GIB, 0)
    text = str(error)
    for part in ("cannot start instances/i", "gpu0", "4 GiB free", "8 GiB", "20 GiB are used"):
        assert part in text


def test_what_others_were_promised_and_have_not_taken_is_theirs() -> None:
    card = sample(used=2 * GIB, processes=(process(7, 2 * GIB, "r-1"),))
    check_room("instances/i", card, _others(16))
    error = refusal(card, _others(17))
    assert (error.free_bytes, error.owed_bytes) == (22 * GIB, 6 * GIB)
    assert "6 GiB of it owed to others" in str(error)


def _others(own_gib: int) -> Held:
    """Beside a promise of 8 GiB that has taken 2."""
    return Held(own=own_gib * GIB, others={"r-1": 8 * GIB}, observed={"r-1": 2 * GIB})


def test_what_others_took_since_the_list_is_not_owed_to_them_again() -> None:
    card = later(sample(used=0), 1001.0, 12 * GIB)
    terms = Held(own=12 * GIB, others={"r-1": 12 * GIB}, observed={})
    check_room("instances/i", card, terms)
    assert refusal(card, replace(terms, own=12 * GIB + 1)).owed_bytes == 0
    # More than they were promised is nobody's: free is what is free.
    grown = later(sample(used=0), 1001.0, 14 * GIB)
    assert refusal(grown, terms).free_bytes == 10 * GIB


def test_one_who_took_more_than_promised_is_told_apart() -> None:
    card = sample(used=20 * GIB, processes=(process(7, 20 * GIB, "r-1"),))
    terms = Held(own=8 * GIB, others={"r-1": 8 * GIB}, observed={"r-1": 20 * GIB})
    error = refusal(card, terms)
    assert (error.owed_bytes, error.unpromised_bytes, error.overused_bytes) == (
        0,
        0,
        12 * GIB,
    )


@pytest.mark.parametrize("processes", [None, (process(7, None, "r-1"),)])
def test_where_nobody_tells_whose_bytes_they_are_others_have_theirs_first(
    processes: tuple[object, ...] | None,
) -> None:
    card = replace(sample(used=6 * GIB), processes=processes)
    terms = Held(own=16 * GIB, others={"r-1": 8 * GIB}, observed={})
    check_room("instances/i", card, terms)
    assert refusal(card, replace(terms, own=16 * GIB + 1)).owed_bytes == 2 * GIB


def test_a_device_that_does_not_tell_its_memory_is_not_judged() -> None:
    check_room("instances/i", sample(used=None), held(24))
    check_room("instances/i", sample(total=None), held(24))


def test_its_code_is_that_of_bytes_that_are_lacking() -> None:
    error = refusal(sample(used=24 * GIB), held(1))
    status = status_of(error)
    assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert error.reason == "MEMORY_TAKEN"


INSTANCE = Instance(
    id="i",
    model="m",
    engine=EngineKind.LLAMA_CPP,
    owner="anna",
    state=InstanceState.STARTING,
    options=ModelOptions(),
    create_wall=0.0,
)


def promise(enforcement: Enforcement) -> Reservation:
    now = Deadline(boot_id="b", boottime=0.0, wall=0.0)
    return Reservation(
        id="r",
        request=ReserveRequest(owner="anna", bytes=GIB),
        kind=ReservationKind.HELD,
        state=ReservationState.GRANTED,
        created=now,
        grants=(Grant(device="U-gpu0", bytes=GIB, enforcement=enforcement),),
    )


def in_mode(mode: str | None) -> Sample:
    card = sample(0)
    return replace(card, readings=card.readings.changed(compute_mode=mode))


@pytest.mark.parametrize(
    ("enforcement", "mode"),
    [
        (Enforcement.DRIVER, "default"),
        (Enforcement.DRIVER, None),
        (Enforcement.LEDGER, "exclusive_process"),
    ],
)
def test_several_contexts_are_refused_where_the_driver_takes_one(
    enforcement: Enforcement, mode: str | None
) -> None:
    samples = (in_mode(mode),)
    check_contexts(INSTANCE, 1, promise(enforcement), samples)
    with pytest.raises(ContextsRefused) as caught:
        check_contexts(INSTANCE, 2, promise(enforcement), samples)
    assert "opens 2 contexts on gpu0" in str(caught.value)
    assert status_of(caught.value).code == grpc.StatusCode.FAILED_PRECONDITION.value[0]


def test_several_contexts_are_fine_on_a_shared_device() -> None:
    check_contexts(INSTANCE, 3, promise(Enforcement.LEDGER), (in_mode("default"),))
