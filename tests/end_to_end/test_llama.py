"""The real llama-server: loaded, used, unloaded, and outliving its daemon."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from gpud.v1 import instances_pb2 as pb
from gpud.v1 import models_pb2, reservations_pb2
from tests.end_to_end.driving import (
    PATIENCE_SECONDS,
    books,
    event_types,
    instances,
    load,
    load_messages,
    reaches,
    streaming,
    unload,
)
from tests.running import Api, Gpud, calling, refused_stream

pytestmark = pytest.mark.engine
MakeGpud = Callable[..., Gpud]


@pytest.fixture
def daemon(modelled: MakeGpud, llama_server: Path) -> Gpud:
    return modelled(llama_server).start()


def chat(endpoint: str) -> dict[str, object]:
    body = json.dumps({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8})
    request = urllib.request.Request(
        f"{endpoint}/v1/chat/completions",
        body.encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        said: dict[str, object] = json.load(answer)
    return said


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_a_model_is_loaded_used_and_unloaded(daemon: Gpud) -> None:
    async with calling(daemon) as api:
        before = await books(api)
        told = await load_messages(api, owner="anna@host")
        made = told[-1].instance

        phases = [message.phase for message in told]
        assert phases == sorted(phases)
        assert set(phases) >= {
            pb.LOAD_PHASE_DETECT, pb.LOAD_PHASE_VERIFY, pb.LOAD_PHASE_START,
            pb.LOAD_PHASE_LOAD, pb.LOAD_PHASE_WARMUP, pb.LOAD_PHASE_READY,
        }  # fmt: skip
        assert [each.phase for each in made.phases] == [*range(1, 9)]
        assert made.state == pb.INSTANCE_STATE_READY
        assert made.owner == "anna@host"
        assert made.tokens_per_second > 0
        assert 0 < made.engine_bytes <= made.footprint.total_bytes
        assert made.footprint.total_bytes == sum(item.bytes for item in made.footprint.items)
        assert (await books(api))["host"][0] == before["host"][0] + made.footprint.total_bytes

        said = await asyncio.to_thread(chat, made.endpoint)
        assert said["usage"]["completion_tokens"] > 0  # type: ignore[index]

        lines = [
            line
            async for part in api.instances.TailOutput(
                pb.TailOutputRequest(instance=made.name, lines=20)
            )
            for line in part.lines
        ]
        assert len(lines) == 20

        ends = await unload(api, instance=made.name)
        assert ends[-1].phase == pb.UNLOAD_PHASE_STOPPED
        assert ends[-1].instance.state == pb.INSTANCE_STATE_STOPPED
        assert ends[-1].freed_bytes == made.footprint.total_bytes
        assert await books(api) == before
        assert not alive(made.pid)
        assert daemon.leftovers() == []
        types = await event_types(api, made.name)
        assert types.index("instance.ready") < types.index("instance.ended")


async def test_validate_only_promises_nothing(daemon: Gpud) -> None:
    async with calling(daemon) as api:
        before = await books(api)
        (told,) = await load_messages(api, validate_only=True)
        assert told.instance.footprint.total_bytes > 0
        assert told.detail.endswith(" would be promised on host; nothing was")
        huge = pb.LoadModelRequest(
            model="tiny",
            devices=["gpu0"],
            validate_only=True,
            options=models_pb2.ModelOptions(context_length=2**24),
        )
        assert (await refused_stream(api.instances.LoadModel(huge))).reason == "VRAM_INSUFFICIENT"
        assert (await books(api), await instances(api)) == (before, [])


async def test_kill_9_while_ready_cuts_no_stream(modelled: MakeGpud, llama_server: Path) -> None:
    """The engine is adopted as it is: pid, promise, numbers; its token stream never notices."""
    daemon = modelled(
        llama_server,
        models='[models.long]\npath = "tiny.gguf"\ncontext_length = 16384\nthreads = 1\n',
    ).start()
    async with calling(daemon) as api:
        made = await load(api, "long")
        promise, numbers = await promise_of(api, made), await books(api)
        tokens = 6000
        async with streaming(made.endpoint, tokens) as pieces:
            seen = [await anext(pieces) for _ in range(3)]
            await asyncio.to_thread(daemon.restart)
            after = await reaches(api, made.name, pb.INSTANCE_STATE_READY)
            adopted_at = len(seen)
            seen += [piece async for piece in pieces]
        assert len(seen) > adopted_at + 1000  # it went on all the while
        last = json.loads(seen[-1])
        assert last["choices"][0]["finish_reason"] == "length"
        assert last["timings"]["predicted_n"] == tokens
        assert (after.pid, after.endpoint, after.restarts) == (made.pid, made.endpoint, 0)
        assert alive(made.pid)
        assert await books(api) == numbers
        moved = await promise_of(api, made)
        assert moved.generation == promise.generation + 1
        assert moved.grants[0].bytes == promise.grants[0].bytes
        assert "instance.adopted" in await event_types(api, made.name)
        ends = await unload(api, instance=made.name)
        assert ends[-1].freed_bytes == made.footprint.total_bytes
        assert (await books(api))["host"] == (0, 0)
        assert not alive(made.pid)


async def promise_of(api: Api, instance: pb.Instance) -> reservations_pb2.Reservation:
    answer = await api.reservations.GetReservation(
        reservations_pb2.GetReservationRequest(name=instance.reservation)
    )
    return answer.reservation


async def test_a_restart_by_sigterm_keeps_the_engine(daemon: Gpud) -> None:
    async with calling(daemon) as api:
        made = await load(api)
        assert await asyncio.to_thread(daemon.stop) == 0
        assert alive(made.pid)
        await asyncio.to_thread(chat, made.endpoint)
        await asyncio.to_thread(daemon.start)
        after = await reaches(api, made.name, pb.INSTANCE_STATE_READY)
        assert after.pid == made.pid
        await asyncio.to_thread(chat, after.endpoint)


async def test_an_engine_that_ended_while_the_daemon_was_away(
    modelled: MakeGpud, llama_server: Path
) -> None:
    """Of a model that is not to be started again."""
    once = '[models.once]\npath = "tiny.gguf"\nrestart = "never"\n'
    daemon = modelled(llama_server, models=once).start()
    async with calling(daemon) as api:
        before = await books(api)
        made = await load(api, "once")
        await asyncio.to_thread(daemon.kill)
        os.kill(made.pid, signal.SIGKILL)
        await asyncio.to_thread(daemon.start)
        failed = await reaches(api, made.name, pb.INSTANCE_STATE_FAILED)
        assert failed.failure.reason == "INSTANCE_LOST"
        assert await books(api) == before
