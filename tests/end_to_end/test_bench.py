"""Benchmarks of the real llama-server: measured, judged, kept, compared, stopped."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from gpuctl.main import run as gpuctl
from gpud.v1 import benchmarks_pb2 as pb
from gpud.v1 import node_pb2
from tests.end_to_end.driving import PATIENCE_SECONDS, held, load, streaming
from tests.running import Api, Gpud, calling, refusal_of, refused_stream

pytestmark = pytest.mark.engine
MakeGpud = Callable[..., Gpud]
MODELS = (
    '[models.wide]\npath = "tiny.gguf"\ncontext_length = 16384\nparallel = 4\n'
    '[models.vectors]\npath = "tiny.gguf"\nkind = "embedding"\npooling = "mean"\n'
    "context_length = 512\n"
)


@pytest.fixture
def daemon(modelled: MakeGpud, llama_server: Path) -> Gpud:
    return modelled(llama_server, models=MODELS).start()


async def bench(api: Api, **asked: Any) -> list[pb.BenchmarkModelResponse]:
    asked = {"prompts": 6, "prompt_tokens": 48, "output_tokens": 16, "warmup": 1} | asked
    async with asyncio.timeout(PATIENCE_SECONDS):
        request = pb.BenchmarkModelRequest(**asked)
        return [message async for message in api.instances.BenchmarkModel(request)]


async def kept(api: Api, **asked: Any) -> list[pb.Benchmark]:
    answer = await api.instances.ListBenchmarks(pb.ListBenchmarksRequest(**asked))
    return list(answer.benchmarks)


async def journal(api: Api, instance: str) -> list[node_pb2.Event]:
    """What it tells of benchmarks of an instance, in order."""
    asked = node_pb2.ListEventsRequest(type="benchmark", subject=instance)
    return list(reversed((await api.node.ListEvents(asked)).events))


async def test_a_model_is_measured_drained_and_the_result_outlives_the_daemon(
    daemon: Gpud,
) -> None:
    async with calling(daemon) as api:
        made = await load(api, "wide")
        told = await bench(api, model="wide", concurrency=[1, 4], drained=True)
        last = told[-1]
        assert [each.phase for each in told] == sorted(each.phase for each in told)
        assert last.phase == pb.BENCHMARK_PHASE_DONE
        found = last.benchmark
        assert (found.model, found.instance) == ("models/wide", made.name)
        assert found.engine_version
        assert found.options.parallel == 4
        assert (found.drained, found.served_others, found.void) == (True, False, False)
        assert [level.concurrency for level in found.levels] == [1, 4]
        for level in found.levels:
            assert (level.requests, level.completed, level.error_ratio) == (6, 6, 0.0)
            assert (level.output_tokens, list(level.errors)) == (6 * 16, [])
            # A prompt is as long as was asked, by the engine's own count.
            assert abs(level.prompt_tokens / 6 - 48) <= 2
            first, whole = level.time_to_first_token, level.request_latency
            assert 0 < first.p50.ToNanoseconds() <= first.p99.ToNanoseconds()
            assert first.p50.ToNanoseconds() < whole.p50.ToNanoseconds()
            assert level.tokens_per_second > 0
            assert level.prefill_tokens_per_second > 0
        assert [device.alias for device in found.devices] == ["host"]
        assert await kept(api) == [found]
        began, ended = await journal(api, made.name)
        assert (began.type, ended.type) == ("benchmark.started", "benchmark.done")
        assert {each.method for each in (began, ended)} == {"InstanceService/BenchmarkModel"}
        assert ended.actor == found.owner
        assert (ended.details["benchmark"], ended.details["concurrency"]) == (found.name, "1,4")
        rates = [float(each) for each in ended.details["tokens_per_second"].split(",")]
        told_rates = [level.tokens_per_second for level in found.levels]
        assert rates == pytest.approx(told_rates, abs=0.05)
    daemon.restart()
    async with calling(daemon) as api:
        assert await kept(api, model="models/wide") == [found]
        assert await kept(api, model="models/tiny") == []


async def test_others_are_seen_and_void_a_run_that_was_to_be_drained(daemon: Gpud) -> None:
    async with calling(daemon) as api:
        made = await load(api, "wide")
        async with streaming(made.endpoint, 6000) as pieces:
            await anext(pieces)
            live = (await bench(api, instance=made.name))[-1].benchmark
            assert (live.served_others, live.void) == (True, False)

        # Nobody is there when it begins; somebody comes while it runs.
        call = api.instances.BenchmarkModel(
            pb.BenchmarkModelRequest(model="wide", drained=True, prompts=600, output_tokens=8)
        )
        found, came = pb.Benchmark(), False
        async with asyncio.timeout(PATIENCE_SECONDS), AsyncExitStack() as stack:
            async for message in call:
                found = message.benchmark
                if message.phase == pb.BENCHMARK_PHASE_MEASURE and not came:
                    came = True
                    # Held, for as long as the connection takes: the run does not end before.
                    with held(made.pid):
                        stream = streaming(made.endpoint, 40)
                        pieces = await stack.enter_async_context(stream)
                    async for _ in pieces:
                        pass
        assert (found.served_others, found.void) == (True, True)
        assert "served others" in found.void_reasons[0]


async def test_who_leaves_stops_it_and_only_one_runs_at_a_time(daemon: Gpud) -> None:
    async with calling(daemon) as api:
        made = await load(api, "wide")
        endless = pb.BenchmarkModelRequest(model="wide", prompts=5000, concurrency=[2])
        call = api.instances.BenchmarkModel(endless)
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for message in call:
                if message.requests_done > 3:
                    break
        refusal = await refused_stream(api.instances.BenchmarkModel(endless))
        assert refusal.reason == "WRONG_STATE"
        assert "being benchmarked" in refusal.message
        call.cancel()
        while True:  # until the daemon has heard of it
            again = api.instances.BenchmarkModel(
                pb.BenchmarkModelRequest(instance=made.name, prompts=2, drained=True)
            )
            try:
                told = [message async for message in again]
            except grpc.aio.AioRpcError as error:
                refusal = refusal_of(error)
                continue
            break
        assert refusal.reason == "WRONG_STATE"
        assert told[-1].benchmark.served_others is False
        assert len(await kept(api)) == 1
        left = (await journal(api, made.name))[1]
        assert (left.type, left.reason) == ("benchmark.void", "stopped before its end")


async def test_an_engine_that_is_killed_voids_it_and_what_was_measured_stays(
    daemon: Gpud,
) -> None:
    async with calling(daemon) as api:
        made = await load(api, "wide")
        call = api.instances.BenchmarkModel(
            pb.BenchmarkModelRequest(model="wide", prompts=5000, concurrency=[1, 2])
        )
        found, killed = pb.Benchmark(), False
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for message in call:
                found = message.benchmark
                if message.requests_done >= 5 and not killed:
                    os.kill(made.pid, signal.SIGKILL)
                    killed = True
        assert found.void
        assert any("instance" in reason or "engine" in reason for reason in found.void_reasons)
        level = found.levels[0]
        assert level.completed >= 5
        assert level.completed < level.requests < 5000


async def test_the_limit_ends_it_and_says_so(daemon: Gpud) -> None:
    async with calling(daemon) as api:
        await load(api, "wide")
        asked = pb.BenchmarkModelRequest(model="wide", prompts=5000)
        asked.limit.FromSeconds(1)
        async with asyncio.timeout(PATIENCE_SECONDS):
            told = [message async for message in api.instances.BenchmarkModel(asked)]
        found = told[-1].benchmark
        assert list(found.void_reasons) == ["stopped by its limit of 1 s"]
        # On a slow host it may come to an end before anything is measured; then nothing is kept.
        assert bool(found.name) == bool(found.levels)
        assert sum(level.completed for level in found.levels) < 5000


async def test_embeddings_are_measured_as_requests(daemon: Gpud) -> None:
    async with calling(daemon) as api:
        await load(api, "vectors")
        (level,) = (await bench(api, model="vectors", concurrency=[2]))[-1].benchmark.levels
        assert (level.completed, list(level.errors)) == (6, [])
        assert level.prompt_tokens_per_second > 0
        assert not level.HasField("time_to_first_token")
        assert not level.HasField("tokens_per_second")


async def test_an_engine_that_asks_for_a_key_is_shown_it(
    modelled: MakeGpud, llama_server: Path, tmp_path: Path
) -> None:
    key_file = tmp_path / "voice.key"
    key_file.write_text("a-key-that-nobody-guesses\n")
    key_file.chmod(0o600)
    models = f'[models.voice]\npath = "tiny.gguf"\napi_key_file = "{key_file}"\n'
    daemon = modelled(llama_server, models=models).start()
    async with calling(daemon) as api:
        await load(api, "voice")
        found = (await bench(api, model="voice", drained=True))[-1].benchmark
        assert (found.levels[0].completed, found.served_others) == (6, False)


async def test_what_cannot_be_measured_is_refused(daemon: Gpud) -> None:
    async with calling(daemon) as api:
        await load(api, "tiny")
        asked = pb.BenchmarkModelRequest(model="tiny", prompt_tokens=5000)
        refusal = await refused_stream(api.instances.BenchmarkModel(asked))
        assert (refusal.reason, refusal.fields) == ("OPTION_INVALID", ("prompt_tokens",))
        assert "tokens that one request has room for" in refusal.message
        gone = pb.BenchmarkModelRequest(model="wide")
        refusal = await refused_stream(api.instances.BenchmarkModel(gone))
        assert refusal.reason == "INSTANCE_NOT_FOUND"
        assert await kept(api) == []


async def test_a_person_measures_lists_and_compares(
    daemon: Gpud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUCTL_ADDRESS", daemon.address)

    async def say(*words: str) -> list[str]:
        assert await asyncio.to_thread(gpuctl, words) == 0
        return capsys.readouterr().out.splitlines()

    async with calling(daemon) as api:
        await load(api, "wide")
        asked = ("bench", "wide", "--prompts", "3", "--tokens", "4", "--concurrency", "1,2")
        first = await say(*asked)
        at = next(at for at, line in enumerate(first) if line.startswith("N "))
        assert " ".join(first[at].split()) == "N TTFT P99 TOKEN P99 REQUEST P99 TOK/S REQ/S ERR"
        assert [line.split()[0] for line in first[at + 1 : at + 3]] == ["1", "2"]
        assert max(map(len, first)) <= 80
        await say(*asked)
        listed = await say("bench", "--list", "-o", "name")
        assert len(listed) == 2
        compared = await say("bench", "--compare", *listed)
        assert any("tokens per second" in line and line.endswith("%") for line in compared)
        assert max(map(len, compared)) <= 80
