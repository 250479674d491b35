from __future__ import annotations

import json
from collections.abc import Callable

import grpc
import pytest

from gpud.v1 import benchmarks_pb2 as pb
from gpud.v1.instances_pb2 import GetInstanceResponse
from tests.fakes.daemon import FakeDaemon, Refusal
from tests.gpuctl import samples
from tests.gpuctl.conftest import Gpuctl

Golden = Callable[[str, str], None]
NOT_FOUND = Refusal(
    code=grpc.StatusCode.NOT_FOUND, message="cannot find instance", reason="INSTANCE_NOT_FOUND"
)


def spans(milliseconds: int) -> pb.Percentiles:
    told = pb.Percentiles()
    for percentile, factor in (("p50", 1.0), ("p90", 1.5), ("p99", 2.0)):
        getattr(told, percentile).FromMicroseconds(round(1000 * milliseconds * factor))
    return told


def level(concurrency: int, speed: float = 100.0) -> pb.BenchmarkLevel:
    return pb.BenchmarkLevel(
        concurrency=concurrency,
        requests=32,
        completed=32,
        prompt_tokens=4096,
        output_tokens=2048,
        time_to_first_token=spans(12 * concurrency),
        inter_token=spans(9),
        request_latency=spans(600 * concurrency),
        tokens_per_second=speed * concurrency,
        request_tokens_per_second=speed,
        prompt_tokens_per_second=2 * speed * concurrency,
        prefill_tokens_per_second=10_666.0,
        requests_per_second=1.6 * concurrency,
    )


def benchmark(id_: str = "tiny-1a2b3c", speed: float = 100.0) -> pb.Benchmark:
    made = pb.Benchmark(
        name=f"benchmarks/{id_}",
        model="models/tiny",
        instance="instances/tiny-7f3k",
        owner="anna@host",
        engine="ENGINE_LLAMA_CPP",
        engine_version="b11669",
        prompts=32,
        prompt_tokens=128,
        output_tokens=64,
        warmup=2,
        served_others=False,
        levels=[level(1, speed), level(8, speed)],
        devices=[
            pb.BenchmarkDevice(
                device="devices/GPU-0",
                alias="gpu0",
                start=pb.BenchmarkReading(temperature_celsius=48, sm_clock_mhz=1506),
                end=pb.BenchmarkReading(temperature_celsius=71, sm_clock_mhz=1480),
            )
        ],
    )
    made.create_time.FromSeconds(samples.NOW)
    return made


def voided(id_: str) -> pb.Benchmark:
    made = benchmark(id_, speed=50.0)
    made.void = True
    made.void_reasons.append("gpu0 is slowed down by heat at 83 °C")
    made.served_others = True
    last = made.levels[1]
    last.completed = 30
    detail = "out\x1b[31m of cheese"
    last.errors.append(pb.BenchmarkErrors(kind="HTTP 500", count=2, detail=detail))
    return made


@pytest.fixture(autouse=True)
def _scripted(daemon: FakeDaemon) -> None:
    begun = pb.BenchmarkModelResponse(phase=pb.BENCHMARK_PHASE_WARMUP)
    under_way = pb.BenchmarkModelResponse(
        phase=pb.BENCHMARK_PHASE_MEASURE, concurrency=1, requests_done=3, requests_total=32
    )
    done = pb.BenchmarkModelResponse(phase=pb.BENCHMARK_PHASE_DONE, benchmark=benchmark())
    daemon.answers.update(
        GetInstance=NOT_FOUND,
        BenchmarkModel=[begun, under_way, done],
        ListBenchmarks=pb.ListBenchmarksResponse(
            benchmarks=[benchmark("tiny-old", 80.0), voided("tiny-hot"), benchmark()]
        ),
    )


def test_a_result_fits_a_terminal(gpuctl: Gpuctl, daemon: FakeDaemon, golden: Golden) -> None:
    ended = gpuctl("bench tiny --concurrency 1,8 --prompts 32 --tokens 64 --drained --limit 5m")
    assert ended.code == 0
    golden("bench", ended.out)
    assert max(map(len, ended.out.splitlines())) <= 80
    assert "MEASURE N=1" in ended.err
    (request,) = daemon.requests["BenchmarkModel"]
    assert (request.model, request.instance) == ("models/tiny", "")
    assert (list(request.concurrency), request.prompts, request.output_tokens) == ([1, 8], 32, 64)
    assert (request.drained, request.limit.seconds) == (True, 300)
    assert not request.HasField("warmup")


