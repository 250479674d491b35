"""The real llama-server at what looks like a fault and is none, and at what is told of it."""

from __future__ import annotations

import asyncio
import json
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from gpud.v1 import instances_pb2 as pb
from tests.end_to_end.driving import PATIENCE_SECONDS, event_types, load, load_messages, reaches
from tests.running import Api, Gpud, calling, refused_stream

pytestmark = pytest.mark.engine
MakeGpud = Callable[..., Gpud]

QUICK = '[health]\nwatch = "50ms"\nhealth = "100ms"\nprobe = "200ms"\nstuck = "700ms"\n'
# The whole of a prompt in one batch, on one thread: some 10 s.
SLOW = (
    '[models.slow]\npath = "tiny.gguf"\ncontext_length = 32768\nbatch = 16384\nubatch = 16384\n'
    "threads = 1\nthreads_batch = 1\n"
)
LONG_PROMPT = 8000


@pytest.fixture
def watcher(modelled: MakeGpud, llama_server: Path) -> MakeGpud:
    def make(models: str) -> Gpud:
        return modelled(llama_server, models=models + QUICK)

    return make


def prompt_milliseconds(endpoint: str, tokens: int) -> float:
    """How long the engine took for a prompt of so many."""
    body = json.dumps({"prompt": [5] * tokens, "n_predict": 1}).encode()
    request = urllib.request.Request(f"{endpoint}/completion", body)
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        return float(json.load(answer)["timings"]["prompt_ms"])


async def test_one_batch_that_takes_longer_than_stuck_is_computed_to_its_end(
    watcher: MakeGpud,
) -> None:
    """Its counters stand still all the while; the CPU time that it takes does not."""
    daemon = watcher(SLOW).start()
    async with calling(daemon) as api:
        made = await load(api, "slow")
        spent = await asyncio.to_thread(prompt_milliseconds, made.endpoint, LONG_PROMPT)
        assert spent > 2 * 700, "else this shows nothing"
        (after,) = (await api.instances.ListInstances(pb.ListInstancesRequest())).instances
        assert (after.pid, after.restarts) == (made.pid, 0)
        assert "instance.stuck" not in await event_types(api, made.name)


async def test_the_idle_time_goes_on_over_a_restart_of_the_daemon(watcher: MakeGpud) -> None:
    daemon = watcher('[models.brief]\npath = "tiny.gguf"\nidle_ttl = "1h"\n').start()
    async with calling(daemon) as api:
        made = await load(api, "brief")
        # Told with the first look, then again once that is written down.
        before = await deadline(api, made.name, times=2)
        await asyncio.to_thread(daemon.restart)
        # What it is counted from is told in wall time, that is made anew from two clocks.
        assert await deadline(api, made.name) == pytest.approx(before, abs=0.2)


async def deadline(api: Api, name: str, times: int = 1) -> float:
    """When it will be unloaded, once that was told so often, in wall seconds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for told in api.instances.WatchInstance(pb.WatchInstanceRequest(name=name)):
            times -= told.instance.HasField("idle_deadline")
            if not times:
                return told.instance.idle_deadline.ToNanoseconds() / 1e9
    raise AssertionError(f"{name} ended")


async def test_a_projector_that_is_none_is_told_as_the_cause(watcher: MakeGpud) -> None:
    daemon = watcher('[models.sees]\npath = "tiny.gguf"\nmmproj = "none.gguf"\n')
    roots = daemon.directory / "models"
    shutil.copy(roots / "tiny.gguf", roots / "none.gguf")
    daemon.start()
    async with calling(daemon) as api:
        asked = api.instances.LoadModel(pb.LoadModelRequest(model="sees", devices=["host"]))
        refusal = await refused_stream(asked)
        assert "the projector could not be loaded" in refusal.message


async def test_options_that_come_to_nothing_are_told(watcher: MakeGpud) -> None:
    daemon = watcher('[models.split]\npath = "tiny.gguf"\ngpu_layers = 7\n').start()
    async with calling(daemon) as api:
        told = await load_messages(api, "split")
        assert told[-1].instance.options_ignored == "gpu_layers: no effect on host alone"
        starts = [each.detail for each in told if each.phase == pb.LOAD_PHASE_START]
        assert any("gpu_layers: no effect" in each for each in starts)
        await reaches(api, told[-1].instance.name, pb.INSTANCE_STATE_READY)
