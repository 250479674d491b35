"""From what an engine counts to what is told of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from gpud.benchmarking.benchmark import Benchmark, DeviceRecord, Level, Percentiles, Plan, Reading
from gpud.engines.counting.counters import Counters
from gpud.engines.counting.exposition import Histogram
from gpud.instances.instance import Instance, InstanceState
from gpud.models.model import EngineKind, ModelOptions
from gpud.telemetry.engines.reading import EngineReading, Latency
from gpud.telemetry.engines.reckoning import Known, newest_of, reading, unread
from gpud.telemetry.engines.series import Point, Points

SERVER = Instance(
    id="tiny-1",
    model="tiny",
    engine=EngineKind.LLAMA_CPP,
    owner="anna",
    state=InstanceState.READY,
    options=ModelOptions(parallel=4),
    create_wall=1.0,
    devices=("GPU-1",),
    restarts=2,
    load_seconds=1.5,
)
HALF = Percentiles(p50=0.5, p90=0.6, p99=0.9)


def seen(*counters: Counters) -> Points:
    return tuple(Point(boottime=10.0 * n, counters=each) for n, each in enumerate(counters))


def told(*counters: Counters, **known: Any) -> EngineReading:
    instance = known.pop("instance", SERVER)
    return reading(seen(*counters), Known(instance=instance, **known), wall=99.0)


def spans(slow: int, slower: int) -> Histogram:
    return Histogram(bounds=(1.0, 2.0, math.inf), counts=(slow, slower, slower), sum=slower / 4)


def benchmark(at: float, *levels: Level, **more: Any) -> Benchmark:
    record = DeviceRecord(uuid="GPU-1", alias="gpu0", start=Reading(), end=Reading())
    said: dict[str, Any] = {
        "options": SERVER.options,
        "devices": (record,),
        "model": "tiny",
        **more,
    }
    return Benchmark(
        instance="tiny-0",
        owner="anna",
        engine=EngineKind.LLAMA_CPP,
        plan=Plan(),
        create_wall=at,
        levels=levels,
        **said,
    )


def level(concurrency: int, latency: Percentiles | None = HALF) -> Level:
    return Level(
        concurrency=concurrency,
        requests=4,
        completed=4,
        errors=(),
        duration_seconds=1.0,
        time_to_first_token=latency,
        request_latency=latency,
    )


def test_what_is_not_counted_is_not_told() -> None:
    assert told(Counters(running=1)) == EngineReading(
        instance="tiny-1",
        model="tiny",
        boottime=0.0,
        wall=99.0,
        running=1,
        slots=4,
        slots_full=False,
        load_seconds=1.5,
        restarts=2,
    )


@pytest.mark.parametrize(
    ("counters", "full"),
    [
        (Counters(running=3), False),
        (Counters(running=4), True),
        (Counters(running=1, slots_full=True), True),
        (Counters(running=4, slots=8), False),
        (Counters(waiting=3), None),
    ],
)
def test_full_is_as_many_as_there_are_slots_or_as_it_says(
    counters: Counters, full: bool | None
) -> None:
    assert told(counters).slots_full is full


def test_slots_of_a_server_nobody_knows_are_unknown() -> None:
    command = replace(SERVER, options=ModelOptions())
    assert told(Counters(running=9), instance=command).slots_full is None
    sequences = replace(SERVER, options=ModelOptions(max_num_seqs=9))
    assert told(Counters(running=9), instance=sequences).slots_full is True


def test_rates_ratios_and_totals() -> None:
    before = Counters(
        requests=100, failed=10, generated_tokens=50, prompt_tokens=10, cached_tokens=30,
        looked_up_tokens=40, steps=10, slot_steps=20, given_tokens=20, prompt_seconds=1.0,
        generation_seconds=1.0,
    )  # fmt: skip
    after = Counters(
        requests=120, failed=15, generated_tokens=150, prompt_tokens=30, cached_tokens=90,
        looked_up_tokens=120, steps=60, slot_steps=145, given_tokens=145, prompt_seconds=1.5,
        generation_seconds=5.0,
    )  # fmt: skip
    found = told(before, after)
    assert (found.requests_per_second, found.error_ratio) == (2, 0.25)
    assert (found.generated_tokens_per_second, found.prompt_tokens_per_second) == (12.5, 2)
    assert (found.request_tokens_per_second, found.prefill_tokens_per_second) == (25, 40)
    assert (found.cache_hit_ratio, found.slots_busy) == (0.75, 2.5)
    totals = (found.requests_total, found.failed_total, found.generated_tokens_total)
    assert totals == (120, 15, 150)
    assert (found.prompt_tokens_total, found.cached_tokens_total) == (30, 90)


def test_one_pause_for_each_token_is_its_speed() -> None:
    found = told(Counters(inter_token=spans(0, 0)), Counters(inter_token=spans(8, 8)))
    assert found.request_tokens_per_second == 4
    assert found.inter_token == Latency(p50_seconds=0.5, p99_seconds=0.99, source="engine")


def test_latency_is_the_engine_s_own_where_it_has_a_histogram() -> None:
    busy = told(Counters(request=spans(0, 0)), Counters(request=spans(8, 8)), measured=level(1))
    assert busy.request == Latency(p50_seconds=0.5, p99_seconds=0.99, source="engine")
    idle = told(Counters(request=spans(8, 8)), Counters(request=spans(8, 8)), measured=level(1))
    assert idle.request is None, "it measures, and had nothing to measure"
    assert idle.time_to_first_token == Latency(
        p50_seconds=0.5, p99_seconds=0.9, source="benchmark"
    )


def test_the_newest_benchmark_of_the_same_is_at_its_quietest_level() -> None:
    runs = [
        benchmark(1, level(1, None)),
        benchmark(2, level(8), level(2), level(4)),
        benchmark(3, level(1), void_reasons=("hot",)),
        benchmark(4, level(1), options=ModelOptions(parallel=1)),
        benchmark(5, level(1), model="other"),
        benchmark(6, level(1), devices=()),
    ]
    assert newest_of(SERVER, runs) == level(2)
    assert newest_of(SERVER, runs[2:]) is None


def test_what_is_left_out_is_told_beside_what_was_read() -> None:
    cut = told(Counters(running=1, is_cut=True))
    assert (cut.problem, cut.doubt) == ("", "it tells more metrics than are read")
    odd = told(Counters(running=1, senseless=("tok", "q")))
    assert (odd.problem, odd.running) == ("", 1)
    assert odd.doubt == "it tells what no server can have counted: tok, q"
    assert told(Counters(senseless=("tok",))).problem.endswith("counted: tok")


def test_what_is_no_known_counter_is_a_problem() -> None:
    assert "none of the counters" in told(Counters()).problem
    assert "more metrics" in told(Counters(is_cut=True)).problem
    nothing = unread(Known(instance=SERVER, services={"service": "a"}), 1.0, 2.0, "it hangs")
    assert (nothing.problem, nothing.running, nothing.restarts) == ("it hangs", None, 2)
