"""The real llama-server at what looks like a fault and is none, and at what is told of it."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from gpud.v1 import instances_pb2 as pb
from gpud.v1 import models_pb2
from tests.end_to_end.driving import PATIENCE_SECONDS, event_types, load, load_messages, reaches
from tests.running import Api, Gpud, calling, refused_stream

pytestmark = pytest.mark.engine
MakeGpud = Callable[..., Gpud]

QUICK = '[health]\nwatch = "50ms"\nhealth = "100ms"\nprobe = "200ms"\nstuck = "2s"\n'
# The whole of a prompt in one batch, on one thread: some 10 s of the longest.
SLOW = (
    '[models.slow]\npath = "tiny.gguf"\ncontext_length = 32768\nbatch = 16384\nubatch = 16384\n'
    "threads = 1\nthreads_batch = 1\n"
)
LONG_PROMPTS = (2000, 4000, 8000, 16_000)  # as many as it takes on this host
STUCK_MILLISECONDS = 2000


@pytest.fixture
def watcher(modelled: MakeGpud, llama_server: Path) -> MakeGpud:
    def make(models: str) -> Gpud:
        return modelled(llama_server, models=models + QUICK)

    return make


def prompt_milliseconds(endpoint: str, tokens: int) -> float:
    """How long the engine took for a prompt of so many."""
    body = json.dumps({"cache_prompt": False, "prompt": [5] * tokens, "n_predict": 1}).encode()
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
        for tokens in LONG_PROMPTS:
            spent = await asyncio.to_thread(prompt_milliseconds, made.endpoint, tokens)
            if spent > 2 * STUCK_MILLISECONDS:
                break
        (after,) = (await api.instances.ListInstances(pb.ListInstancesRequest())).instances
        assert (after.pid, after.restarts) == (made.pid, 0)
        assert "instance.stuck" not in await event_types(api, made.name)


async def test_the_idle_time_goes_on_over_a_restart_of_the_daemon(watcher: MakeGpud) -> None:
    daemon = watcher('[models.brief]\npath = "tiny.gguf"\nidle_ttl = "1h"\n').start()
    async with calling(daemon) as api:
        made = await load(api, "brief")
        before = await deadline(api, made.name)
        while not noted(daemon, made.name):
            before = await deadline(api, made.name)
        began = time.monotonic()
        await asyncio.to_thread(daemon.restart)
        # What it is counted from is told in wall time, that is made anew from two clocks; counted
        # from the restart it would be later by nearly all the time that this took.
        aside = (time.monotonic() - began) / 2
        assert await deadline(api, made.name) == pytest.approx(before, abs=aside)


def noted(daemon: Gpud, name: str) -> bool:
    """Whether it is written down when it was last used."""
    asked = "SELECT body FROM rows WHERE kind = 'instance' AND id = ?"
    with closing(sqlite3.connect(daemon.state / "state.db")) as store:
        (body,) = store.execute(asked, (name.removeprefix("instances/"),)).fetchone()
    return json.loads(body)["use"] is not None


async def deadline(api: Api, name: str) -> float:
    """When it will be unloaded, in wall seconds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for told in api.instances.WatchInstance(pb.WatchInstanceRequest(name=name)):
            if told.instance.HasField("idle_deadline"):
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
        (rehearsed,) = await load_messages(api, "split", validate_only=True)
        assert rehearsed.instance.options_ignored == "gpu_layers: no effect on host alone"
        entry = (await api.models.GetModel(models_pb2.GetModelRequest(name="split"))).model
        # There is a card on this host: it depends on where it comes to run.
        assert entry.options_ignored == ""
        told = await load_messages(api, "split")
        assert told[-1].instance.options_ignored == "gpu_layers: no effect on host alone"
        starts = [each.detail for each in told if each.phase == pb.LOAD_PHASE_START]
        assert any("gpu_layers: no effect" in each for each in starts)
        await reaches(api, told[-1].instance.name, pb.INSTANCE_STATE_READY)
