"""The real llama-server unloaded while it answers: who is inside finishes, nobody new gets in."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from gpud.v1 import instances_pb2 as pb
from tests.end_to_end.driving import PATIENCE_SECONDS, load, reaches, streaming, unload
from tests.running import Api, Gpud, calling

MakeGpud = Callable[..., Gpud]
LONG = '[models.long]\npath = "tiny.gguf"\ncontext_length = 32768\nparallel = 2\n'
TOKENS = 1500


def ask(endpoint: str) -> tuple[int, str]:
    """The status of a request over a connection of its own, and what is said of it."""
    try:
        with urllib.request.urlopen(f"{endpoint}/v1/models", timeout=10) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)["error"]["message"]


@pytest.fixture
async def busy(modelled: MakeGpud, llama_server: Path) -> Gpud:
    return modelled(llama_server, models=LONG).start()


async def turned_away(endpoint: str) -> str:
    """What is said once the door is shut; before that the engine answers."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            status, said = await asyncio.to_thread(ask, endpoint)
            if status == 503:
                return said
            assert status == 200


@pytest.mark.engine
async def test_a_stream_goes_on_to_its_end_while_new_requests_are_refused(busy: Gpud) -> None:
    async with calling(busy) as api:
        made = await load(api, "long")
        async with streaming(made.endpoint, TOKENS) as pieces:
            await anext(pieces)
            ending = asyncio.ensure_future(
                unload(api, instance=made.name, grace=Duration(seconds=30))
            )
            said = await turned_away(made.endpoint)
            assert said == f"{made.name} is being unloaded"
            draining = await reaches(api, made.name, pb.INSTANCE_STATE_DRAINING)
            assert draining.endpoint == "", "nobody is led there any more"
            left = [piece async for piece in pieces]  # raises unless [DONE] comes
        told = await ending
    assert len(left) > 100
    assert "requests in flight" in "".join(each.detail for each in told)
    assert "cannot be refused" not in "".join(each.detail for each in told)
    assert told[-1].phase == pb.UNLOAD_PHASE_STOPPED
    assert told[-1].freed_bytes > 0
    assert told[-1].instance.last_exit.code == 0


@pytest.mark.engine
async def test_a_daemon_that_dies_meanwhile_shuts_the_door_again(busy: Gpud) -> None:
    async with calling(busy) as api:
        made = await load(api, "long")
        async with streaming(made.endpoint, 5 * TOKENS // 2) as pieces:
            await anext(pieces)
            call = api.instances.UnloadModel(
                pb.UnloadModelRequest(instance=made.name, grace=Duration(seconds=30))
            )
            await anext(aiter(call))
            await turned_away(made.endpoint)
            await asyncio.to_thread(busy.restart)
            async with calling(busy) as again:
                assert await turned_away(made.endpoint) == f"{made.name} is being unloaded"
                left = [piece async for piece in pieces]  # raises unless [DONE] comes
                ended = await gone(again, made.name)
    assert len(left) > 100
    assert ended.last_exit.code == 0


@pytest.mark.engine
async def test_a_grace_goes_on_where_it_was_when_the_daemon_died(busy: Gpud) -> None:
    async with calling(busy) as api:
        made = await load(api, "long")
        async with streaming(made.endpoint, 10 * TOKENS) as pieces:
            await anext(pieces)
            call = api.instances.UnloadModel(
                pb.UnloadModelRequest(instance=made.name, grace=Duration(seconds=2))
            )
            await anext(aiter(call))
            await turned_away(made.endpoint)
            await asyncio.to_thread(busy.restart)
            async with calling(busy) as again:
                with pytest.raises((ConnectionError, TimeoutError)):
                    _ = [piece async for piece in pieces]
                await gone(again, made.name)


async def gone(api: Api, name: str) -> pb.Instance:
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for told in api.instances.WatchInstance(pb.WatchInstanceRequest(name=name)):
            if told.instance.state == pb.INSTANCE_STATE_STOPPED:
                return told.instance
    raise AssertionError(f"{name} is not told to have stopped")
