"""What goes wrong with a real vLLM: before its start, in it, while it serves."""

from __future__ import annotations

import asyncio
import os
import signal

from gpud.v1 import instances_pb2 as pb
from tests.end_to_end.driving import books, reaches, unload
from tests.running import Api, calling, refused_stream
from tests.vllm.conftest import LOAD_SECONDS, Serving
from tests.vllm.processes import descendants, lives, wait_until


async def test_weights_that_were_cut_start_nothing(serving: Serving) -> None:
    async with calling(serving.gpud) as api:
        stream = api.instances.LoadModel(pb.LoadModelRequest(model="cut", devices=["host"]))
        refusal = await refused_stream(stream)
        assert refusal.reason == "MODEL_FILE_INVALID"
        assert "model.safetensors is cut short" in refusal.message
        assert (await books(api))["host"][1] == 0


async def test_a_cache_too_small_for_one_sequence_fails_the_load_at_its_own_words(
    serving: Serving,
) -> None:
    """Not after the ten minutes that the API server would wait for its core."""
    async with calling(serving.gpud) as api, asyncio.timeout(LOAD_SECONDS):
        before = await books(api)
        stream = api.instances.LoadModel(pb.LoadModelRequest(model="starved", devices=["host"]))
        refusal = await refused_stream(stream)
        assert refusal.reason in {"ENGINE_EXITED", "ENGINE_NOT_READY"}
        assert "does not hold one sequence of context_length tokens" in refusal.message
        assert "LOAD" in refusal.metadata.get("phase", "")
        assert await books(api) == before
    wait_until("nothing of it runs", lambda: len(serving.gpud.leftovers()) == 0)


async def says(api: Api, instance: str, words: str) -> bool:
    """Whether it prints them before it ends."""
    request = pb.TailOutputRequest(instance=instance, lines=100, follow=True)
    async for part in api.instances.TailOutput(request):
        if any(words in line for line in part.lines):
            return True
    return False


async def test_one_that_starts_and_ignores_sigterm_is_unloaded_whole(serving: Serving) -> None:
    """While its core starts vLLM takes no SIGTERM for half a minute and more."""
    async with calling(serving.gpud) as api, asyncio.timeout(LOAD_SECONDS):
        before = await books(api)
        load = api.instances.LoadModel(pb.LoadModelRequest(model="tiny", devices=["host"]))
        first = await load.read()
        instance = first.instance.name
        started = await reaches(api, instance, pb.INSTANCE_STATE_LOADING)
        assert await says(api, instance, "Initializing a V1 LLM engine")
        tree = descendants(started.pid)
        assert len(tree) > 1
        told = await unload(api, instance=instance)
        assert told[-1].phase == pb.UNLOAD_PHASE_STOPPED
        assert not any(map(lives, tree))
        assert await books(api) == before


async def test_an_embedder_serves_and_its_api_server_is_killed(serving: Serving) -> None:
    """What it leaves behind, its core and its worker, is ended before its bytes are free."""
    made = await asyncio.to_thread(serving.json, "load", "embedder", "--device", "host")
    vector = await asyncio.to_thread(
        serving.openai,
        "said = client.embeddings.create(model='embedder', input='hello')\n"
        "print(json.dumps(said.data[0].embedding))",
        made["endpoint"],
    )
    assert len(vector) == 64
    tree = descendants(made["pid"])
    os.kill(made["pid"], signal.SIGKILL)
    async with calling(serving.gpud) as api:
        await reaches(api, made["name"], pb.INSTANCE_STATE_FAILED)
        assert not any(map(lives, tree))
        assert (await books(api))["host"] == (0, 0)
