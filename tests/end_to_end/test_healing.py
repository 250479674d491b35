"""The real llama-server fails while it serves, and is started again inside its promise."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path

import grpc
import psutil
import pytest
from google.protobuf.duration_pb2 import Duration

from gpud.v1 import instances_pb2 as pb
from tests.end_to_end.driving import (
    PATIENCE_SECONDS,
    books,
    event_types,
    instances,
    load,
    reaches,
    streaming,
    unload,
)
from tests.running import Api, Gpud, calling, refused

pytestmark = pytest.mark.engine
MakeGpud = Callable[..., Gpud]

# Stuck is who is silent for longer than a busy host may keep an engine from its CPU.
QUICK = (
    '[health]\nwatch = "50ms"\nhealth = "100ms"\nprobe = "200ms"\nstuck = "5s"\n'
    'backoff_first = "50ms"\nbackoff_most = "200ms"\n'
)
READY, BACKOFF, FAILED = (
    pb.INSTANCE_STATE_READY,
    pb.INSTANCE_STATE_BACKOFF,
    pb.INSTANCE_STATE_FAILED,
)


@pytest.fixture
def healer(modelled: MakeGpud, llama_server: Path) -> MakeGpud:
    """Makes daemons with short spans, and models beside `tiny`."""

    def make(models: str = "", **settings: object) -> Gpud:
        return modelled(llama_server, models=models + QUICK, **settings)

    return make


def complete(endpoint: str) -> int:
    """Tokens of a short answer."""
    body = json.dumps({"prompt": "the", "max_tokens": 8, "ignore_eos": True}).encode()
    request = urllib.request.Request(
        f"{endpoint}/v1/completions", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        return int(json.load(answer)["usage"]["completion_tokens"])


async def healed(api: Api, before: pb.Instance) -> pb.Instance:
    """It, once it serves with another process; fails if it ends."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        request = pb.WatchInstanceRequest(name=before.name)
        async for told in api.instances.WatchInstance(request):
            if told.instance.state == READY and told.instance.pid != before.pid:
                return told.instance
    raise AssertionError(f"{before.name} ended: {told.instance.failure}")


async def verdict(api: Api, name: str, wanted: int) -> pb.Instance:
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for told in api.instances.WatchInstance(pb.WatchInstanceRequest(name=name)):
            if told.instance.health.verdict == wanted:
                return told.instance
    raise AssertionError(f"{name} never was {pb.HealthVerdict.Name(wanted)}")


def stop_tree(pid: int) -> None:
    """As a wedge in a driver would: nothing of it goes on, and nothing ends."""
    process = psutil.Process(pid)
    for each in (process, *process.children(recursive=True)):
        each.send_signal(signal.SIGSTOP)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_an_engine_ended_from_outside_is_healed_in_its_promise(
    healer: MakeGpud, number: int
) -> None:
    daemon = healer().start()
    async with calling(daemon) as api:
        made = await load(api)
        held = await books(api)
        os.kill(made.pid, number)
        after = await healed(api, made)
        assert (after.name, after.reservation) == (made.name, made.reservation)
        assert (after.restarts, after.endpoint) == (1, made.endpoint)
        assert (await books(api)) == held
        assert await asyncio.to_thread(complete, after.endpoint) == 8
        assert [each.phase for each in after.phases] == [4, 5, 6, 7, 8]
        types = await event_types(api, made.name)
        assert types.index("instance.ailing") < types.index("instance.healed")
        await unload(api, instance=made.name)
        assert daemon.leftovers() == []
        assert (await books(api))["host"] == (0, 0)