def test_an_instance_is_named_as_one(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["GetInstance"] = GetInstanceResponse(instance=samples.instance())
    gpuctl("bench tiny-7f3k --warmup 0")
    (request,) = daemon.requests["BenchmarkModel"]
    assert (request.model, request.instance, request.warmup) == ("", "instances/tiny-7f3k", 0)
    assert request.HasField("warmup")


def test_what_voids_it_and_what_failed_is_told(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    done = pb.BenchmarkModelResponse(phase=pb.BENCHMARK_PHASE_DONE, benchmark=voided("tiny-x"))
    daemon.answers["BenchmarkModel"] = [done]
    out = gpuctl("bench tiny").out
    assert "VOID: gpu0 is slowed down by heat at 83 °C" in out
    assert "live; it served others meanwhile" in out
    assert "N=8: 2 of 32 failed, HTTP 500: out of cheese" in out


@pytest.mark.parametrize("form", ["", " -o json"])
def test_nothing_measured_is_no_result(gpuctl: Gpuctl, daemon: FakeDaemon, form: str) -> None:
    empty = voided("tiny-x")
    del empty.levels[0]
    empty.levels[0].completed = 0
    done = pb.BenchmarkModelResponse(phase=pb.BENCHMARK_PHASE_DONE, benchmark=empty)
    daemon.answers["BenchmarkModel"] = [done]
    ended = gpuctl(f"bench tiny{form}")
    assert ended.code != 0
    assert ended.out == ""
    assert "nothing was measured: gpu0 is slowed down by heat" in ended.err
    assert "HTTP 500: out of cheese" in ended.err


def test_json_is_the_bare_benchmark(gpuctl: Gpuctl) -> None:
    told = json.loads(gpuctl("bench tiny -o json").out)
    assert (told["name"], len(told["levels"])) == ("benchmarks/tiny-1a2b3c", 2)
    assert told["levels"][0]["time_to_first_token"]["p50"] == "0.012s"


def test_lines_are_the_messages(gpuctl: Gpuctl) -> None:
    lines = [json.loads(line) for line in gpuctl("bench tiny -o jsonl").out.splitlines()]
    assert [each["phase"] for each in lines][-1] == "BENCHMARK_PHASE_DONE"
    assert lines[1]["requests_done"] == 3


def test_a_refusal_ends_it(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["BenchmarkModel"] = Refusal(
        code=grpc.StatusCode.FAILED_PRECONDITION, message="cannot change", reason="WRONG_STATE"
    )
    assert gpuctl("bench tiny").code == 73


def test_a_stream_that_ends_early_is_no_result(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    daemon.answers["BenchmarkModel"] = [pb.BenchmarkModelResponse()]
    ended = gpuctl("bench tiny")
    assert ended.code != 0
    assert "without a result" in ended.err


@pytest.mark.parametrize(
    "words", ["bench", "bench tiny --concurrency 1,x", "bench tiny --prompts 0"]
)
def test_what_makes_no_sense_is_a_usage_error(words: str, gpuctl: Gpuctl) -> None:
    assert gpuctl(words).code == 2


@pytest.mark.usefixtures("terminal")
def test_the_kept_ones_are_listed(gpuctl: Gpuctl, daemon: FakeDaemon, golden: Golden) -> None:
    ended = gpuctl("bench --list tiny")
    golden("bench_list", ended.out)
    assert max(map(len, ended.out.splitlines())) <= 80
    assert daemon.requests["ListBenchmarks"][0].model == "models/tiny"
    assert gpuctl("bench --list -o name").out.splitlines()[0] == "benchmarks/tiny-old"


@pytest.mark.usefixtures("terminal")
def test_two_are_compared_in_percent_of_the_first(gpuctl: Gpuctl, golden: Golden) -> None:
    ended = gpuctl("bench --compare tiny-old tiny")  # of the model, its latest
    golden("bench_compare", ended.out)
    assert max(map(len, ended.out.splitlines())) <= 80


def test_a_comparison_with_a_void_one_says_so(gpuctl: Gpuctl) -> None:
    told = json.loads(gpuctl("bench --compare tiny-hot benchmarks/tiny-1a2b3c -o json").out)
    assert told["caveats"] == ["A is VOID: gpu0 is slowed down by heat at 83 °C"]
    speeds = [each for each in told["differences"] if each["quantity"] == "tokens_per_second"]
    assert [(each["concurrency"], each["percent"]) for each in speeds] == [(1, 100.0), (8, 100.0)]
    assert "A is VOID" in gpuctl("bench --compare tiny-hot tiny").out


def test_what_was_asked_differently_is_told(gpuctl: Gpuctl, daemon: FakeDaemon) -> None:
    other = benchmark("tiny-other")
    other.prompt_tokens = 2048
    del other.levels[:]
    other.levels.append(level(16))
    daemon.answers["ListBenchmarks"] = pb.ListBenchmarksResponse(benchmarks=[benchmark(), other])
    out = gpuctl("bench --compare tiny-1a2b3c tiny-other").out
    assert "prompt tokens differs: 128 and 2048" in out
    assert "no concurrency in common" in out


def test_nothing_of_that_name_cannot_be_compared(gpuctl: Gpuctl) -> None:
    ended = gpuctl("bench --compare tiny nothing")
    assert ended.code == 69
    assert "bench --list" in ended.err
