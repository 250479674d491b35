"""What the host shows and what an instance is bound to, as it goes on the wire."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from gpud.devices.bands import Bands, Law
from gpud.devices.sampling.board import Board
from gpud.devices.sampling.frames import Answer, Inventory
from gpud.devices.snapshot import HostReadings, Readings
from gpud.instances.instance import InstanceState
from gpud.ledger.books import DeviceBook
from gpud.ledger.charge import Reserves, charge
from gpud.rpc import messages
from gpud.v1 import devices_pb2
from tests.fakes.cards import sample, snapshot
from tests.fakes.clock import FakeClock
from tests.instances.test_admission import INSTANCE


def test_what_the_host_does_not_tell_is_absent() -> None:
    host = messages.snapshot(snapshot(), [], 0).host
    assert not host.HasField("memory_some_percent")
    assert not host.HasField("memory_full_percent")
    assert host.memory_pressure_events == 0


def test_memory_pressure_is_told() -> None:
    shown = HostReadings(
        memory_some_percent=12.5, memory_full_percent=0.0, memory_pressure_events=3
    )
    host = messages.snapshot(replace(snapshot(), host=shown), [], 0).host
    assert (host.memory_some_percent, host.memory_full_percent) == (12.5, 0.0)
    assert host.HasField("memory_full_percent")
    assert host.memory_pressure_events == 3


def test_the_cpus_nearest_a_device_are_told() -> None:
    card = sample()
    assert not messages.device(card, None).HasField("cpu_affinity")
    near = replace(card, info=replace(card.info, cpu_affinity="0-15", numa_node=0))
    told = messages.device(near, None)
    assert (told.cpu_affinity, told.numa_node) == ("0-15", 0)


def test_a_card_that_was_not_read_yet_has_no_time_of_a_reading() -> None:
    clock, card = FakeClock(), sample().info
    law = Law(edges=(50.0, 70.0, 85.0), hysteresis=5.0, hold_seconds=10.0)
    board = Board(Bands(pressure=law, thermal=law))
    board.take_inventory(Inventory(devices=(card,)), clock.now())

    def told() -> devices_pb2.Sample:
        (shown,) = board.snapshot(clock.now(), HostReadings()).samples
        return messages.device(shown, None).sample

    board.mark_unresponsive(card.uuid, "no answer", clock.now())
    assert not told().HasField("time")
    at = clock.now()
    board.take_answer(
        Answer(uuid=card.uuid, boottime=at.boottime, wall=at.wall, readings=Readings())
    )
    assert told().HasField("time")


@pytest.mark.parametrize(
    ("state", "listed", "shown"),
    [
        (InstanceState.READY, None, 7),  # by its engine's own account
        (InstanceState.READY, 9, 9),
        (InstanceState.DRAINING, None, 7),
        (InstanceState.BACKOFF, 9, None),  # the list is of an engine that is gone
        (InstanceState.BACKOFF, None, None),
        (InstanceState.LOADING, None, None),  # the account is of the engine before
        (InstanceState.LOADING, 3, 3),
        (InstanceState.STOPPED, 9, None),
    ],
)
def test_only_what_an_engine_that_lives_uses_is_told(
    state: InstanceState, listed: int | None, shown: int | None
) -> None:
    terms = charge(sample(used=0), DeviceBook(), Reserves(device_bytes=0, host_bytes=0), 0)
    seen = {} if listed is None else {"r-1": listed}
    made = replace(INSTANCE, state=state, reservation="r-1", devices=(terms.uuid,), engine_bytes=7)
    told = messages.instance(made, {terms.uuid: structs.replace(terms, observed_bytes=seen)})
    assert (told.measured_bytes if told.HasField("measured_bytes") else None) == shown


def test_what_an_instance_is_bound_to_is_told() -> None:
    assert not messages.instance(INSTANCE, {}).HasField("memory_node")
    bound = replace(INSTANCE, cpu_affinity="0-7", memory_node=0, swap="mlock")
    told = messages.instance(bound, {})
    assert (told.cpu_affinity, told.memory_node, told.swap) == ("0-7", 0, "mlock")
    assert told.HasField("memory_node")