async def test_a_wedged_engine_is_found_stuck_and_healed(healer: MakeGpud) -> None:
    """Stopped with a request in flight; also the shim above it."""
    daemon = healer(
        models='[models.long]\npath = "tiny.gguf"\ncontext_length = 32768\nthreads = 1\n'
    ).start()
    async with calling(daemon) as api:
        made = await load(api, "long")
        held = await books(api)
        async with streaming(made.endpoint, 30_000) as pieces:
            await anext(pieces)
            busy = await verdict(api, made.name, pb.HEALTH_VERDICT_BUSY)
            assert (busy.busy, busy.health.requests_running) == (True, 1)
            stop_tree(psutil.Process(made.pid).ppid())
            after = await healed(api, made)
        assert (after.restarts, after.reservation) == (1, made.reservation)
        assert await books(api) == held
        assert after.last_exit.signal == signal.SIGKILL
        assert await asyncio.to_thread(complete, after.endpoint) == 8
        types = await event_types(api, made.name)
        order = [types.index(f"instance.{each}") for each in ("stuck", "ailing", "healed")]
        assert order == sorted(order)
        await unload(api, instance=made.name)
        assert daemon.leftovers() == []


async def test_an_idle_engine_that_keeps_contexts_is_asked_for_no_token(
    healer: MakeGpud,
) -> None:
    """A probe would push a chat that rests out of the cache; one was due every 200 ms."""
    models = '[models.brief]\npath = "tiny.gguf"\nidle_ttl = "5s"\n'
    daemon = healer(models=models).start()
    async with calling(daemon) as api:
        made = await load(api, "brief")
        idle = await verdict(api, made.name, pb.HEALTH_VERDICT_IDLE)
        assert idle.idle_ttl == Duration(seconds=5)
        assert idle.HasField("idle_deadline")
        await asyncio.to_thread(complete, made.endpoint)
        ended = await reaches(api, made.name, pb.INSTANCE_STATE_STOPPED)
        assert ended.failure.reason == ""
        assert "instance.stopping" in await event_types(api, made.name)
        # It printed each request: the warm-up, and ours.
        lines = [
            line
            async for part in api.instances.TailOutput(
                pb.TailOutputRequest(instance=made.name, lines=10_000)
            )
            for line in part.lines
        ]
        served = [line for line in lines if "processing task" in line]
        assert len(served) == 2
        assert not any("all slots are idle" in line for line in lines)


async def test_a_request_in_flight_keeps_it_loaded_and_pinned_does_for_ever(
    healer: MakeGpud,
) -> None:
    models = (
        '[models.long]\npath = "tiny.gguf"\ncontext_length = 16384\nthreads = 1\nidle_ttl = "3s"\n'
    )
    daemon = healer(models=models).start()
    async with calling(daemon) as api:
        pinned = await load(api, "long", pinned=True)
        made = await load(api, "long")
        assert (pinned.pinned, made.pinned) == (True, False)
        async with streaming(made.endpoint, 6000) as pieces:
            seen = [json.loads(piece) async for piece in pieces]
        assert seen[-1]["choices"][0]["finish_reason"] == "length"
        await reaches(api, made.name, pb.INSTANCE_STATE_STOPPED)
        (left,) = [each for each in await instances(api) if each.state == READY]
        assert left.name == pinned.name
        assert not left.HasField("idle_deadline")


async def test_a_model_that_is_not_to_be_restarted_fails(healer: MakeGpud) -> None:
    models = '[models.once]\npath = "tiny.gguf"\nrestart = "never"\n'
    daemon = healer(models=models).start()
    async with calling(daemon) as api:
        before = await books(api)
        made = await load(api, "once")
        os.kill(made.pid, signal.SIGKILL)
        failed = await reaches(api, made.name, FAILED)
        assert failed.failure.reason == "ENGINE_EXITED"
        assert failed.last_exit.signal == signal.SIGKILL
        assert await books(api) == before
        assert daemon.leftovers() == []


async def test_the_breaker_and_its_reset(healer: MakeGpud) -> None:
    daemon = healer().start()
    async with calling(daemon) as api:
        made = await load(api)
        now = made
        for _ in range(4):
            os.kill(now.pid, signal.SIGKILL)
            now = await healed(api, now)
        assert now.restarts == 4
        os.kill(now.pid, signal.SIGKILL)
        failed = await reaches(api, made.name, FAILED)
        assert failed.failure.reason == "RESTART_LOOP"
        assert "failed 5 times within 600 s" in failed.failure.message
        assert "gpuctl reset" in failed.failure.message
        assert (await books(api))["host"] == (0, 0)

        asked = pb.ResetInstanceRequest(name=made.name, request_id="again")
        answer = await api.instances.ResetInstance(asked)
        assert answer.instance.name == made.name
        ready = await reaches(api, made.name, READY)
        assert ready.reservation != made.reservation
        assert ready.failure.reason == ""
        assert await asyncio.to_thread(complete, ready.endpoint) == 8
        # The same id, the same result; another one finds nothing to reset.
        again = await api.instances.ResetInstance(asked)
        assert again.instance.pid == ready.pid
        other = pb.ResetInstanceRequest(name=made.name, request_id="other")
        assert (await refused(api.instances.ResetInstance(other))).reason == "WRONG_STATE"
        await unload(api, instance=made.name)


