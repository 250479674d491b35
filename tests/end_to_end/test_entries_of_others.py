"""What an entry, or a load, may ask for that the host's own configuration did not say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from gpud.v1 import instances_pb2 as pb
from gpud.v1 import models_pb2 as m
from gpud.v1 import node_pb2
from tests.running import Api, Gpud, calling, refused, refused_stream

SLEEPS = m.ModelOptions(sleep_mode=True)
SUM = "ab" * 32


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpud]:
    """With a vLLM that may sleep, and one that may not; their files do not matter here."""
    folder = tmp_path_factory.mktemp("others")
    (folder / "roots").mkdir()
    made = Gpud(directory=folder, cards=1)
    made.extra = (
        f'[models]\nroots = ["{folder}/roots"]\n'
        '[models.awake]\nengine = "vllm"\npath = "awake"\n'
        '[models.sleeps]\nengine = "vllm"\npath = "sleeps"\nprofile = "sleeper"\n'
        "[profiles.sleeper]\nsleep_mode = true\n"
        f'[sockets.operator]\npath = "{folder}/operator.sock"\n'
    )
    try:
        yield made.start()
    finally:
        made.end()


@pytest.fixture
async def api(shared: Gpud) -> AsyncIterator[Api]:
    async with calling(shared) as made:
        yield made


@pytest.fixture
async def operator(shared: Gpud) -> AsyncIterator[Api]:
    async with grpc.aio.insecure_channel(f"unix:{shared.directory}/operator.sock") as channel:
        yield Api(channel)


def registering(name: str, **fields: Any) -> m.RegisterModelRequest:
    return m.RegisterModelRequest(name=name, validate_only=True, **fields)


def of_vllm(name: str, **fields: Any) -> m.RegisterModelRequest:
    return registering(name, engine=node_pb2.ENGINE_VLLM, hub="org/tiny", **fields)


async def test_no_load_opens_the_development_routes_of_a_server(api: Api) -> None:
    for only_look in (False, True):
        asked = pb.LoadModelRequest(model="awake", options=SLEEPS, validate_only=only_look)
        refusal = await refused_stream(api.instances.LoadModel(asked))
        assert refusal.reason == "OPTION_INVALID"
        assert "only its configuration turns it on" in str(refusal)
    # Where its entry says so, as much may be said once more; then its files are looked for.
    asked = pb.LoadModelRequest(model="sleeps", options=SLEEPS, validate_only=True)
    refusal = await refused_stream(api.instances.LoadModel(asked))
    assert refusal.reason != "OPTION_INVALID"


async def test_nor_does_an_entry_of_somebody_who_is_no_admin(api: Api, operator: Api) -> None:
    refusal = await refused(operator.models.RegisterModel(of_vllm("new", options=SLEEPS)))
    assert refusal.reason == "OPTION_INVALID"
    await operator.models.RegisterModel(of_vllm("new", profile="sleeper"))
    await api.models.RegisterModel(of_vllm("new", options=SLEEPS))


@pytest.mark.parametrize("host", ["127.0.0.1:9551", "localhost.", "[::ffff:127.0.0.1]:80"])
async def test_nor_does_one_lead_gpud_to_the_servers_of_its_host(
    api: Api, operator: Api, host: str
) -> None:
    asked = registering("new", url=f"http://{host}/metrics", sha256=SUM)
    for caller in (api, operator):
        refusal = await refused(caller.models.RegisterModel(asked))
        assert refusal.reason == "OPTION_INVALID"
        assert "a server of this host itself" in str(refusal)


async def test_nor_is_anything_registered_that_comes_in_the_clear(api: Api) -> None:
    asked = registering("new", url="http://example.com/x", sha256=SUM)
    refusal = await refused(api.models.RegisterModel(asked))
    assert (refusal.reason, refusal.fields) == ("OPTION_INVALID", ("url",))
