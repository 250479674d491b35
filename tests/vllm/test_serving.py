"""One real vLLM on the host, from its load to the death of its engine core, in this order."""

from __future__ import annotations

import asyncio
import os
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from gpud.engines.api_key import ApiKey
from gpud.engines.engine import Readiness
from gpud.engines.probe import HttpProbe
from gpud.engines.vllm import metrics
from gpud.engines.vllm.engine import Vllm
from gpud.models.model import EngineKind, Model, ModelKind, ModelOptions
from gpud.v1 import instances_pb2 as pb
from tests.end_to_end.driving import PATIENCE_SECONDS, counting, reaches, streaming
from tests.running import calling
from tests.vllm.conftest import KEY, Serving
from tests.vllm.processes import descendants, lives, name, resident_bytes, wait_until

Json = dict[str, Any]
REQUESTS = 12


def fetch(url: str, key: str = "") -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as a:
            return a.status, a.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def item(instance: Json, what: str) -> int:
    items = instance["footprint"]["items"]
    return sum(each["bytes"] for each in items if each["what"] == what)


@pytest.fixture
def engine(serving: Serving, tmp_path: Path) -> Vllm:
    return Vllm((str(serving.python.parent / "vllm"), "serve"), tmp_path, HttpProbe())


def test_a_load_goes_through_its_phases_and_says_what_runs(tiny: Json, serving: Serving) -> None:
    assert tiny["state"] == "INSTANCE_STATE_READY"
    assert tiny["engine"] == "ENGINE_VLLM"
    assert len(tiny["phases"]) == 8
    assert tiny["tokens_per_second"] > 0
    assert tiny["time_to_first_token"]
    names = {name(pid) for pid in descendants(tiny["pid"])}
    assert {"vllm", "VLLM::EngineCor", "VLLM::Worker"} <= names
    engines = {each["engine"]: each for each in serving.json("status")["node"]["engines"]}
    assert engines["ENGINE_VLLM"]["version"][0].isdigit()


def test_a_load_tells_what_the_engine_does_and_what_was_checked(told: list[Json]) -> None:
    loads = [each for each in told if each["phase"] == "LOAD_PHASE_LOAD"]
    details = list(dict.fromkeys(each.get("detail", "") for each in loads))
    assert details[0] == "its program starts"
    assert len(details) >= 4
    fractions = [each["fraction"] for each in loads if "fraction" in each]
    assert fractions == sorted(fractions)
    last = {each["phase"]: each.get("detail", "") for each in told}
    assert "tokens/s" in last["LOAD_PHASE_WARMUP"]
    assert last["LOAD_PHASE_CHECK"].startswith("healthy; ")


def test_it_stays_in_its_promise_and_takes_what_was_estimated(tiny: Json) -> None:
    used = resident_bytes(descendants(tiny["pid"]))
    footprint = tiny["footprint"]
    assert used <= footprint["total_bytes"]
    assert footprint["total_bytes"] - footprint["margin_bytes"] == pytest.approx(used, rel=0.10)


def test_its_cache_is_what_was_promised_for_it(tiny: Json) -> None:
    _, text = fetch(f"{tiny['endpoint']}/metrics")
    told = metrics.cache_config(text)
    promised = item(tiny, "FOOTPRINT_WHAT_KV_CACHE")
    assert int(told["kv_cache_memory_bytes"]) == promised
    # Four sequences of 512 tokens, and the block that vLLM keeps for itself.
    assert int(told["kv_cache_size_tokens"]) == 4 * 512 + int(told["block_size"])


