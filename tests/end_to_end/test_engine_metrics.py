"""What the real llama-server counts, as gpud tells it while the server works."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.request
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gpud.v1 import history_pb2
from tests.end_to_end.driving import PATIENCE_SECONDS, counting, load, streaming
from tests.running import Gpud, calling

pytestmark = pytest.mark.engine
MakeGpud = Callable[..., Gpud]

SETTINGS = (
    '[models.voiced]\npath = "tiny.gguf"\ncontext_length = 65536\nparallel = 2\nthreads = 1\n'
    'labels = { service = "voice" }\n'
    '[engine_metrics]\ninterval = "200ms"\n[health]\nwatch = "300ms"\n'
)


@pytest.fixture
def served(modelled: MakeGpud, llama_server: Path) -> Gpud:
    made = modelled(llama_server, models=SETTINGS)
    made.devices = "host = true\n"
    made.cards = 0
    return made.start()


def complete(endpoint: str, **said: Any) -> dict[str, Any]:
    body = json.dumps({"n_predict": 8, "ignore_eos": True, **said}).encode()
    request = urllib.request.Request(f"{endpoint}/completion", body)
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        return dict(json.load(answer))


async def test_full_slots_speed_and_cache_are_told_as_they_are(served: Gpud) -> None:
    async with calling(served) as api:
        made = await load(api, "voiced", labels={"service": "chat"})
        idle = await counting(api, made.name, lambda m: m.HasField("requests_running"))
        assert (idle.requests_running, idle.slots, idle.slots_full) == (0, 2, False)
        assert idle.service == "chat", "its promise's label comes before its model's"
        # No counter of requests, no histogram, and no benchmark was made.
        for absent in ("requests_per_second", "error_ratio", "time_to_first_token", "request"):
            assert not idle.HasField(absent), absent

        async with AsyncExitStack() as requests:
            for _ in range(3):
                await requests.enter_async_context(streaming(made.endpoint, 30000))
            full = await counting(
                api, made.name, lambda m: m.requests_waiting == 1 and m.slots_full
            )
            assert full.requests_running == 2
            # Tokens are told as they are given; the server counts them when a request ends.
            given = await counting(
                api, made.name, lambda m: m.generated_tokens_per_second > 0 and m.slots_full
            )
            assert given.generated_tokens_total < 100
            assert given.slots_busy == pytest.approx(2.0, abs=0.5)
        left = await counting(api, made.name, lambda m: not m.slots_full)
        await counting(api, made.name, lambda m: m.requests_running == m.requests_waiting == 0)
        await asyncio.to_thread(complete, made.endpoint, prompt="the", n_predict=50)
        least = left.generated_tokens_total + 50
        done = await counting(api, made.name, lambda m: m.generated_tokens_total >= least)
        assert done.problem == ""

        prompt = "the of and to in is it you that he was for on are with as his they be at " * 4
        for _ in range(3):
            said = await asyncio.to_thread(
                complete, made.endpoint, prompt=prompt, cache_prompt=True, id_slot=0
            )
        assert said["timings"]["cache_n"] > 0, "else this shows nothing"
        cached = await counting(api, made.name, lambda m: m.cached_tokens_total > 0)
        cached = await counting(api, made.name, lambda m: m.cache_hit_ratio > 0.5)
        assert cached.cache_hit_ratio < 1

        query = history_pb2.QueryHistoryRequest(
            subjects=[made.name, made.model], fields=["requests_running", "slots"]
        )
        kept = await api.telemetry.QueryHistory(query)
        assert {(each.subject, each.field) for each in kept.series} == {
            (subject, field)
            for subject in (made.name, made.model)
            for field in ("requests_running", "slots")
        }
        running = max(point.max for each in kept.series for point in each.points)
        assert running == 2.0


async def test_an_engine_that_is_started_again_counts_from_nothing(served: Gpud) -> None:
    async with calling(served) as api:
        made = await load(api, "voiced")
        await asyncio.to_thread(complete, made.endpoint, prompt="the", n_predict=200)
        before = await counting(api, made.name, lambda m: m.generated_tokens_total >= 200)
        os.kill(made.pid, signal.SIGKILL)
        after = await counting(
            api, made.name, lambda m: m.HasField("time") and m.generated_tokens_total < 200
        )
        assert before.service == after.service == "voice"
        assert after.generated_tokens_per_second < 200
