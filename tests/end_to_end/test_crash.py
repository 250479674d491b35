"""SIGKILL of the daemon while an engine loads or is stopped; the engine is a stub that waits."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import grpc
import msgspec
import pytest

from gpud.access.identity import CALLER, Caller, Proof, Role
from gpud.promises.requests import Remembered
from gpud.rpc.reservations import call_of
from gpud.v1 import instances_pb2 as pb
from tests.end_to_end.driving import (
    PATIENCE_SECONDS,
    books,
    event_types,
    instances,
    load,
    reaches,
    unload,
)
from tests.running import Api, Gpud, calling, refused_stream

MakeGpud = Callable[..., Gpud]


async def begin_load(api: Api, request_id: str = "") -> tuple[pb.Instance, asyncio.Task[None]]:
    """A load under way, in phase LOAD, and a client that follows it until it is cut off."""
    stream = api.instances.LoadModel(
        pb.LoadModelRequest(model="tiny", devices=["host"], request_id=request_id)
    )
    async for message in stream:
        if message.phase == pb.LOAD_PHASE_LOAD and message.instance.HasField("pid"):
            return message.instance, stream
    raise AssertionError("the load ended before phase LOAD")


async def test_kill_9_during_the_load_and_it_goes_on_from_there(
    stubbed: MakeGpud, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    daemon = stubbed("--hold", str(hold)).start()
    async with calling(daemon) as api:
        begun, stream = await begin_load(api, "once")
        numbers = await books(api)
        await asyncio.to_thread(daemon.restart)
        with pytest.raises(grpc.aio.AioRpcError) as cut:
            _ = [message async for message in stream]
        assert cut.value.code() is grpc.StatusCode.UNAVAILABLE

        adopted = await reaches(api, begun.name, pb.INSTANCE_STATE_LOADING)
        assert adopted.pid == begun.pid
        assert await books(api) == numbers
        hold.touch()
        # The client comes back with its request id, and finds its load.
        again = await load(api, request_id="once")
        assert (again.name, again.pid) == (begun.name, begun.pid)
        assert again.state == pb.INSTANCE_STATE_READY
        assert len(await instances(api)) == 1
        assert (await unload(api, model="tiny"))[-1].phase == pb.UNLOAD_PHASE_STOPPED
        assert (await books(api))["host"] == (0, 0)
        assert daemon.leftovers() == []


async def test_kill_9_during_the_load_and_the_engine_ends_meanwhile(
    stubbed: MakeGpud, tmp_path: Path
) -> None:
    daemon = stubbed("--hold", str(tmp_path / "never")).start()
    async with calling(daemon) as api:
        begun, _ = await begin_load(api)
        await asyncio.to_thread(daemon.kill)
        for pid in daemon.leftovers():
            _kill(pid)
        await asyncio.to_thread(daemon.start)
        failed = await reaches(api, begun.name, pb.INSTANCE_STATE_FAILED)
        assert failed.failure.reason == "INSTANCE_LOST"
        assert (await books(api))["host"] == (0, 0)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


async def test_kill_9_during_the_unload_and_it_is_ended(stubbed: MakeGpud) -> None:
    daemon = stubbed("--ignore-term").start()
    async with calling(daemon) as api:
        made = await load(api)
        stream = api.instances.UnloadModel(pb.UnloadModelRequest(instance=made.name))
        async for message in stream:
            if message.phase == pb.UNLOAD_PHASE_TERMINATE:
                break
        await asyncio.to_thread(daemon.restart)
        stopped = await reaches(api, made.name, pb.INSTANCE_STATE_STOPPED)
        assert not stopped.HasField("pid")
        assert (await books(api))["host"] == (0, 0)
        assert daemon.leftovers() == []
        assert "instance.adopted" not in await event_types(api, made.name)


async def test_kill_9_again_and_again_during_one_load(stubbed: MakeGpud, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    daemon = stubbed("--hold", str(hold)).start()
    async with calling(daemon) as api:
        begun, _ = await begin_load(api)
        for _ in range(3):
            await asyncio.to_thread(daemon.restart)
        hold.touch()
        ready = await reaches(api, begun.name, pb.INSTANCE_STATE_READY)
        assert ready.pid == begun.pid


async def test_a_stop_ordered_while_it_loads(stubbed: MakeGpud, tmp_path: Path) -> None:
    daemon = stubbed("--hold", str(tmp_path / "never")).start()
    async with calling(daemon) as api:
        begun, stream = await begin_load(api)
        ends = await unload(api, instance=begun.name)
        assert ends[-1].instance.state == pb.INSTANCE_STATE_STOPPED
        assert ends[-1].freed_bytes == begun.footprint.total_bytes
        refusal = await refused_stream(stream)
        assert refusal.reason == "LOAD_CANCELLED"
        assert (await books(api))["host"] == (0, 0)


async def test_the_same_unload_twice_is_the_same_unload(stubbed: MakeGpud) -> None:
    """Also by model, whose instance is gone by then, and after a restart."""
    daemon = stubbed().start()
    async with calling(daemon) as api:
        await load(api)
        first = await unload(api, model="tiny", request_id="bye")
        again = await unload(api, model="tiny", request_id="bye")
        assert again[-1].instance == first[-1].instance
        assert again[-1].phase == pb.UNLOAD_PHASE_STOPPED
        await asyncio.to_thread(daemon.restart)
        later = await unload(api, model="tiny", request_id="bye")
        assert later[-1].instance == first[-1].instance
        assert later[-1].phase == pb.UNLOAD_PHASE_STOPPED


async def test_clients_with_one_request_id_share_one_load(
    stubbed: MakeGpud, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    daemon = stubbed("--hold", str(hold)).start()
    async with calling(daemon) as api:
        async with asyncio.TaskGroup() as tasks:
            loads = [tasks.create_task(load(api, request_id="one")) for _ in range(5)]
            hold.touch()
        assert len({each.result().name for each in loads}) == 1
        assert len(await instances(api)) == 1


async def test_a_client_that_leaves_stops_nothing(stubbed: MakeGpud, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    daemon = stubbed("--hold", str(hold)).start()
    async with calling(daemon) as api:
        begun, stream = await begin_load(api)
        stream.cancel()
        hold.touch()
        assert (await reaches(api, begun.name, pb.INSTANCE_STATE_READY)).pid == begun.pid


async def test_followed_output_ends_with_the_instance(stubbed: MakeGpud) -> None:
    daemon = stubbed().start()
    async with calling(daemon) as api:
        made = await load(api)
        call = api.instances.TailOutput(pb.TailOutputRequest(instance=made.name, follow=True))
        first = await anext(aiter(call))
        assert any("model loaded" in line for line in first.lines)
        await unload(api, instance=made.name)
        async with asyncio.timeout(PATIENCE_SECONDS):
            rest = [line async for part in call for line in part.lines]
        assert any("cleaning up before exit" in line for line in rest)


async def test_an_unload_whose_id_alone_was_kept_is_done_when_it_is_asked_again(
    stubbed: MakeGpud,
) -> None:
    """Killed between the two commits, the repeat waited for a stop that nobody had ordered."""
    daemon = stubbed().start()
    async with calling(daemon) as api:
        made = await load(api)
    daemon.kill()
    id_ = made.name.removeprefix("instances/")
    CALLER.set(Caller(name="admin", role=Role.ADMIN, proof=Proof.SOCKET, origin=""))
    call = call_of("UnloadModel", "bye", id_, "", False)
    kept = Remembered(method=call.method, digest=call.digest, result=id_, wall=time.time())
    with sqlite3.connect(daemon.state / "state.db") as connection:
        row = ("request", "bye", msgspec.json.encode(kept))
        connection.execute("INSERT INTO rows (kind, id, body) VALUES (?, ?, ?)", row)
    connection.close()
    daemon.start()
    async with calling(daemon) as api:
        ends = await unload(api, instance=made.name, request_id="bye")
        assert ends[-1].instance.state == pb.INSTANCE_STATE_STOPPED
        assert daemon.leftovers() == []
