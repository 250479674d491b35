"""The real llama-server unloaded while it answers: who is inside finishes, nobody new gets in."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from gpud.v1 import instances_pb2 as pb
from tests.end_to_end.driving import PATIENCE_SECONDS, held, load, reaches, streaming
from tests.running import Api, Gpud, calling

MakeGpud = Callable[..., Gpud]
LONG = '[models.long]\npath = "tiny.gguf"\ncontext_length = 32768\nparallel = 2\nthreads = 1\n'
TOKENS = 3000
GRACE_SECONDS = 120
ASK_SECONDS = 2.0


def ask(endpoint: str) -> tuple[int, str]:
    """The status of a request over a connection of its own, and what is said of it."""
    try:
        with urllib.request.urlopen(f"{endpoint}/v1/models", timeout=ASK_SECONDS) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)["error"]["message"]
    except TimeoutError:
        return 0, "the engine is held, and has the connection"


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
            assert status in {0, 200}


@pytest.mark.engine
async def test_a_stream_goes_on_to_its_end_while_new_requests_are_refused(busy: Gpud) -> None:
    async with calling(busy) as api:
        made = await load(api, "long")
        async with streaming(made.endpoint, TOKENS) as pieces:
            await anext(pieces)
            ending = await seen_by(api, made, GRACE_SECONDS)
            with held(made.pid):
                said = await turned_away(made.endpoint)
                assert said == f"{made.name} is being unloaded"
                draining = await reaches(api, made.name, pb.INSTANCE_STATE_DRAINING)
                assert draining.endpoint == "", "nobody is led there any more"
            left = [piece async for piece in pieces]  # raises unless [DONE] comes
        told = await rest(ending)
    assert len(left) > 100
    assert "cannot be refused" not in "".join(each.detail for each in told)
    assert told[-1].phase == pb.UNLOAD_PHASE_STOPPED
    assert told[-1].freed_bytes > 0
    assert told[-1].instance.last_exit.code == 0


@pytest.mark.engine
async def test_a_daemon_that_dies_meanwhile_shuts_the_door_again(busy: Gpud) -> None:
    async with calling(busy) as api:
        made = await load(api, "long")
        async with streaming(made.endpoint, TOKENS) as pieces:
            await anext(pieces)
            await seen_by(api, made, GRACE_SECONDS)
            with held(made.pid):
                await turned_away(made.endpoint)
                await asyncio.to_thread(busy.restart)
                said = await turned_away(made.endpoint)
                assert said == f"{made.name} is being unloaded"
            left = [piece async for piece in pieces]  # raises unless [DONE] comes
        async with calling(busy) as again:
            ended = await gone(again, made.name)
    assert len(left) > 100
    assert ended.last_exit.code == 0


@pytest.mark.engine
async def test_a_grace_goes_on_where_it_was_when_the_daemon_died(busy: Gpud) -> None:
    async with calling(busy) as api:
        made = await load(api, "long")
        async with streaming(made.endpoint, TOKENS) as pieces:
            await anext(pieces)
            await seen_by(api, made, grace_seconds=2)
            with held(made.pid):
                await asyncio.to_thread(busy.restart)
                async with calling(busy) as again:
                    with pytest.raises(ConnectionError):
                        _ = [piece async for piece in pieces]
                    await gone(again, made.name)


async def seen_by(api: Api, made: pb.Instance, grace_seconds: int) -> Any:
    """Its unload, once gpud has seen the request in flight: from then on it waits for it."""
    call = api.instances.UnloadModel(
        pb.UnloadModelRequest(instance=made.name, grace=Duration(seconds=grace_seconds))
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        while "1 requests in flight" not in (await call.read()).detail:
            pass
    return call


async def rest(call: Any) -> list[pb.UnloadModelResponse]:
    told = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (message := await call.read()) is not grpc.aio.EOF:
            told.append(message)
    return told


async def gone(api: Api, name: str) -> pb.Instance:
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for told in api.instances.WatchInstance(pb.WatchInstanceRequest(name=name)):
            if told.instance.state == pb.INSTANCE_STATE_STOPPED:
                return told.instance
    raise AssertionError(f"{name} is not told to have stopped")
