"""InstanceService over a roster at work on cards that the test shows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gpud.access.identity import CALLER, DEED, Caller, Deed, Proof, Role
from gpud.errors import InstanceNotFound, ModelNotFound
from gpud.instances.instance import Instance, InstanceState
from gpud.instances.terms import LoadTerms
from gpud.rpc.instances import Instances
from gpud.units import MIB
from gpud.v1 import instances_pb2 as pb
from gpud.v1.benchmarks_pb2 import BenchmarkModelRequest
from tests.fakes.cards import process, sample
from tests.instances import asking
from tests.instances.town import Town, town

ADMIN = Caller(name="anna", role=Role.ADMIN, proof=Proof.USER, origin="a test")


@pytest.fixture
async def place(tmp_path: Path, tiny_model: Path) -> AsyncIterator[Town]:
    async with town(tmp_path, tiny_model, (sample(0),)) as made:
        yield made


def service(place: Town) -> Instances:
    CALLER.set(ADMIN)
    DEED.set(Deed())
    return asking.service(place)


async def told(place: Town, made: Instance) -> pb.Instance:
    request = pb.GetInstanceRequest(name=made.name)
    return (await service(place).GetInstance(request, None)).instance


async def test_what_an_instance_holds_beyond_its_promise_is_told(place: Town) -> None:
    made = await place.until(await place.load(LoadTerms(devices=("U-gpu0",))), InstanceState.READY)
    promised = (await told(place, made)).footprint.total_bytes
    for over, expected in ((64 * MIB, None), (97 * MIB, 97 * MIB), (0, None)):
        listed = (process(7, promised + over, made.reservation),)
        used = promised + over
        card = sample(0, used=used, processes=listed)
        place.show(replace(card, memory_used_at_list_bytes=used))
        seen = await told(place, made)
        assert seen.measured_bytes == used
        assert (seen.overuse_bytes if seen.HasField("overuse_bytes") else None) == expected


async def test_a_model_that_is_not_loaded_is_told_from_one_that_is_not_known(
    place: Town,
) -> None:
    for request in (
        service(place).UnloadModel(pb.UnloadModelRequest(model="tiny"), None),
        service(place).BenchmarkModel(BenchmarkModelRequest(model="tiny"), None),
    ):
        with pytest.raises(InstanceNotFound) as refusal:
            await anext(request)
        assert str(refusal.value) == (
            "cannot find an instance of models/tiny: it is not loaded; `gpuctl load tiny` loads it"
        )
        assert refusal.value.reason == "INSTANCE_NOT_FOUND"
    unknown = service(place).UnloadModel(pb.UnloadModelRequest(model="nothing"), None)
    with pytest.raises(ModelNotFound, match="cannot find model 'nothing'"):
        await anext(unknown)