def test_it_asks_for_the_key_which_no_argument_shows(tiny: Json) -> None:
    assert fetch(f"{tiny['endpoint']}/v1/models")[0] == 401
    assert fetch(f"{tiny['endpoint']}/v1/models", KEY)[0] == 200
    for pid in descendants(tiny["pid"]):
        assert KEY.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_each_of_its_processes_still_says_whose_it_is(tiny: Json) -> None:
    """By its environment, which the names that they give themselves would else be written over."""
    tree = descendants(tiny["pid"])
    assert len(tree) >= 3
    for pid in tree:
        assert b"GPUD_RESERVATION=" in Path(f"/proc/{pid}/environ").read_bytes(), name(pid)


def test_it_is_told_nothing_of_the_daemon_s_own_environment(tiny: Json) -> None:
    environment = Path(f"/proc/{tiny['pid']}/environ").read_text().split("\0")
    names = {each.partition("=")[0] for each in environment if each}
    assert "HF_HUB_OFFLINE" in names
    assert not names & {"PYTHONPATH", "NOTIFY_SOCKET", "VLLM_CPU_KVCACHE_SPACE", "USER"}


def test_the_openai_client_chats_with_it(tiny: Json, serving: Serving) -> None:
    whole = serving.openai(
        "said = client.chat.completions.create(model='tiny', max_tokens=8,\n"
        "    messages=[{'role': 'user', 'content': 'hello'}], extra_body={'ignore_eos': True})\n"
        "print(json.dumps(said.usage.completion_tokens))",
        tiny["endpoint"],
    )
    assert whole == 8
    streamed = serving.openai(
        "pieces = client.chat.completions.create(model='tiny', max_tokens=8, stream=True,\n"
        "    messages=[{'role': 'user', 'content': 'hello'}], extra_body={'ignore_eos': True},\n"
        "    stream_options={'include_usage': True})\n"
        "pieces = list(pieces)\n"
        "print(json.dumps([len(pieces), pieces[-1].usage.completion_tokens]))",
        tiny["endpoint"],
    )
    assert streamed[0] > 2
    assert streamed[1] == 8


async def test_its_pulse_beats_with_the_work(tiny: Json, engine: Vllm) -> None:
    endpoint, key = tiny["endpoint"], ApiKey(KEY)
    await in_flight(engine, endpoint, 0)
    before = await engine.pulse(endpoint, key)
    assert before is not None
    seen, served = asyncio.Event(), 0
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
        tasks.create_task(seen_in_flight(engine, endpoint, seen))
        while not seen.is_set():  # one may be served whole between two looks
            async with streaming(endpoint, 480, KEY) as pieces:
                async for _ in pieces:
                    pass
            served += 1
    await in_flight(engine, endpoint, 0)
    after = await engine.pulse(endpoint, key)
    assert after is not None
    assert after.progress is not None
    assert before.progress is not None
    assert after.progress >= before.progress + 480 * served
    assert after.completed == (before.completed or 0) + served


