"""Every list comes in pages: whole, in order, nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gpud.v1 import devices_pb2, instances_pb2, models_pb2, node_pb2
from gpud.v1 import reservations_pb2 as pb
from tests.running import Api, Gpud, ghostly, refused_stream

Page = tuple[list[str], str]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpud]:
    """One whose lists hold what is put there here, and no more."""
    gpud = ghostly(tmp_path_factory.mktemp("paging"))
    try:
        yield gpud.start()
    finally:
        gpud.end()


async def devices(api: Api, **asked: Any) -> Page:
    answer = await api.devices.ListDevices(devices_pb2.ListDevicesRequest(**asked))
    return [each.name for each in answer.devices], answer.next_page_token


async def models(api: Api, **asked: Any) -> Page:
    answer = await api.models.ListModels(models_pb2.ListModelsRequest(**asked))
    return [each.name for each in answer.models], answer.next_page_token


async def reservations(api: Api, **asked: Any) -> Page:
    answer = await api.reservations.ListReservations(pb.ListReservationsRequest(**asked))
    return [each.name for each in answer.reservations], answer.next_page_token


async def events(api: Api, **asked: Any) -> Page:
    answer = await api.node.ListEvents(node_pb2.ListEventsRequest(**asked))
    return [str(each.sequence) for each in answer.events], answer.next_page_token


async def instances(api: Api, **asked: Any) -> Page:
    answer = await api.instances.ListInstances(instances_pb2.ListInstancesRequest(**asked))
    return [each.name for each in answer.instances], answer.next_page_token


async def reserve(api: Api, count: int, owner: str) -> list[str]:
    made = []
    for _ in range(count):
        request = pb.ReserveRequest(bytes=1, owner=owner)
        made.append((await api.reservations.Reserve(request)).reservation.name)
    return made


@pytest.fixture(autouse=True)
async def _something_to_list(api: Api) -> None:
    await reserve(api, 5, "paging")
    for name in ("ghost", "phantom", "spectre"):  # whose loads fail, and stay listed
        load = api.instances.LoadModel(instances_pb2.LoadModelRequest(model=name))
        assert (await refused_stream(load)).reason in {"ENGINE_MISSING", "MODEL_FILE_INVALID"}


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("list_", [devices, models, reservations, events, instances])
async def test_pages_together_are_the_list(api: Api, list_: Callable[..., Any], size: int) -> None:
    whole, end = await list_(api, page_size=1000)
    assert end == ""
    assert len(whole) >= 3
    gathered: list[str] = []
    token = ""
    while True:
        page, token = await list_(api, page_size=size, page_token=token)
        gathered += page
        assert len(page) == size or not token
        if not token:
            break
        assert len(gathered) <= len(whole)
    assert gathered == whole


async def test_what_comes_and_goes_between_pages_shifts_nothing(api: Api) -> None:
    made = await reserve(api, 4, "between")
    first, token = await reservations(api, owner="between", page_size=2)
    late = await reserve(api, 1, "between")
    await api.reservations.Release(pb.ReleaseRequest(name=made[0]))
    rest, end = await reservations(api, owner="between", page_size=100, page_token=token)
    assert (first, rest, end) == (made[:2], made[2:] + late, "")


async def test_filters_narrow_before_pages_are_cut(api: Api) -> None:
    (mine,) = await reserve(api, 1, "mine")
    assert await reservations(api, owner="mine", page_size=1) == ([mine], "")
    await api.reservations.Release(pb.ReleaseRequest(name=mine))
    granted = await reservations(api, states=[pb.RESERVATION_STATE_GRANTED], page_size=1000)
    released = await reservations(api, states=[pb.RESERVATION_STATE_RELEASED], page_size=1000)
    assert mine in released[0]
    assert mine not in granted[0]


async def test_a_page_is_never_larger_than_its_bound(api: Api) -> None:
    page, _ = await events(api, page_size=2**31 - 1)
    assert len(page) <= 1000