async def test_kill_9_of_the_daemon_while_it_waits_to_start_the_engine_again(
    healer: MakeGpud,
) -> None:
    daemon = healer()
    daemon.extra = daemon.extra.replace('backoff_first = "50ms"', 'backoff_first = "60s"')
    daemon.extra = daemon.extra.replace('backoff_most = "200ms"', 'backoff_most = "60s"')
    daemon.start()
    async with calling(daemon) as api:
        made = await load(api)
        held = await books(api)
        os.kill(made.pid, signal.SIGKILL)
        waits = await reaches(api, made.name, BACKOFF)
        assert waits.endpoint == ""
        assert "killed by signal 9" in waits.health.reason
        await asyncio.to_thread(daemon.restart)
        after = await reaches(api, made.name, BACKOFF)
        assert after.retry_time == waits.retry_time
        assert await books(api) == held
        # Sooner, because somebody says so.
        await api.instances.ResetInstance(pb.ResetInstanceRequest(name=made.name))
        ready = await healed(api, made)
        assert ready.health.failures == 0
        os.kill(ready.pid, signal.SIGKILL)
        await reaches(api, made.name, BACKOFF)
        ends = await unload(api, instance=made.name)
        assert ends[-1].instance.state == pb.INSTANCE_STATE_STOPPED
        assert ends[-1].freed_bytes == made.footprint.total_bytes


async def test_an_engine_that_ended_while_the_daemon_was_away_is_healed(healer: MakeGpud) -> None:
    daemon = healer().start()
    async with calling(daemon) as api:
        made = await load(api)
        held = await books(api)
        await asyncio.to_thread(daemon.kill)
        os.kill(made.pid, signal.SIGKILL)
        await asyncio.to_thread(daemon.start)
        after = await healed(api, made)
        assert (after.restarts, after.reservation) == (1, made.reservation)
        assert after.last_exit.signal == signal.SIGKILL
        assert await books(api) == held


async def test_two_who_ask_for_the_same_load_get_the_same(healer: MakeGpud) -> None:
    daemon = healer().start()
    async with calling(daemon) as api:
        async with asyncio.TaskGroup() as tasks:
            same = [tasks.create_task(load(api)) for _ in range(3)]
            other = tasks.create_task(load(api, owner="bert"))
        assert len({each.result().name for each in same}) == 1
        assert other.result().name != same[0].result().name
        # What is READY is not under way any more.
        assert (await load(api)).name != same[0].result().name


async def test_one_that_lets_its_weights_go_is_left_to_sleep(healer: MakeGpud) -> None:
    models = '[models.dozer]\npath = "tiny.gguf"\nsleep_idle_seconds = 1\n'
    daemon = healer(models=models).start()
    async with calling(daemon) as api:
        made = await load(api, "dozer")
        asleep = await verdict(api, made.name, pb.HEALTH_VERDICT_SLEEPING)
        assert (asleep.state, asleep.health.ready, asleep.restarts) == (READY, True, 0)
        assert await asyncio.to_thread(complete, made.endpoint) == 8


async def test_only_its_owner_or_an_admin_resets_it(healer: MakeGpud) -> None:
    daemon = healer()
    path = daemon.directory / "operator.sock"
    daemon.extra += f'[sockets.operator]\npath = "{path}"\n'
    daemon.start()
    async with calling(daemon) as api:
        made = await load(api, owner="bert")
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            asked = Api(channel).instances.ResetInstance(pb.ResetInstanceRequest(name=made.name))
            assert (await refused(asked)).reason == "NOT_OWNER"