async def in_flight(engine: Vllm, endpoint: str, count: int) -> None:
    """So many requests: its counters follow what its clients see, a step or two later."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await engine.in_flight(endpoint, ApiKey(KEY)) != count:
            pass  # each answer is waited for


async def seen_in_flight(engine: Vllm, endpoint: str, seen: asyncio.Event) -> None:
    await in_flight(engine, endpoint, 1)
    seen.set()


async def test_what_it_counts_is_told_as_it_was_seen(tiny: Json, serving: Serving) -> None:
    """Its own histograms, over the last minute, beside what a client saw of the same requests."""
    loop, seen = asyncio.get_running_loop(), []
    async with calling(serving.gpud) as api:
        before = await counting(api, tiny["name"], lambda m: m.HasField("requests_total"))
        for _ in range(REQUESTS):
            began = loop.time()
            async with streaming(tiny["endpoint"], 100, KEY) as pieces:
                assert await anext(pieces)
                async for _piece in pieces:
                    pass
            seen.append(loop.time() - began)
        least = before.requests_total + REQUESTS
        told = await counting(
            api,
            tiny["name"],
            lambda m: m.requests_total >= least and m.requests_running == 0,
        )
    assert (told.slots, told.requests_running, told.slots_full) == (4, 0, False)
    assert told.generated_tokens_total >= before.generated_tokens_total + REQUESTS * 100
    assert (told.problem, told.error_ratio, told.failed_total) == ("", 0.0, 0)
    assert told.requests_per_second > 0
    assert told.generated_tokens_per_second > 0
    for span in (told.request, told.time_to_first_token, told.inter_token, told.queue):
        assert span.source == "engine"
        assert span.p50.ToTimedelta() <= span.p99.ToTimedelta()
    # Most of the last minute's requests are these; the first bucket of all ends at 0.3 s.
    median = told.request.p50.ToTimedelta().total_seconds()
    assert median <= max(0.3, 3 * max(seen))
    assert told.time_to_first_token.p50.ToTimedelta() <= told.request.p99.ToTimedelta()
    assert 0 <= told.cache_hit_ratio <= 1
    assert told.request_tokens_per_second > 100 / max(seen) / 3
    wide = serving.gpuctl("instances", "-o", "wide")
    assert "0/4" in wide


async def test_it_is_sent_to_sleep_and_woken(tiny: Json, engine: Vllm) -> None:
    """On a CPU nothing is freed, but every word of the protocol is the real one."""
    endpoint, key = tiny["endpoint"], ApiKey(KEY)
    model = Model(
        id="tiny",
        engine=EngineKind.VLLM,
        kind=ModelKind.CHAT,
        path="tiny",
        options=ModelOptions(),
    )
    for level, state in ((1, "weights_offloaded"), (2, "discard_all")):
        await engine.sleep(endpoint, level, key)
        assert await engine.is_sleeping(endpoint, key) is True
        pulse = await engine.pulse(endpoint, key)
        assert pulse is not None
        assert pulse.sleeping
        _, text = fetch(f"{endpoint}/metrics", KEY)
        assert f'sleep_state="{state}"}} 1.0' in text
        assert await engine.readiness(endpoint) is Readiness.READY
        await engine.wake(endpoint, key)
        assert await engine.is_sleeping(endpoint, key) is False
    await engine.probe(endpoint, model, ModelOptions(), key)


def test_an_operator_sends_it_to_sleep_and_wakes_it(tiny: Json, serving: Serving) -> None:
    """By gpud: nobody new is let in meanwhile, and it serves as before after either level."""
    endpoint, who = tiny["endpoint"], tiny["name"]
    for level in (1, 2):
        slept = serving.json("sleep", who, "--level", str(level))
        assert (slept["sleeping"], slept["sleep"]["level"]) == (True, level)
        assert fetch(f"{endpoint}/v1/models", KEY)[0] == 503
        woken = serving.json("wake", who)
        assert not woken["sleeping"]
        script = (
            "made = client.completions.create(model='tiny', prompt='the', max_tokens=4)\n"
            "print(json.dumps(made.usage.completion_tokens))"
        )
        assert serving.openai(script, endpoint) > 0


async def test_it_outlives_its_daemon(tiny: Json, serving: Serving) -> None:
    serving.gpud.restart()
    async with calling(serving.gpud) as api:
        again = await reaches(api, tiny["name"], pb.INSTANCE_STATE_READY)
    assert again.pid == tiny["pid"]
    assert fetch(f"{tiny['endpoint']}/v1/models", KEY)[0] == 200


async def test_its_core_is_killed_and_the_end_with_code_0_is_a_failure(
    tiny: Json, serving: Serving
) -> None:
    tree = descendants(tiny["pid"])
    core = next(pid for pid in tree if name(pid) == "VLLM::EngineCor")
    os.kill(core, signal.SIGKILL)
    async with calling(serving.gpud) as api:
        ended = await reaches(api, tiny["name"], pb.INSTANCE_STATE_FAILED)
        assert "one of its own processes ended" in str(ended)
        wait_until("its processes are gone", lambda: not any(map(lives, tree)))
